"""Log lines: JSON on a pipe, a readable form on a terminal, and never a query."""

from __future__ import annotations

import contextlib
import http.server
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
from wxauth.errors import WeChatUnreachable
from wxauth.models import Secret
from wxauth.wechat.transport import Transport


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Relay(http.server.BaseHTTPRequestHandler):
    """Answers, well or badly, redirects or hangs up, as the path says."""

    def do_GET(self) -> None:
        if self.path.startswith("/hang-up"):
            return
        if self.path.startswith("/malformed"):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nno header\r\n\r\n{}")
            return
        self.send_response(302 if self.path.startswith("/redirect") else 200)
        self.send_header("Location", self.path)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:
        """The test reads the log of the one who asks, not of the one who answers."""


@pytest.fixture
def relay() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Relay) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def in_request() -> Iterator[str]:
    before = logs.answering.set({logs.REQUEST_ID: "request-7"})
    yield "request-7"
    logs.answering.reset(before)


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger without handlers, as a new process has it; afterwards as it was."""
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


def test_a_line_says_when_how_bad_and_what() -> None:
    """A line without fields has three members and nothing else."""
    line = line_of(record("login %d", 7))
    assert (line.pop("level"), line.pop("event")) == ("warning", "login 7")
    assert list(line) == ["time"]


def test_the_time_is_utc() -> None:
    """The time can be read by a machine, and names its zone."""
    entry = record()
    entry.created = 1700000000.25
    assert datetime.fromisoformat(line_of(entry)["time"]).timestamp() == 1700000000.25
    assert line_of(entry)["time"].endswith("+00:00")


def test_fields_stand_beside_the_event() -> None:
    """What the caller gave as `extra` is in the line, each in a member of its own."""
    line = line_of(record(status=200, reason=None, device="手机"))
    assert (line["status"], line["reason"], line["device"]) == (200, None, "手机")


def test_an_odd_field_does_not_lose_the_line() -> None:
    """A value that JSON does not know is written as a text, and a secret still is not."""
    line = line_of(record(path={1}, key=Secret(APP_SECRET)))
    assert (line["path"], line["key"]) == ("{1}", "Secret(***)")


def test_a_record_is_one_line() -> None:
    """Whatever stands in a field, nobody can forge a second line with it."""
    crash = record_of_a_crash()
    crash.msg = 'a\nb\r{"event": "forged"}'
    assert logs.JSONFormatter().format(crash).splitlines() == [logs.JSONFormatter().format(crash)]


def test_a_traceback_has_a_field() -> None:
    """A crash is told in the same line, not in lines that belong to nothing."""
    traceback = line_of(record_of_a_crash())["traceback"]
    assert "record_of_a_crash" in traceback
    assert traceback.endswith("ZeroDivisionError: the reason")


@pytest.mark.parametrize("form", [logs.JSONFormatter(), logs.TerminalFormatter()], ids=["JSON", "terminal"])
def test_a_line_names_its_request(form: logging.Formatter, in_request: str) -> None:
    """Every line that is written during a request has its id."""
    assert in_request in form.format(record())


def test_a_line_outside_of_a_request_names_none() -> None:
    """A line of the start has no empty id."""
    assert "request_id" not in line_of(record())


def test_the_callers_own_request_id_goes_before(in_request: str) -> None:
    """Who names the request himself is believed."""
    assert line_of(record(request_id="other"))["request_id"] == "other"


def test_a_terminal_gets_a_form_for_eyes() -> None:
    """On a terminal a line begins with time, level and event; fields follow as name=value."""
    entry = record("login", status=200)
    entry.created = time.mktime((2025, 1, 2, 12, 0, 0, 0, 0, -1))
    assert logs.TerminalFormatter().format(entry) == "12:00:00 WARNING login  status=200"


def test_fields_stand_before_the_traceback() -> None:
    """On a terminal, too, the fields belong to the event and not to the last line of a traceback."""
    crash = record_of_a_crash()
    crash.status = 500
    first, *_ = logs.TerminalFormatter().format(crash).splitlines()
    assert first.endswith("crash  status=500")


@pytest.mark.parametrize(
    ("stream", "form"),
    [
        pytest.param(Terminal(), logs.TerminalFormatter, id="tty"),
        pytest.param(io.StringIO(), logs.JSONFormatter, id="pipe"),
    ],
)
def test_the_form_suits_the_stream(stream: io.StringIO, form: type[logging.Formatter]) -> None:
    """A terminal gets the form for eyes, all else JSON."""
    assert type(logs.formatter(stream)) is form


def test_configure_sends_everything_to_the_stream(root: logging.Logger) -> None:
    """After it, every library's lines from the level upwards go to the one stream, once."""
    stream = io.StringIO()
    logs.configure("warning", io.StringIO())
    logs.configure("warning", stream)
    logging.getLogger("somebody").info("hidden")
    logging.getLogger("somebody").warning("shown")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["shown"]


