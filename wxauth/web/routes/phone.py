"""The route that the phone button leads to. The number goes into the answer, and nowhere else."""

from __future__ import annotations

import re
from typing import Final

from flask import Blueprint

from ...errors import BadRequest
from ..extension import wxauth
from ..guard import login_required, wx_session
from ..requests import json_object, required_str

bp = Blueprint("phone", __name__)

#: WeChat publishes no shape, so this is only what can't be one.
CODE: Final = re.compile(r"[!-~]+")
LONGEST: Final = 128


@bp.post("/phone")
@login_required
def phone_number() -> dict[str, str]:
    code = required_str(json_object(), "code", LONGEST)
    if not CODE.fullmatch(code):
        raise BadRequest("code must be what the phone button gave.")
    found = wxauth().phone_number(wx_session, code)
    return {
        "phoneNumber": found.number,
        "purePhoneNumber": found.pure_number,
        "countryCode": found.country_code,
    }
