"""Log lines: one JSON object each, and no query strings."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import datetime
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest

from tests.conftest import APP_SECRET
from wxauth import logs
from wxauth.logs import MAX_REFUSALS
from wxauth.models import Secret
from wxauth.web.middleware.request_scope import RequestScope


@pytest.fixture
def in_request() -> Iterator[str]:
    before = logs.current_environ.set({logs.REQUEST_ID: "request-7"})
    yield "request-7"
    logs.current_environ.reset(before)


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger without handlers, as a new process has it. It is restored afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []
    yield root
    root.handlers = handlers
    root.setLevel(level)


def record(event: str = "login", *args: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("wxauth").makeRecord(
        "wxauth", logging.WARNING, __file__, 1, event, args, None, extra=extra
    )


def record_of_a_crash() -> logging.LogRecord:
    crash = record("crash")
    try:
        raise ZeroDivisionError("the reason")
    except ZeroDivisionError:
        crash.exc_info = sys.exc_info()
    return crash


def line_of(entry: logging.LogRecord) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(logs.JSONFormatter().format(entry))
    return line


def test_line_without_fields_has_time_level_and_event() -> None:
    line = line_of(record("login %d", 7))
    assert (line.pop("level"), line.pop("event")) == ("warning", "login 7")
    assert list(line) == ["time"]


def test_time_is_iso_8601_in_utc() -> None:
    entry = record()
    entry.created = 1700000000.25
    assert datetime.fromisoformat(line_of(entry)["time"]).timestamp() == 1700000000.25
    assert line_of(entry)["time"].endswith("+00:00")


def test_each_extra_field_is_a_member_of_the_line() -> None:
    line = line_of(record(status=200, reason=None, device="手机"))
    assert (line["status"], line["reason"], line["device"]) == (200, None, "手机")


def test_value_that_json_does_not_know_is_written_as_text() -> None:
    """A secret is still not shown."""
    line = line_of(record(path={1}, key=Secret(APP_SECRET)))
    assert (line["path"], line["key"]) == ("{1}", "Secret(***)")


def test_record_is_one_line() -> None:
    """No text in a field can forge a second line."""
    crash = record_of_a_crash()
    crash.msg = 'a\nb\r{"event": "forged"}'
    assert logs.JSONFormatter().format(crash).splitlines() == [logs.JSONFormatter().format(crash)]


def test_traceback_is_a_field_of_the_same_line() -> None:
    traceback = line_of(record_of_a_crash())["traceback"]
    assert "record_of_a_crash" in traceback
    assert traceback.endswith("ZeroDivisionError: the reason")


def test_line_in_a_request_has_the_request_id(in_request: str) -> None:
    assert line_of(record())["request_id"] == in_request


def test_line_outside_of_a_request_has_no_request_id() -> None:
    assert "request_id" not in line_of(record())


def test_request_id_in_extra_wins(in_request: str) -> None:
    assert line_of(record(request_id="other"))["request_id"] == "other"


def test_configure_writes_each_line_of_every_library_once_to_the_stream(root: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure("warning", io.StringIO())
    logs.configure("warning", stream)
    logging.getLogger("somebody").info("hidden")
    logging.getLogger("somebody").warning("shown")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["shown"]


def ids_of_two_lines(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Log from another thread too, as an async view does."""
    with ThreadPoolExecutor(1) as pool:
        lines = [pool.submit(copy_context().run, line_of, record()).result(), line_of(record())]
    return [line["request_id"].encode() for line in lines]


