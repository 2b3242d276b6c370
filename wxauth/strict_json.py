"""JSON with stricter rules: one object, unique names, finite numbers. For callers' bodies and WeChat's texts."""

from __future__ import annotations

import json
import math
from typing import Any


def parse(raw: bytes, *, controls: bool = False) -> dict[str, Any]:
    """Return the object in `raw` (UTF-8). Raises ValueError for anything else.

    With `controls`, strings may hold control characters: WeChat sends nicknames that do.
    """
    try:
        found = (LENIENT if controls else STRICT).decode(raw.decode())
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("this is not a JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has the same name twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large, or not a number")
    return number


def _decoder(strict: bool) -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite, strict=strict)


STRICT, LENIENT = _decoder(True), _decoder(False)
