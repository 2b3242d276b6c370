"""The trace of the sandbox: the notes of each request, their limits, and the masking of secrets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wxauth.sandbox.trace import (
    DOTS,
    MAX_HEX_BYTES,
    MAX_NOTES,
    MAX_REQUESTS,
    Trace,
    end_note,
    mask,
    pretty,
    start_note,
    to_json,
)

AddNote = Callable[[str | None], None]


@pytest.fixture
def requests() -> list[str | None]:
    """The requests that this thread has handled. The last one is the current one."""
    return [None]


@pytest.fixture
def trace(requests: list[str | None]) -> Trace:
    return Trace(lambda: requests[-1])


@pytest.fixture
def note(trace: Trace, requests: list[str | None]) -> AddNote:
    """Add a note during this request."""

    def add(request: str | None) -> None:
        requests.append(request)
        trace.add(start_note("redis"))

    return add


def test_of_returns_the_notes_of_one_request(trace: Trace, note: AddNote) -> None:
    for request in ("one", "two", "one"):
        note(request)
    assert [len(trace.of(request) or []) for request in ("one", "two")] == [2, 1]


def test_a_note_outside_of_a_request_is_dropped(trace: Trace, note: AddNote) -> None:
    note(None)
    assert trace.of("") is None


def test_of_an_unknown_request_returns_none(trace: Trace) -> None:
    assert trace.of("never") is None


def test_a_request_above_the_maximum_drops_the_oldest(trace: Trace, note: AddNote) -> None:
    for number in range(MAX_REQUESTS + 1):
        note(str(number))
    assert trace.of("0") is None
    assert trace.of("1") is not None


def test_a_note_above_the_maximum_is_dropped(trace: Trace, note: AddNote) -> None:
    for _ in range(MAX_NOTES + 1):
        note("one")
    assert len(trace.of("one") or []) == MAX_NOTES


def test_a_note_has_its_start_and_its_duration() -> None:
    """The start in Unix milliseconds."""
    found = start_note("wechat")
    end_note(found)
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
def test_mask_replaces_each_secret_by_dots(text: str, expected: str) -> None:
    """The rest of the text stays."""
    assert mask(text) == expected


@pytest.mark.parametrize("body", [b'{"session_key":"s3cret"}', b'{"session_key": "s3cret"'], ids=["whole", "cut"])
def test_pretty_masks_secrets(body: bytes) -> None:
    """Also in a text that is not valid JSON."""
    assert "s3cret" not in pretty(body)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"OK", "OK"),
        (b"\x01\x02", {"bytes": 2, "hex": "0102"}),
        (b"x" * 300, {"bytes": 300, "hex": "78" * MAX_HEX_BYTES}),
        ([b"QUEUED", None, 1], ["QUEUED", None, 1]),
        (("SET", b"\xff", 3), ["SET", {"bytes": 1, "hex": "ff"}, 3]),
    ],
    ids=["text", "bytes", "long", "reply", "command"],
)
def test_to_json_shows_binary_data_by_size_and_first_bytes(value: object, expected: object) -> None:
    assert to_json(value) == expected
