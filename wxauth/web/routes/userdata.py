"""The routes for what the session_key opens, and for the phone button.

The phone number is in the answer only: not in the log, Redis or the metrics.
"""

from __future__ import annotations

from typing import Any

from ..actions import auth
from ..guard import login_required, wx_session
from ..requests import CODE, PRINTABLE, json_object, required_str
from . import RouteBlueprint

bp = RouteBlueprint("userdata", __name__)


@bp.post("/userdata/decrypt")
@login_required
def decrypt() -> dict[str, Any]:
    body = json_object()
    return wx_session.decrypt(required_str(body, "encryptedData", PRINTABLE), required_str(body, "iv", PRINTABLE))


@bp.post("/userdata/verify")
@login_required
def verify() -> dict[str, Any]:
    body = json_object()
    return wx_session.verify(required_str(body, "rawData"), required_str(body, "signature"))


@bp.post("/phone")
@login_required
def phone_number() -> dict[str, str]:
    found = auth.phone_number(wx_session, required_str(json_object(), "code", CODE))
    return {"phoneNumber": found.number, "purePhoneNumber": found.pure_number, "countryCode": found.country_code}
