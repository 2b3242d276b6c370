"""Granian with the options of the service: `python -m wxauth.cli.server TARGET HOST PORT WORKERS THREADS [FOLDER]`.

Granian's own command limits the timeout of idle connections to 60 s. `serve` runs this module as a new program,
because prometheus_client reads PROMETHEUS_MULTIPROC_DIR when it is imported.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import shutil
import sys
from collections.abc import Callable
from typing import Final

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server import Server

#: Milliseconds until an idle connection, or one that sends its head slowly, is closed. Heroku's router reuses
#: connections for up to 90 s.
HEADER_TIMEOUT: Final = 100_000
#: Bytes. The buffer grows in steps, so heads of more than about 48 KB get 431. Granian's default holds 400 KB.
BUFFER_SIZE: Final = 32 * 1024
#: Connections of a worker, also silent ones. As many again wait in the backlog.
MAX_CONNECTIONS: Final = 4096
LOGGING: Final = {
    "filters": {"threads": {"()": "wxauth.cli.server.thread_filter"}},
    "formatters": {"wxauth": {"()": "wxauth.logs.JSONFormatter"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "wxauth"}},
    "loggers": {"_granian": {"handlers": ["console"], "filters": ["threads"], "level": "INFO", "propagate": False}},
}


def run(target: str, host: str, port: str, workers: str, threads: str, folder: str | None = None) -> None:
    """Serve `target` until SIGTERM or SIGINT, then remove `folder`."""
    _allow_files()
    server = Server(
        target,
        address=host,
        port=int(port),
        interface=Interfaces.WSGI,
        workers=int(workers),
        blocking_threads=int(threads),
        http=HTTPModes.http1,
        websockets=False,
        backlog=MAX_CONNECTIONS,
        backpressure=MAX_CONNECTIONS,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT, max_buffer_size=BUFFER_SIZE),
        log_dictconfig=LOGGING,
        respawn_failed_workers=True,
        workers_kill_timeout=10,
    )
    try:
        server.serve()
    except SystemExit:
        # A host sends SIGTERM to the workers too. Granian takes one that ends early for a crash.
        if not server.interrupt_signal:
            raise
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def thread_filter() -> Callable[[logging.LogRecord], bool]:
    """Return a filter that drops Granian's warning of many threads: a login waits for WeChat, and holds one."""
    return lambda record: "Python threads" not in record.getMessage()


def _allow_files() -> None:
    """Raise the limit on open files as far as the system allows. Each connection is one; a usual limit is 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):  # macOS says "unlimited" and refuses that
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    run(*sys.argv[1:])
