"""What was said to WeChat and to Redis while a request was answered. Pure and bounded; it knows neither of them.

A note is what the playground shows: `{"with": "wechat" | "redis", "at", "ms", ...}`, `at` in Unix milliseconds.
What may never be in one, not even here: the AppSecret and a session_key.
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

MOST_REQUESTS: Final = 50
MOST_NOTES: Final = 32
SHOWN_BYTES: Final = 24
LONGEST_TEXT: Final = 200

DOTS: Final = "••••••••"
SECRETS: Final = ("secret", "session_key", "access_token")
IN_QUERY: Final = re.compile(rf"\b({'|'.join(SECRETS)})=[^&\s]*")
IN_JSON: Final = re.compile(rf'("(?:{"|".join(SECRETS)})": *)"(?:[^"\\]|\\.)*"')


class Trace:
    """The notes of the last MOST_REQUESTS requests that had any, MOST_NOTES of each; safe between threads.

    `request_id` says which request the calling thread answers, if any.
    """

    def __init__(self, request_id: Callable[[], str | None]) -> None:
        self._request_id = request_id
        self._lock = threading.Lock()
        self._notes: OrderedDict[str, list[Note]] = OrderedDict()

    def keep(self, note: Note) -> None:
        """Under the request that this thread answers; what happens outside of all requests is not kept."""
        request = self._request_id()
        if request is None:
            return
        with self._lock:
            notes = self._notes.setdefault(request, [])
            if len(notes) < MOST_NOTES:
                notes.append(note)
            while len(self._notes) > MOST_REQUESTS:
                self._notes.popitem(last=False)

    def of(self, request: str) -> list[Note] | None:
        """What was noted under a request's id, in order; None where nothing was, or no longer is."""
        with self._lock:
            found = self._notes.get(request)
            return list(found) if found is not None else None


def begun(partner: str) -> Note:
    """A note of what begins now."""
    return {"with": partner, "at": round(time.time() * 1000, 3)}


def ended(note: Note) -> None:
    """What the note is about has taken until now."""
    note["ms"] = round(time.time() * 1000 - note["at"], 3)


def masked(text: str) -> str:
    """`text`, an address or JSON, with dots in place of what must stay on the server."""
    return IN_JSON.sub(rf'\1"{DOTS}"', IN_QUERY.sub(rf"\1={DOTS}", text))


def shown(value: object) -> object:
    """What goes over a connection to Redis, as JSON can have it: bytes that are no text by size and beginning."""
    if isinstance(value, bytes):
        return _shown_bytes(value)
    if isinstance(value, list | tuple):
        return [shown(item) for item in value]
    return value if isinstance(value, str | int | None) else str(value)


def _shown_bytes(value: bytes) -> object:
    text = value.decode("ascii", errors="replace")
    if text.isascii() and text.isprintable() and len(text) <= LONGEST_TEXT:
        return text
    return {"bytes": len(value), "hex": value[:SHOWN_BYTES].hex()}


def http_size(first_line: str, headers: Mapping[str, str], body: bytes = b"") -> int:
    """The bytes of an HTTP/1.1 message."""
    return len(first_line) + sum(len(name) + len(text) + 4 for name, text in headers.items()) + 2 + len(body)


def pretty(body: bytes) -> str:
    """A body as it is shown: JSON with a line for each name, anything else as it is."""
    text = body.decode(errors="replace")
    with contextlib.suppress(ValueError):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return masked(text)
