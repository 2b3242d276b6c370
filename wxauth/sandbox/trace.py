"""Record the calls to WeChat and Redis of each request, for the playground. The memory is bounded.

A note is one call: `{"with": "wechat" | "redis", "at", "ms", ...}`, `at` in Unix milliseconds, `ms` its duration.
A note never contains the AppSecret, an access token or a session_key.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

Note = dict[str, Any]

MAX_REQUESTS: Final = 50
MAX_NOTES: Final = 32
MAX_HEX_BYTES: Final = 24
MAX_TEXT: Final = 200

DOTS: Final = "••••••••"
SECRETS: Final = ("secret", "session_key", "access_token")
IN_QUERY: Final = re.compile(rf"\b({'|'.join(SECRETS)})=[^&\s]*")
IN_JSON: Final = re.compile(rf'("(?:{"|".join(SECRETS)})": *)"(?:[^"\\]|\\.)*"')


class Trace:
    """The first MAX_NOTES notes of each of the last MAX_REQUESTS requests. Thread-safe.

    `request_id` returns the id of the request that the calling thread handles; None outside of a request.
    """

    def __init__(self, request_id: Callable[[], str | None]) -> None:
        self._request_id = request_id
        self._lock = threading.Lock()
        self._notes: OrderedDict[str, list[Note]] = OrderedDict()

    def add(self, note: Note) -> None:
        """Add a note to the current request. Outside of a request, drop it."""
        request = self._request_id()
        if request is None:
            return
        with self._lock:
            notes = self._notes.setdefault(request, [])
            if len(notes) < MAX_NOTES:
                notes.append(note)
            while len(self._notes) > MAX_REQUESTS:
                self._notes.popitem(last=False)

    def of(self, request: str) -> list[Note] | None:
        """Return the notes of a request in order; None if there are none, or no longer any."""
        with self._lock:
            found = self._notes.get(request)
            return list(found) if found is not None else None


def start_note(partner: str) -> Note:
    """Return the note of a call that starts now."""
    return {"with": partner, "at": round(time.time() * 1000, 3)}


def end_note(note: Note) -> None:
    """Set the duration of the call, which ends now."""
    note["ms"] = round(time.time() * 1000 - note["at"], 3)


def mask(text: str) -> str:
    """Replace the secrets in a URL or in JSON by dots."""
    return IN_JSON.sub(rf'\1"{DOTS}"', IN_QUERY.sub(rf"\1={DOTS}", text))


def to_json(value: object) -> object:
    """Convert a Redis command or reply for JSON. Binary data becomes its size and its first bytes."""
    if isinstance(value, bytes):
        return _bytes_to_json(value)
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value if isinstance(value, str | int | None) else str(value)


def _bytes_to_json(value: bytes) -> object:
    text = value.decode("ascii", errors="replace")
    if text.isascii() and text.isprintable() and len(text) <= MAX_TEXT:
        return text
    return {"bytes": len(value), "hex": value[:MAX_HEX_BYTES].hex()}


def http_size(first_line: str, headers: Mapping[str, str], body: bytes = b"") -> int:
    """Return the size of an HTTP/1.1 message in bytes."""
    return len(first_line) + sum(len(name) + len(text) + 4 for name, text in headers.items()) + 2 + len(body)


def pretty(body: bytes) -> str:
    """Return a body for display: JSON is indented, secrets are masked. An image becomes its size."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return f"({len(body)} bytes)"
    with contextlib.suppress(ValueError):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return mask(text)
