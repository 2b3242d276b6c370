"""Log lines: one JSON object each on a pipe, a readable form on a terminal. Knows no Flask and no setting's name.

A line is an event (a stable word, the log message) and fields (`extra=`). What may never be in one: a secret, a
token, a code, an openid, a unionid or a session_key.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final, TextIO

#: Which request this thread is answering; the extension sets it.
request_id: ContextVar[str | None] = ContextVar("wxauth_request_id", default=None)

#: A flood of requests is not to become a flood of lines; this is for one worker.
LINES_A_SECOND: Final = 50

STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def begin_request() -> None:
    """Name the request that this thread answers from now on."""
    request_id.set(secrets.token_hex(8))


def fields(record: logging.LogRecord) -> dict[str, object]:
    """What the caller gave as `extra`, and the request it belongs to."""
    found = {name: value for name, value in vars(record).items() if name not in STANDARD}
    if "request_id" not in found and (current := request_id.get()):
        found["request_id"] = current
    return found


class JSONFormatter(logging.Formatter):
    """`{"time", "level", "event", …}`, and `traceback` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "event": record.getMessage(), **fields(record)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TerminalFormatter(logging.Formatter):
    """`12:00:00 INFO  event  field=value`, for eyes."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        details = " ".join(f"{name}={value}" for name, value in fields(record).items())
        return f"{super().formatMessage(record)}  {details}".rstrip()


class HidesQueries(logging.Filter):
    """Drops urllib3's lines about requests: at DEBUG they hold the whole query, AppSecret and all."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "?" not in record.getMessage()


class AtMost(logging.Filter):
    """Lets so many lines through in each second; the first of the next says how many were `suppressed`."""

    def __init__(self, lines: int = LINES_A_SECOND, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._lines = lines
        self._clock = clock
        self._second = 0
        self._count = 0

    def filter(self, record: logging.LogRecord) -> bool:
        second = int(self._clock())
        if second != self._second:
            if self._count > self._lines:
                record.suppressed = self._count - self._lines
            self._second, self._count = second, 0
        self._count += 1
        return self._count <= self._lines


def formatter(stream: TextIO = sys.stdout) -> logging.Formatter:
    """The form that suits `stream`."""
    return TerminalFormatter() if stream.isatty() else JSONFormatter()


def configure(level: str, stream: TextIO = sys.stdout) -> None:
    """Send every line of this process to `stream`. For the service alone: an application has handlers of its own."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(stream))
    handler.addFilter(AtMost())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
