"""The trace of the sandbox: what is kept, for how long, and what is never in it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wxauth.sandbox.trace import (
    DOTS,
    MOST_NOTES,
    MOST_REQUESTS,
    SHOWN_BYTES,
    Trace,
    begun,
    ended,
    masked,
    pretty,
    shown,
)

Happens = Callable[[str | None], None]


@pytest.fixture
def answering() -> list[str | None]:
    """Which request this thread answers: the last of them."""
    return [None]


@pytest.fixture
def trace(answering: list[str | None]) -> Trace:
    return Trace(lambda: answering[-1])


@pytest.fixture
def note(trace: Trace, answering: list[str | None]) -> Happens:
    """Something happens while this request is answered."""

    def happened(request: str | None) -> None:
        answering.append(request)
        trace.keep(begun("redis"))

    return happened


def test_a_note_is_kept_under_its_request(trace: Trace, note: Happens) -> None:
    """What happens while a request is answered is found under its id, in order."""
    for request in ("one", "two", "one"):
        note(request)
    assert [len(trace.of(request) or []) for request in ("one", "two")] == [2, 1]


def test_what_no_request_causes_is_not_kept(trace: Trace, note: Happens) -> None:
    """A thread that answers nobody leaves no note."""
    note(None)
    assert trace.of("") is None


def test_an_unknown_request_has_no_notes(trace: Trace) -> None:
    """Absent is not the same as silent."""
    assert trace.of("never") is None


def test_the_oldest_requests_are_forgotten(trace: Trace, note: Happens) -> None:
    """Nothing is kept for ever."""
    for number in range(MOST_REQUESTS + 1):
        note(str(number))
    assert trace.of("0") is None
    assert trace.of("1") is not None


def test_a_request_has_so_many_notes_and_no_more(trace: Trace, note: Happens) -> None:
    """Nor does one request fill the memory."""
    for _ in range(MOST_NOTES + 1):
        note("one")
    assert len(trace.of("one") or []) == MOST_NOTES


def test_a_note_is_timed() -> None:
    """It says when it began, in Unix milliseconds, and how long it took."""
    found = begun("wechat")
    ended(found)
    assert found["at"] > 1.7e12
    assert 0 <= found["ms"] < 60000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/sns/x?appid=wx1&secret=abc&js_code=1", f"/sns/x?appid=wx1&secret={DOTS}&js_code=1"),
        ("/cgi-bin/x?access_token=abc", f"/cgi-bin/x?access_token={DOTS}"),
        ('{"session_key": "a\\"b=="}', f'{{"session_key": "{DOTS}"}}'),
        ('{"session_key":"ab","openid":"o"}', f'{{"session_key":"{DOTS}","openid":"o"}}'),
        ('{"access_token": "ab", "expires_in": 7200}', f'{{"access_token": "{DOTS}", "expires_in": 7200}}'),
    ],
    ids=["secret", "access-token", "session-key", "compact", "access-token-in-json"],
)
def test_secrets_are_dots(text: str, expected: str) -> None:
    """What must stay on the server is not in a note, whatever form it came in; all else is."""
    assert masked(text) == expected


@pytest.mark.parametrize("body", [b'{"session_key":"s3cret"}', b'{"session_key": "s3cret"'], ids=["whole", "cut"])
def test_a_body_is_shown_without_its_secrets(body: bytes) -> None:
    """Also one that is no JSON."""
    assert "s3cret" not in pretty(body)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"OK", "OK"),
        (b"\x01\x02", {"bytes": 2, "hex": "0102"}),
        (b"x" * 300, {"bytes": 300, "hex": "78" * SHOWN_BYTES}),
        ([b"QUEUED", None, 1], ["QUEUED", None, 1]),
        (("SET", b"\xff", 3), ["SET", {"bytes": 1, "hex": "ff"}, 3]),
    ],
    ids=["text", "bytes", "long", "reply", "command"],
)
def test_bytes_are_shown_by_size_and_beginning(value: object, expected: object) -> None:
    """What lies in Redis is told as JSON can tell it."""
    assert shown(value) == expected