def crash(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    raise ZeroDivisionError


def ask(app: WSGIApplication) -> Any:
    return RequestScope(app)({}, lambda status, headers, exc_info=None, /: io.BytesIO().write)


def test_all_lines_of_a_request_have_one_id() -> None:
    """Also the lines of another thread that runs in the request's context."""
    first, second = ask(ids_of_two_lines)
    assert first == second


def test_each_request_has_its_own_id(in_request: str) -> None:
    assert len({in_request.encode(), *ask(ids_of_two_lines), *ask(ids_of_two_lines)}) == 3


@pytest.mark.parametrize("app", [ids_of_two_lines, crash])
def test_request_id_ends_with_the_request(app: WSGIApplication) -> None:
    """Also after an exception."""
    with contextlib.suppress(ZeroDivisionError):
        ask(app)
    assert "request_id" not in line_of(record())


def test_inner_request_restores_the_id_of_the_outer_request(in_request: str) -> None:
    """An application may call another one in its own thread."""
    ask(ids_of_two_lines)
    assert line_of(record())["request_id"] == in_request


class Clock:
    """A monotonic clock that a test moves."""

    now = 100.2

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def written(root: logging.Logger, clock: Clock) -> io.StringIO:
    """The log of a worker that writes at most MAX_REFUSALS refusals a second."""
    stream = io.StringIO()
    root.addHandler(logs.LogHandler(stream, clock))
    root.setLevel(logging.INFO)
    return stream


def refuse(count: int, problem: str = "token_invalid") -> None:
    for _ in range(count):
        logging.getLogger("wxauth").info("request", extra={"status": 401, "problem": problem})


def events(stream: io.StringIO) -> list[str]:
    """The events of these tests that were written. Threads of other tests may write others."""
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    lines = [line for line in lines if line["event"] in ("request", "requests_refused", "other", "store_unavailable")]
    return [f"{line['event']} {line['count']}" if "count" in line else line["event"] for line in lines]


def test_refusals_beyond_the_limit_are_counted_in_the_next_second(written: io.StringIO, clock: Clock) -> None:
    refuse(MAX_REFUSALS + 5)
    assert events(written) == ["request"] * MAX_REFUSALS
    clock.now = 101.0
    refuse(MAX_REFUSALS + 1)
    assert events(written) == ["request"] * MAX_REFUSALS + ["requests_refused 5"] + ["request"] * MAX_REFUSALS


def test_flood_of_refused_tokens_hides_no_refused_client(written: io.StringIO, clock: Clock) -> None:
    refuse(MAX_REFUSALS + 5)
    refuse(MAX_REFUSALS + 2, "client_unauthorized")
    clock.now = 101.0
    refuse(1)
    counts = ["requests_refused 5", "requests_refused 2"]
    assert events(written) == ["request"] * 2 * MAX_REFUSALS + counts + ["request"]


def test_refusals_are_counted_before_the_next_line_of_any_kind(written: io.StringIO, clock: Clock) -> None:
    """The flood has ended, and its count must not be lost."""
    refuse(MAX_REFUSALS + 5)
    clock.now = 160.0
    logging.getLogger("somebody").info("other")
    logging.getLogger("somebody").info("other")
    assert events(written) == ["request"] * MAX_REFUSALS + ["requests_refused 5", "other", "other"]


def test_nothing_is_counted_when_every_refusal_was_written(written: io.StringIO, clock: Clock) -> None:
    refuse(MAX_REFUSALS)
    clock.now = 105.0
    refuse(1)
    assert events(written) == ["request"] * (MAX_REFUSALS + 1)


def test_flood_of_refusals_hides_no_other_line(written: io.StringIO) -> None:
    refuse(100)
    for problem in ("token_missing", "code_invalid", None):
        for _ in range(10):
            logging.getLogger("wxauth").info("request", extra={"problem": problem})
    logging.getLogger("wxauth").warning("store_unavailable")
    assert events(written) == ["request"] * (MAX_REFUSALS + 30) + ["store_unavailable"]


def test_every_refusal_is_written_or_counted_when_threads_log(written: io.StringIO, clock: Clock) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(refuse, [50] * 8))
    clock.now = 101.0
    refuse(1)
    assert events(written) == ["request"] * MAX_REFUSALS + ["requests_refused 375", "request"]


def test_configure_limits_the_lines_about_refusals(root: logging.Logger) -> None:
    """A flood of forged tokens writes at most MAX_REFUSALS lines and one count in a second."""
    stream = io.StringIO()
    logs.configure("info", stream)
    start = time.monotonic()
    refuse(20 * MAX_REFUSALS)
    seconds = int(time.monotonic()) - int(start) + 1
    assert len(stream.getvalue().splitlines()) <= seconds * (MAX_REFUSALS + 1)


class BlockedStream(io.StringIO):
    """The first line waits until `go_on` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.is_written, self.go_on = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        if not self.is_written.is_set():
            self.is_written.set()
            assert self.go_on.wait(5)
        return super().write(text)


def test_thread_that_writes_a_line_delays_no_other(root: logging.Logger) -> None:
    """In a storm hundreds of threads would wait for the one that writes."""
    stream = BlockedStream()
    root.addHandler(logs.LogHandler(stream))
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(logging.getLogger("somebody").warning, "slow")
        assert stream.is_written.wait(5)
        logging.getLogger("somebody").warning("quick")
        assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["quick"]
        stream.go_on.set()
        slow.result()
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["quick", "slow"]
