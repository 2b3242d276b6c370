"""The route for the phone button. The phone number is in the answer only: not in the log, Redis or the metrics."""

from __future__ import annotations

import re
from typing import Final

from flask import Blueprint

from ...errors import BadRequest
from ..extension import wxauth
from ..guard import login_required, wx_session
from ..requests import json_object, required_str

bp = Blueprint("phone", __name__)

#: WeChat documents no format: refuse only what cannot be a code.
CODE: Final = re.compile(r"[!-~]+")
MAX_CODE: Final = 128


@bp.post("/phone")
@login_required
def phone_number() -> dict[str, str]:
    code = required_str(json_object(), "code", MAX_CODE)
    if not CODE.fullmatch(code):
        raise BadRequest("code must be what the phone button gave.")
    found = wxauth().phone_number(wx_session, code)
    return {
        "phoneNumber": found.number,
        "purePhoneNumber": found.pure_number,
        "countryCode": found.country_code,
    }
