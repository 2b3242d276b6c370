"""The servers of a measurement: Redis, a contender, the fake WeChat. Each runs on loopback, bound to one core."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.contenders.table import NGINX, Contender
from benchmarks.harness.host import BENCHMARKS, BIN, LOAD_CORE, ROOT, SERVER_CORE, pinned
from tests.support.servers import RedisServer, Server, free_port, wait_until

#: Seconds between two attempts to connect.
POLL_INTERVAL: Final = 0.002


class PinnedRedis(RedisServer):
    """A redis-server on the load's core."""

    def __init__(self) -> None:
        super().__init__()
        self._command = [*pinned(LOAD_CORE), *self._command]


class ContenderServer(Server):
    """A contender, with `pin` on a core of its own. `started_in` is the time to the first answer in seconds."""

    def __init__(
        self,
        contender: Contender,
        redis: RedisServer,
        extra_environ: Mapping[str, str] | None = None,
        *,
        pin: bool = True,
    ) -> None:
        self.contender = contender
        self.redis = redis
        self.port = free_port()
        super().__init__([*(pinned(SERVER_CORE) if pin else []), *contender.command], cwd=ROOT)
        self._environ = {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "HOME": os.environ.get("HOME", "/"),
            "PORT": str(self.port),
            "REDIS_URL": redis.url,
            "PROMETHEUS_MULTIPROC_DIR": str(self.folder),
            **contender.environ,
            **(extra_environ or {}),
        }
        conf = BENCHMARKS / "contenders" / "nginx.conf"
        write_nginx_conf(conf, self.folder, port=self.port, redis_port=redis.port)

    def start(self) -> None:
        began = time.perf_counter()
        super().start()
        wait_until(self._answers_http, self.contender.name, 60)
        self.started_in = time.perf_counter() - began

    def _answers_http(self) -> bool:
        request = f"GET {self.contender.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.sendall(request)
                return connection.recv(5) == b"HTTP/"
        except OSError:
            time.sleep(POLL_INTERVAL)
            return False


class FakeWeChat(Server):
    """A fake WeChat that answers after `delay` milliseconds: nginx, so that it is faster than every contender."""

    def __init__(self, delay: int) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__([*pinned(LOAD_CORE), *NGINX])
        write_nginx_conf(BENCHMARKS / "harness" / "wechat.conf", self.folder, port=self.port, delay=delay / 1000)

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def write_nginx_conf(source: Path, folder: Path, **values: object) -> None:
    """Write `source` to `folder`, with `values` in place of their names in braces."""
    text = source.read_text().replace("{folder}", str(folder))
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", str(value))
    Path(folder, "nginx.conf").write_text(text)
