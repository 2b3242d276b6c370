"""Log lines: one JSON object each. Knows no Flask and no settings.

A line has an event (a fixed word, the log message) and fields (`extra=`). It must never contain a secret, a token, a
code, an openid, a unionid or a session_key.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final, Protocol
from wsgiref.types import WSGIEnvironment

#: The WSGI environment of the request that this thread is processing.
current_environ: ContextVar[WSGIEnvironment] = ContextVar("wxauth_current_environ")
REQUEST_ID: Final = "wxauth.request_id"

#: Lines in one second, for each worker and each of REFUSALS.
MAX_REFUSALS: Final = 25
REFUSALS: Final = ("token_invalid", "client_unauthorized")

ENCODE: Final = json.JSONEncoder(default=str).encode
STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def request_id(environ: WSGIEnvironment | None = None) -> str | None:
    """Return the id of the current request, else of the request of `environ`. None outside of a request.

    The id is made at the first call, and kept in the WSGI environment.
    """
    environ = current_environ.get(environ)
    return None if environ is None else environ.setdefault(REQUEST_ID, secrets.token_hex(8))


class Stream(Protocol):
    """What log lines are written to."""

    def write(self, text: str, /) -> object:
        """Write the text."""


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
        return ENCODE(line)


class LogHandler(logging.Handler):
    """Writes lines to `stream`, but at most MAX_REFUSALS lines about each of REFUSALS per second. Counts the others.

    With the first line of a later second, of any kind, comes a line `requests_refused` with `problem` and `count`.
    So a flood of forged tokens or guessed secrets fills no disk, and each request leaves a trace in the log.
    """

    def __init__(self, stream: Stream, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.setFormatter(JSONFormatter())
        self._stream = stream
        self._clock = clock
        self._second = 0
        self._refusals: Counter[str] = Counter()

    def handle(self, record: logging.LogRecord) -> bool:
        """Write or count `record`. The lock of `logging` is not held while a line is written.

        To write, a thread lets others run. If it held a lock, they would all wait for it at their log lines.
        """
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Write or count `record`."""
        self.acquire()
        try:
            records = [*self._counts(), *([record] if self._is_wanted(record) else [])]
        finally:
            self.release()
        for each in records:
            try:
                self._stream.write(f"{self.format(each)}\n")
            except Exception:
                self.handleError(each)

    def _counts(self) -> list[logging.LogRecord]:
        """At the first line of a second, return the counts of the one before."""
        second = int(self._clock())
        if second == self._second:
            return []
        surplus = self._refusals - Counter(dict.fromkeys(REFUSALS, MAX_REFUSALS))
        self._second, self._refusals = second, Counter()
        line = {"msg": "requests_refused", "levelname": "INFO", "request_id": None}
        return [logging.makeLogRecord(line | {"problem": it, "count": count}) for it, count in surplus.items()]

    def _is_wanted(self, record: logging.LogRecord) -> bool:
        problem = getattr(record, "problem", "")
        self._refusals[problem] += problem in REFUSALS
        return self._refusals[problem] <= MAX_REFUSALS


class _Stdout:
    """stdout without its buffer, which has a lock too."""

    def write(self, text: str) -> None:
        rest = text.encode()
        while rest:
            rest = rest[os.write(sys.stdout.fileno(), rest) :]


def configure(level: str, stream: Stream | None = None) -> None:
    """Write every line of this process to `stream`, or to stdout.

    For the service alone: an application has its own handlers.
    """
    logging.basicConfig(level=level.upper(), handlers=[LogHandler(stream or _Stdout())], force=True)
