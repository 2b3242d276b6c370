"""JSON as it is meant: one object, each name once, no NaN. For callers' bodies and for WeChat's answers alike."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


def parse(raw: bytes) -> dict[str, Any]:
    """The object in `raw`, which is UTF-8; ValueError for anything else."""
    try:
        found = json.loads(raw.decode(), object_pairs_hook=_once_each, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("this is no JSON object")
    return found


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("this number is too large to be written again")
    return number


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
