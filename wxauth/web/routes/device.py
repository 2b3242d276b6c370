"""The routes of RFC 8628 for the phone: who asks to be logged in, the answer, and the image to scan.

Without WXAUTH_PUBLIC_URL these routes are 404.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any, Final

import segno
from flask import Response

from ...errors import BadRequest, NotFound
from ...sessions.device_codes import normalized
from ...wechat.answers import image_type
from ..actions import require_login_session
from ..guard import login_required, wx_session
from ..requests import json_object
from ..services import services
from . import RouteBlueprint
from .sessions import EMPTY

bp = RouteBlueprint("device", __name__)

#: For a camera other than WeChat's. WeChat opens the mini program instead.
PAGE: Final = """<!doctype html>
<html lang="zh-CN"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>wxauth</title>
<p>请用微信扫一扫。 <span lang="en">Scan this code with WeChat.</span></p>
</html>
"""
#: Pixels of one module of a QR code.
SCALE: Final = 8
POLICY: Final = "default-src 'none'; frame-ancestors 'none'"


@bp.before_request
def require_public_url() -> None:
    """Hide the routes of device codes where they are not configured."""
    if not services().settings.public_url:
        raise NotFound


@bp.get("/device")
def page() -> Response:
    """The verification_uri."""
    return Response(PAGE, headers={"Content-Security-Policy": POLICY}, mimetype="text/html")


@bp.get("/device/<user_code>")
@login_required
def show(user_code: str) -> dict[str, Any]:
    with services().rate_limits.counting_guesses(wx_session.user):
        asked, seconds = services().device_codes.show(normalized(user_code), wx_session.appid)
    return {
        "client_id": asked.client_id,
        "client_name": asked.client_id,
        "created_at": asked.created_at,
        "expires_in": seconds,
        "network": asked.network,
    }


@bp.post("/device/<user_code>")
@login_required
def answer(user_code: str) -> tuple[str, int]:
    require_login_session(wx_session)
    approve = json_object().get("approve")
    if not isinstance(approve, bool):
        raise BadRequest("approve must be true or false.")
    with services().rate_limits.counting_guesses(wx_session.user):
        services().device_codes.answer(normalized(user_code), wx_session, approve=approve)
    return EMPTY


@bp.get("/device/<user_code>.png")
def image(user_code: str) -> Response:
    """The image that the website shows: a mini-program code, or with WXAUTH_SCAN_LINK a QR code of a link."""
    with services().rate_limits.counting_guesses():
        code = normalized(user_code)
        content = _link_image(code) if services().settings.scan_link else _mini_program_code(code)
    return Response(content, mimetype=image_type(content))


def _mini_program_code(code: str) -> bytes:
    return services().code_images.get(code, services().rate_limits.check_image)


def _link_image(code: str) -> bytes:
    services().device_codes.show(code)
    return _drawn(f"{services().settings.public_url}/device?user_code={code[:4]}-{code[4:]}")


# It takes 13 ms of the processor, and everyone can ask for it often.
@lru_cache(maxsize=4096)
def _drawn(link: str) -> bytes:
    image = io.BytesIO()
    segno.make(link, micro=False).save(image, kind="png", scale=SCALE)
    return image.getvalue()
