"""The routes for what only the session_key opens: user data that the mini program was given sealed or signed."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from .body import MAX_BODY, json_object, needed_string, needed_text
from .guard import login_required, wx_session

bp = Blueprint("userdata", __name__)


@bp.post("/userdata/decrypt")
@login_required
def decrypt() -> dict[str, Any]:
    body = json_object()
    return wx_session.decrypt(needed_text(body, "encryptedData", MAX_BODY), needed_text(body, "iv", MAX_BODY))


@bp.post("/userdata/verify")
@login_required
def verify() -> dict[str, Any]:
    body = json_object()
    return wx_session.verify(needed_string(body, "rawData"), needed_string(body, "signature"))
