"""Parse WeChat's answers. Every function raises WeChatUnreachable for an answer that cannot come from WeChat."""

from __future__ import annotations

import contextlib
import re
from typing import Any, Final, NamedTuple

from .. import strict_json
from ..errors import WeChatUnreachable
from ..models import Identity, PhoneNumber, Secret, User

Answer = dict[str, Any]

OPENID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
SESSION_KEY: Final = re.compile(r"[!-~]{1,128}")
ERRCODE: Final = re.compile(r"-?[0-9]{1,9}")
#: WeChat asks for room for 512 characters.
ACCESS_TOKEN: Final = re.compile(r"[!-~]{1,1024}")
#: The first bytes of the images that WeChat sends, and their types.
IMAGES: Final = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}
#: Seconds.
MAX_TOKEN_LIFE: Final = 86400
#: Foreign numbers begin with a country code. Its separator is not documented.
PHONE_NUMBER: Final = re.compile(r"[0-9+() -]{1,32}")


class AccessToken(NamedTuple):
    """An app's access token, and the seconds until it expires."""

    secret: Secret
    expires_in: int


def parse(body: bytes) -> Answer:
    """Return the JSON object in `body`. WeChat's Content-Type says nothing: it is often text/plain."""
    with contextlib.suppress(ValueError):
        return strict_json.parse(body, controls=True)
    raise WeChatUnreachable("not_json")


def parse_errcode(answer: Answer) -> int:
    """Return the errcode, which may be a number or a text; 0 if there is none."""
    texts = {"errcode": str(answer.get("errcode", 0))}
    return int(_text(texts, "errcode", ERRCODE))


def parse_identity(appid: str, answer: Answer) -> Identity:
    """Parse the answer of code2Session."""
    openid, session_key = _text(answer, "openid", OPENID), parse_session_key(answer)
    unionid = _text(answer, "unionid", OPENID) if answer.get("unionid") not in (None, "") else None
    return Identity(User(appid, openid), session_key, unionid)


def parse_session_key(answer: Answer) -> Secret:
    """Parse the session_key of code2Session or resetusersessionkey."""
    return Secret(_text(answer, "session_key", SESSION_KEY))


def parse_access_token(answer: Answer) -> AccessToken:
    """Parse the answer of stable_token."""
    token, expires_in = _text(answer, "access_token", ACCESS_TOKEN), answer.get("expires_in")
    if type(expires_in) is not int or not 0 < expires_in <= MAX_TOKEN_LIFE:
        raise WeChatUnreachable("bad_expires_in")
    return AccessToken(Secret(token), expires_in)


def parse_phone_number(appid: str, answer: Answer) -> PhoneNumber:
    """Parse the answer of getuserphonenumber."""
    info = _fields(answer, "phone_info")
    if _fields(info, "watermark").get("appid") != appid:
        raise WeChatUnreachable("bad_watermark")
    # In some of WeChat's examples the countryCode is a number.
    texts = info | {"countryCode": str(info.get("countryCode"))}
    names = ("phoneNumber", "purePhoneNumber", "countryCode")
    return PhoneNumber(*(_text(texts, name, PHONE_NUMBER) for name in names))


def _fields(answer: Answer, name: str) -> Answer:
    found = answer.get(name)
    return found if isinstance(found, dict) else {}


def _text(answer: Answer, name: str, pattern: re.Pattern[str]) -> str:
    text = answer.get(name)
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise WeChatUnreachable(f"bad_{name}")
    return text


def parse_image(body: bytes) -> bytes:
    """Return a PNG or JPEG."""
    if image_type(body) is None:
        raise WeChatUnreachable("format")
    return body


def image_type(body: bytes) -> str | None:
    """Return the MIME type of an image, by its first bytes. None for other bytes."""
    return next((mimetype for start, mimetype in IMAGES.items() if body.startswith(start)), None)
