"""What WeChat's answers hold: bytes in, our own nouns out; WeChatUnreachable for what can't be WeChat's."""

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
#: 512 characters are what WeChat says to leave room for.
ACCESS_TOKEN: Final = re.compile(r"[!-~]{1,1024}")
LONGEST_LIFE: Final = 86400
#: Numbers of other countries come with their code in front, however WeChat sets it off.
DIGITS: Final = re.compile(r"[0-9+() -]{1,32}")


class AccessToken(NamedTuple):
    """What opens WeChat's other interfaces for an app, and the whole seconds that it has left."""

    secret: Secret
    expires_in: int


def parse(body: bytes) -> Answer:
    """The JSON object in `body`, whatever Content-Type it came under."""
    with contextlib.suppress(ValueError):
        return strict_json.parse(body)
    raise WeChatUnreachable("not_json")


def parse_errcode(answer: Answer) -> int:
    """WeChat's number for what went wrong, in whichever form it comes; 0 if nothing did."""
    errcode = answer.get("errcode", 0)
    if isinstance(errcode, str) and re.fullmatch(r"-?[0-9]{1,9}", errcode):
        return int(errcode)
    if type(errcode) is not int:
        raise WeChatUnreachable("bad_errcode")
    return errcode


def parse_identity(appid: str, answer: Answer) -> Identity:
    """Of code2Session."""
    openid, unionid = answer.get("openid"), answer.get("unionid")
    if not isinstance(openid, str) or not OPENID.fullmatch(openid):
        raise WeChatUnreachable("bad_openid")
    session_key = parse_session_key(answer)
    if unionid in (None, ""):
        unionid = None
    elif not isinstance(unionid, str) or not OPENID.fullmatch(unionid):
        raise WeChatUnreachable("bad_unionid")
    return Identity(User(appid, openid), session_key, unionid)


def parse_session_key(answer: Answer) -> Secret:
    """Of code2Session and resetusersessionkey."""
    session_key = answer.get("session_key")
    if not isinstance(session_key, str) or not SESSION_KEY.fullmatch(session_key):
        raise WeChatUnreachable("bad_session_key")
    return Secret(session_key)


def parse_access_token(answer: Answer) -> AccessToken:
    """Of stable_token."""
    token, expires_in = answer.get("access_token"), answer.get("expires_in")
    if not isinstance(token, str) or not ACCESS_TOKEN.fullmatch(token):
        raise WeChatUnreachable("bad_access_token")
    if type(expires_in) is not int or not 0 < expires_in <= LONGEST_LIFE:
        raise WeChatUnreachable("bad_expires_in")
    return AccessToken(Secret(token), expires_in)


def parse_phone_number(appid: str, answer: Answer) -> PhoneNumber:
    """Of getuserphonenumber."""
    info = answer.get("phone_info")
    watermark = info.get("watermark") if isinstance(info, dict) else None
    if not isinstance(info, dict) or not isinstance(watermark, dict):
        raise WeChatUnreachable("bad_phone_info")
    if watermark.get("appid") != appid:
        raise WeChatUnreachable("bad_watermark")
    country = info.get("countryCode")
    return PhoneNumber(
        _digits(info.get("phoneNumber")),
        _digits(info.get("purePhoneNumber")),
        # In some of WeChat's own examples it is a number.
        _digits(str(country) if type(country) is int else country),
    )


def _digits(value: object) -> str:
    if not isinstance(value, str) or not DIGITS.fullmatch(value):
        raise WeChatUnreachable("bad_phone_number")
    return value
