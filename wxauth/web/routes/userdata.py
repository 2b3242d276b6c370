"""The routes for user data that WeChat encrypted or signed with the session_key."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from ..guard import login_required, wx_session
from ..requests import MAX_BODY, json_object, required_raw_str, required_str

bp = Blueprint("userdata", __name__)


@bp.post("/userdata/decrypt")
@login_required
def decrypt() -> dict[str, Any]:
    body = json_object()
    return wx_session.decrypt(required_str(body, "encryptedData", MAX_BODY), required_str(body, "iv", MAX_BODY))


@bp.post("/userdata/verify")
@login_required
def verify() -> dict[str, Any]:
    body = json_object()
    return wx_session.verify(required_raw_str(body, "rawData"), required_raw_str(body, "signature"))