def ids_of_two_lines(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """The first comes from another thread, as that of an async view does."""
    with ThreadPoolExecutor(1) as pool:
        lines = [pool.submit(copy_context().run, line_of, record()).result(), line_of(record())]
    return [line["request_id"].encode() for line in lines]


def crash(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    raise ZeroDivisionError


def ask(app: WSGIApplication) -> Any:
    return logs.naming(app)({}, lambda status, headers, exc_info=None, /: io.BytesIO().write)


def test_all_lines_of_a_request_have_one_id() -> None:
    """It is made for the first line, and is that of all others, whichever thread they come from."""
    first, second = ask(ids_of_two_lines)
    assert first == second


def test_every_request_gets_an_id_of_its_own(in_request: str) -> None:
    """No two requests share one, of one thread neither."""
    assert len({in_request.encode(), *ask(ids_of_two_lines), *ask(ids_of_two_lines)}) == 3


@pytest.mark.parametrize("app", [ids_of_two_lines, crash])
def test_no_line_belongs_to_a_request_that_is_over(app: WSGIApplication) -> None:
    """What a thread writes after its request, however that went, has no request's id."""
    with contextlib.suppress(ZeroDivisionError):
        ask(app)
    assert "request_id" not in line_of(record())


def test_a_request_within_a_request_ends_alone(in_request: str) -> None:
    """An application that asks another one in its own thread goes on under its own id."""
    ask(ids_of_two_lines)
    assert line_of(record())["request_id"] == in_request


@pytest.mark.parametrize(
    ("event", "args", "passes"),
    [
        pytest.param("Starting new HTTP connection (%d): %s:%s", (1, "host", 80), True, id="no query"),
        pytest.param('"%s %s HTTP/1.1" %s', ("GET", "/sns?secret=x", 200), False, id="query among the arguments"),
        pytest.param("Redirecting to /sns?secret=x", (), False, id="query in the text"),
    ],
)
def test_lines_with_a_query_are_dropped(event: str, args: tuple[object, ...], passes: bool) -> None:
    """A line of urllib3's that shows a query is not written at all."""
    assert logs.HidesQueries().filter(record(event, *args)) is passes


@pytest.mark.parametrize(
    "path",
    [
        "/answer",
        "/redirect",
        "/hang-up",
        "/malformed",
    ],
)
def test_a_real_request_leaks_no_secret_at_debug(relay: str, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """With every logger of the process at DEBUG, a request to WeChat shows that it was made, and no query of it."""
    caplog.set_level(logging.DEBUG)
    with contextlib.suppress(WeChatUnreachable):
        Transport(relay).get(path, {"secret": Secret(APP_SECRET)}, time.monotonic() + 5)
    assert "Starting new HTTP connection" in caplog.text
    assert "secret=" not in caplog.text
    assert APP_SECRET not in caplog.text


def test_no_more_lines_a_second_than_allowed() -> None:
    """The rest of the second is dropped; the first line of the next says how many that were, and counts anew."""
    now = [100.2]
    at_most = logs.AtMost(3, lambda: now[0])
    assert [at_most.filter(record()) for _ in range(8)] == [True] * 3 + [False] * 5
    now[0] = 101.0
    first, second = record(), record()
    assert [at_most.filter(entry) for entry in (first, second, record(), record())] == [True] * 3 + [False]
    assert line_of(first)["suppressed"] == 5
    assert "suppressed" not in line_of(second)


def test_a_second_in_which_nothing_was_dropped_is_followed_by_silence_about_it() -> None:
    """`suppressed` stands only where something was."""
    now = [100.2]
    at_most = logs.AtMost(3, lambda: now[0])
    assert all(at_most.filter(record()) for _ in range(3))
    now[0] = 105.0
    entry = record()
    assert at_most.filter(entry)
    assert "suppressed" not in line_of(entry)


def test_what_the_service_writes_is_bounded(root: logging.Logger) -> None:
    """A flood of lines in one worker becomes at most LINES_A_SECOND of them in a second."""
    stream = io.StringIO()
    logs.configure("info", stream)
    start = time.monotonic()
    for _ in range(20 * logs.LINES_A_SECOND):
        logging.getLogger("wxauth").info("flood")
    seconds = int(time.monotonic()) - int(start) + 1
    assert len(stream.getvalue().splitlines()) <= seconds * logs.LINES_A_SECOND


def test_a_flood_of_requests_hides_no_warning() -> None:
    """Warnings have a count of their own."""
    at_most = logs.AtMost(3, lambda: 100.2)
    request = logging.makeLogRecord({"levelno": logging.INFO, "msg": "request"})
    assert [at_most.filter(request) for _ in range(5)] == [True] * 3 + [False] * 2
    assert [at_most.filter(record()) for _ in range(5)] == [True] * 3 + [False] * 2
