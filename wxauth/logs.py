"""Log lines: one JSON object each on a pipe, a readable form on a terminal. Knows no Flask and no setting's name.

A line is an event (a stable word, the log message) and fields (`extra=`). What may never be in one: a secret, a
token, a code, an openid, a unionid or a session_key.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final, TextIO
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

#: Which request this thread is answering.
answering: ContextVar[WSGIEnvironment | None] = ContextVar("wxauth_answering", default=None)
REQUEST_ID: Final = "wxauth.request_id"

#: A flood of requests is not to become a flood of lines; this is for one worker.
LINES_A_SECOND: Final = 25

STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def request_id() -> str | None:
    """The id of the request that this thread is answering, if any. Most are never asked for theirs, and get none."""
    environ = answering.get()
    return None if environ is None else environ.setdefault(REQUEST_ID, secrets.token_hex(8))


def naming(app: WSGIApplication) -> WSGIApplication:
    """`app`, with a request id in its lines. Hooks of Flask's would cost each request twenty times as much."""

    def named(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        before = answering.set(environ)
        try:
            return app(environ, start_response)
        finally:
            answering.reset(before)

    return named


def fields(record: logging.LogRecord) -> dict[str, object]:
    """What the caller gave as `extra`, and the request it belongs to."""
    found = {name: value for name, value in vars(record).items() if name not in STANDARD}
    if "request_id" not in found and (current := request_id()):
        found["request_id"] = current
    return found


class JSONFormatter(logging.Formatter):
    """`{"time", "level", "event", …}`, and `traceback` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        own = {"time": time, "level": record.levelname.lower(), "event": record.getMessage()}
        line: dict[str, object] = own | fields(record) | own
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TerminalFormatter(logging.Formatter):
    """`12:00:00 INFO  event  field=value`, for eyes."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        details = " ".join(f"{name}={_visible(value)}" for name, value in fields(record).items())
        return f"{super().formatMessage(record)}  {details}".rstrip()


def _visible(value: object) -> str:
    text = str(value)
    return text if text.isprintable() else repr(text)


class HidesQueries(logging.Filter):
    """Drops urllib3's lines about requests: at DEBUG they hold the whole query, AppSecret and all."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "?" not in record.getMessage()


class AtMost(logging.Filter):
    """Lets so many lines through in each second; the first of the next says how many were `suppressed`.

    Each level is counted apart, so that no flood of requests hides a warning, nor one of warnings an alarm.
    """

    def __init__(self, lines: int = LINES_A_SECOND, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._lines = lines
        self._clock = clock
        self._lock = threading.Lock()
        self._second = 0
        self._counts: Counter[int] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        with self._lock:
            self._begin_second(record)
            self._counts[record.levelno] += 1
            return self._counts[record.levelno] <= self._lines

    def _begin_second(self, record: logging.LogRecord) -> None:
        second = int(self._clock())
        if second != self._second:
            suppressed = sum(max(count - self._lines, 0) for count in self._counts.values())
            if suppressed:
                record.suppressed = suppressed
            self._second = second
            self._counts.clear()


def formatter(stream: TextIO = sys.stdout) -> logging.Formatter:
    """The form that suits `stream`."""
    return TerminalFormatter() if stream.isatty() else JSONFormatter()


def configure(level: str, stream: TextIO = sys.stdout) -> None:
    """Send every line of this process to `stream`. For the service alone: an application has handlers of its own."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(stream))
    handler.addFilter(AtMost())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
