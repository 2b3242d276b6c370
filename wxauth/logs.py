"""Log lines: one JSON object each. Knows no Flask and no settings.

A line has an event (a fixed word, the log message) and fields (`extra=`). It must never contain a secret, a token, a
code, an openid, a unionid or a session_key.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final, TextIO
from wsgiref.types import WSGIEnvironment

#: The WSGI environment of the request that this thread is processing.
current_environ: ContextVar[WSGIEnvironment] = ContextVar("wxauth_current_environ")
REQUEST_ID: Final = "wxauth.request_id"

#: Lines in one second, for each worker and each of REFUSALS.
MAX_REFUSALS: Final = 25
REFUSALS: Final = ("token_invalid", "client_unauthorized")

STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def request_id(environ: WSGIEnvironment | None = None) -> str | None:
    """Return the id of the current request, else of the request of `environ`. None outside of a request.

    The id is made at the first call, and kept in the WSGI environment.
    """
    environ = current_environ.get(environ)
    return None if environ is None else environ.setdefault(REQUEST_ID, secrets.token_hex(8))


class JSONFormatter(logging.Formatter):
    """`{"time", "level", "event", …}`, with `traceback` after an exception."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        own = {"time": time, "level": record.levelname.lower(), "event": record.getMessage()}
        request = {"request_id": current} if (current := request_id()) else {}
        extra = {name: value for name, value in vars(record).items() if name not in STANDARD}
        line: dict[str, object] = own | request | extra | own
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def hide_queries(record: logging.LogRecord) -> bool:
    """Drop urllib3's lines about our requests to WeChat: at DEBUG they contain secrets. A filter for `logging`."""
    return not any(f"{name}=" in record.getMessage() for name in ("secret", "access_token"))


class LogHandler(logging.StreamHandler[TextIO]):
    """Writes lines to `stream`, but at most MAX_REFUSALS lines about each of REFUSALS per second. Counts the others.

    The first line of a later second, of any kind, comes after a line `requests_refused` with `problem` and `count`.
    So a flood of forged tokens or guessed secrets fills no disk, and each request leaves a trace in the log.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self.setFormatter(JSONFormatter())
        self._clock = clock
        self._second = 0
        self._refusals: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write or count `record`. `logging` holds the lock of the handler."""
        second = int(self._clock())
        if second != self._second:
            self._write_count()
            self._second, self._refusals = second, Counter()
        problem = getattr(record, "problem", "")
        self._refusals[problem] += problem in REFUSALS
        if self._refusals[problem] <= MAX_REFUSALS:
            super().emit(record)

    def _write_count(self) -> None:
        for problem, count in (self._refusals - Counter(dict.fromkeys(REFUSALS, MAX_REFUSALS))).items():
            line = {"msg": "requests_refused", "levelname": "INFO", "request_id": None, "problem": problem}
            super().emit(logging.makeLogRecord(line | {"count": count}))


def configure(level: str, stream: TextIO = sys.stdout) -> None:
    """Write every line of this process to `stream`. For the service alone: an application has its own handlers."""
    logging.basicConfig(level=level.upper(), handlers=[LogHandler(stream)], force=True)
