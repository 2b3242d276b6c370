"""JSON as it is meant: one object, each name once, no NaN. For callers' bodies and for WeChat's answers alike."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def parse(raw: bytes) -> dict[str, Any]:
    """The object in `raw`, which is UTF-8; ValueError for anything else."""
    try:
        found = json.loads(raw.decode(), object_pairs_hook=_once_each, parse_constant=_refuse)
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


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
