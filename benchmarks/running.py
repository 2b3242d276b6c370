"""Servers that a figure needs: a Redis, a contender, the fake WeChat; each a child, pinned, on loopback."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.places import BIN, HERE, LOAD_CORE, ROOT, SERVER_CORE, pinned
from benchmarks.table import Contender
from tests.servers import RedisServer, Server, free_port, wait_until

POLL = 0.002


class PinnedRedis(RedisServer):
    def __init__(self) -> None:
        super().__init__()
        self._command = [*pinned(LOAD_CORE), *self._command]


class ContenderServer(Server):
    """A contender over a Redis of its own; `started_in` is how many seconds its first answer took."""

    def __init__(self, contender: Contender, redis: RedisServer, more: Mapping[str, str] | None = None) -> None:
        self.contender = contender
        self.redis = redis
        self.port = free_port()
        super().__init__([*pinned(SERVER_CORE), *contender.command], cwd=ROOT)
        self._environ = {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "HOME": os.environ.get("HOME", "/"),
            "PORT": str(self.port),
            "REDIS_URL": redis.url,
            "PROMETHEUS_MULTIPROC_DIR": str(self.folder),
            **contender.environ,
            **(more or {}),
        }
        self._write_nginx_conf()

    def start(self) -> None:
        began = time.perf_counter()
        super().start()
        wait_until(self._answers_at_all, self.contender.name, 60)
        self.started_in = time.perf_counter() - began

    def _answers_at_all(self) -> bool:
        request = f"GET {self.contender.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.sendall(request)
                return connection.recv(5) == b"HTTP/"
        except OSError:
            time.sleep(POLL)
            return False

    def _write_nginx_conf(self) -> None:
        values = {"folder": self.folder, "port": self.port, "redis_port": self.redis.port}
        text = (HERE / "contenders" / "nginx.conf").read_text()
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", str(value))
        Path(self.folder, "nginx.conf").write_text(text)


class FakeWeChat(Server):
    """Answers after `delay` milliseconds."""

    def __init__(self, delay: int) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "benchmarks.wechat", str(self.port), str(delay)]
        super().__init__([*pinned(LOAD_CORE), *command], cwd=ROOT)

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
