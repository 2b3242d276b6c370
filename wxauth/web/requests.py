"""Reading what a caller sent: a strict JSON object, or a form. What is odd is refused before anyone is asked."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qs

from flask import request

from .. import strict_json
from ..errors import BadRequest, TooLarge, UnsupportedMediaType

MAX_BODY: Final = 16 * 1024
MAX_FIELDS: Final = 10


def json_object() -> dict[str, Any]:
    """The body as a JSON object; BadRequest or UnsupportedMediaType if it is none, 413 if it is too large."""
    if not request.is_json or request.content_encoding:
        raise UnsupportedMediaType("Send plain, uncompressed JSON, with Content-Type: application/json.")
    try:
        return strict_json.parse(raw_body())
    except ValueError:
        raise BadRequest("The body must be one JSON object, with no name in it twice.") from None


def form_field(name: str) -> str:
    """The one value of `name` in a form; BadRequest if it is not there once, UnsupportedMediaType if it is none."""
    if request.mimetype != "application/x-www-form-urlencoded" or request.content_encoding:
        raise UnsupportedMediaType("Send a form, with Content-Type: application/x-www-form-urlencoded.")
    try:
        values = parse_qs(raw_body().decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS).get(name, [])
    except ValueError:
        values = []
    if len(values) != 1:
        raise BadRequest(f"{name} is needed, once.")
    return values[0]


def text(found: dict[str, Any], name: str, longest: int) -> str | None:
    """The text under `name`, of 1 to `longest` printable characters; None if it is not there."""
    value = found.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= longest or not value.isprintable():
        raise BadRequest(f"{name} must be a text of 1 to {longest} printable characters.")
    return value


def required_str(found: dict[str, Any], name: str, longest: int) -> str:
    """As `text`, and BadRequest if it is not there."""
    value = text(found, name, longest)
    if value is None:
        raise BadRequest(f"{name} is needed.")
    return value


def required_raw_str(found: dict[str, Any], name: str) -> str:
    """The text under `name`, of any characters at all; BadRequest if it is not there."""
    value = found.get(name)
    if not isinstance(value, str):
        raise BadRequest(f"{name} is needed, and must be a text.")
    return value


def raw_body() -> bytes:
    """The body as it came, of whatever type; 413 if it is too large."""
    raw = request.get_data(cache=False)
    if len(raw) > MAX_BODY:
        raise TooLarge("A body may have at most 16 KiB.")
    if request.content_length is not None and len(raw) < request.content_length:
        raise BadRequest("The body is shorter than its Content-Length.")
    return raw
