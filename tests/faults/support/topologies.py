"""Redis with replicas and sentinels, as real processes. For Redis Cluster see `clusters`.

Each node has its own port and folder. The end of the `with` block stops all nodes of a topology.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Final, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.servers import RedisServer, program, wait_until

SERVICE: Final = "wxa"
PROMOTION_LIMIT: Final = 30.0
#: At 1000 ms a sentinel on a busy machine takes the primary that it has just promoted for dead, and deposes it.
DOWN_AFTER: Final = 2000


class Node(RedisServer):
    """A redis-server that can be killed, stalled and started again."""

    def __init__(self, *options: str, password: str = "", server: str = "redis-server") -> None:
        secured = ("--requirepass", password, "--masterauth", password) if password else ()
        super().__init__("--repl-diskless-sync-delay", "0", *secured, *options, server=server)
        self.password = password
        self._first_command = tuple(self._command)
        self._client = self.client()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        once = Retry(NoBackoff(), 1)
        return redis.Redis(port=self.port, password=self.password or None, protocol=2, socket_timeout=2, retry=once)

    def ask(self, *command: str | int | bytes) -> Any:
        return self._client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py's own

    @contextlib.contextmanager
    def option(self, name: str, value: str) -> Iterator[None]:
        """Set an option for the `with` block."""
        before = self.ask("CONFIG", "GET", name)[1]
        self.ask("CONFIG", "SET", name, value)
        try:
            yield
        finally:
            self.ask("CONFIG", "SET", name, before)

    def replication(self) -> dict[str, Any]:
        """Return INFO replication; empty if the node does not answer."""
        try:
            found: dict[str, Any] = self._client.info("replication")
        except (redis.RedisError, OSError):
            return {}
        return found

    def leads(self) -> bool:
        return self.replication().get("role") == "master"

    def follows(self) -> bool:
        """Return whether this is a replica in sync with its primary."""
        return self.replication().get("master_link_status") == "up"

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()
        self.process.wait()
        self._client.close()

    def stop(self) -> int:
        """Send SIGKILL: on SIGTERM, Redis first waits for its replicas."""
        self.kill()
        return self.process.returncode

    def stall(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def start_again(self, *options: str) -> None:
        """Start a new process with the same port and folder."""
        self._command = [*self._first_command, *options]
        self.start()
        wait_until(self.answers, self.place)


class SentinelNode(Node):
    """A sentinel that watches `primary`. `password` is its own."""

    def __init__(self, primary: Node, quorum: int, password: str, server: str = "redis-server") -> None:
        super().__init__(password=password, server=server)
        self._command = [program(server), f"{self.folder}/sentinel.conf", "--sentinel"]
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self.folder}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} {quorum}",
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER}",
            f"sentinel failover-timeout {SERVICE} 3000",
            f"sentinel parallel-syncs {SERVICE} 2",
        ]
        if primary.password:
            lines.append(f"sentinel auth-pass {SERVICE} {primary.password}")
        if password:
            lines += [f"requirepass {password}", f"sentinel sentinel-pass {password}"]
        (self.folder / "sentinel.conf").write_text("\n".join(lines) + "\n")

    def sees(self, primary: Node) -> bool:
        """Return whether it takes `primary` for the primary, and for healthy."""
        master = self._told("MASTER")
        return bool(master) and (master[0]["port"], master[0]["flags"]) == (str(primary.port), "master")

    def is_ready(self, replicas: int, sentinels: int) -> bool:
        """Return whether it knows so many healthy replicas and so many other sentinels."""
        healthy = [
            link for link in self._told("REPLICAS") if (link["flags"], link["master-link-status"]) == ("slave", "ok")
        ]
        return len(healthy) >= replicas and len(self._told("SENTINELS")) >= sentinels

    def _told(self, about: str) -> list[dict[str, str]]:
        """Return its answer as dictionaries; none if it does not answer."""
        try:
            reply = self.ask("SENTINEL", about, SERVICE)
        except (redis.RedisError, OSError):
            return []
        return [_pairs(reply)] if about == "MASTER" else [_pairs(entry) for entry in reply]


class Topology:
    """Servers that start and stop together."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            self._assemble()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _assemble(self) -> None:
        for node in self.nodes:
            self._stack.enter_context(node)

    @property
    def password(self) -> str:
        return self.nodes[0].password

    @property
    def _login(self) -> str:
        return f":{self.password}@" if self.password else ""

    def promoted(self, among: Iterable[Node], seconds: float = PROMOTION_LIMIT) -> tuple[Node, float]:
        """Wait until one of the replicas `among` is a primary. Return it and the monotonic time.

        Raises TimeoutError after `seconds`.
        """
        candidates = list(among)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for node in candidates:
                if node.leads():
                    return node, time.monotonic()
            time.sleep(0.01)
        raise TimeoutError(f"no promotion within {seconds} s")


class SentinelSet(Topology):
    """One primary, two replicas, three sentinels. `options` are for the data nodes.

    All nodes require the password; with `open_sentinels`, the sentinels require none.
    """

    def __init__(
        self, *options: str, password: str = "", open_sentinels: bool = False, server: str = "redis-server"
    ) -> None:
        super().__init__([Node(*options, password=password, server=server) for _ in range(3)])
        self.primary, *others = self.nodes
        for node in others:
            node._command += ["--replicaof", "127.0.0.1", str(self.primary.port)]
        their_password = "" if open_sentinels else password
        self.sentinels = [SentinelNode(self.primary, 2, their_password, server) for _ in range(3)]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{self._login}{','.join(node.place for node in self.sentinels)}/{SERVICE}/0"

    @property
    def replicas(self) -> list[Node]:
        return [node for node in self.nodes if node is not self.primary]

    def _assemble(self) -> None:
        super()._assemble()
        wait_until(lambda: all(node.follows() for node in self.replicas), "replicas in step")
        for sentinel in self.sentinels:
            self._stack.enter_context(sentinel)
        self.settle()

    def settle(self) -> None:
        """Wait until each replica is in sync and each sentinel knows it: ready for the next failure."""
        wait_until(lambda: all(node.follows() for node in self.replicas), "replicas in step", PROMOTION_LIMIT)
        self._await_sentinels()
        known = len(self.replicas), len(self.sentinels) - 1
        wait_until(
            lambda: all(sentinel.is_ready(*known) for sentinel in self.sentinels), "sentinels", PROMOTION_LIMIT
        )

    def await_promotion(self) -> float:
        """Wait for a promotion and return its monotonic time. The promoted node becomes `primary`."""
        self.primary, when = self.promoted(self.replicas)
        return when

    def rejoin(self, node: Node) -> None:
        """Start a killed node again as a replica of the new primary."""
        self._await_sentinels()
        node.start_again("--replicaof", "127.0.0.1", str(self.primary.port))

    def _await_sentinels(self) -> None:
        wait_until(lambda: all(node.sees(self.primary) for node in self.sentinels), "one primary", PROMOTION_LIMIT)


def text_of(reply: bytes | str) -> str:
    return reply.decode() if isinstance(reply, bytes) else reply


def _pairs(flat: list[bytes]) -> dict[str, str]:
    texts = [text_of(part) for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))
