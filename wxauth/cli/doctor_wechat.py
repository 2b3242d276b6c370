"""The checks of `doctor` that concern WeChat: the format of AppID and AppSecret, and whether WeChat accepts them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from ..errors import WeChatError, WeChatMisconfigured, WeChatUnreachable
from ..models import Secret
from ..wechat.client import WeChatClient
from ..wechat.errcodes import ERRCODES, MEANINGS, Text
from .check_result import FAILURE, OK, WARNING, CheckResult

APPID: Final = re.compile(r"wx[0-9a-f]{16}")
APP_SECRET: Final = re.compile(r"[0-9a-f]{32}")

#: wx.login never returns this code, so the check uses up no user's code.
INVALID_CODE: Final = "wxauth-doctor-has-no-code"
CODE_INVALID: Final = 40029


def check_wechat(apps: Mapping[str, Secret], client: WeChatClient) -> Iterator[CheckResult]:
    """Check each app: its format first, then its login at WeChat."""
    labels = {appid: _label(appid, number) for number, appid in enumerate(apps, start=1)}
    for appid, secret in apps.items():
        yield replace(_format(appid, secret.reveal()), app=labels[appid])
    for appid in apps:
        yield replace(_exchange(client, appid), app=labels[appid])


def _label(appid: str, number: int) -> str:
    """The AppID, or a number if the text may be a secret in the wrong variable."""
    return appid if APPID.fullmatch(appid) else f"app {number}"


def _format(appid: str, secret: str) -> CheckResult:
    """Only a warning: WeChat publishes no format, but all known values have this one."""
    errors = []
    if not APPID.fullmatch(appid):
        errors.append("the AppID is not wx and 16 hex digits")
    if not APP_SECRET.fullmatch(secret):
        errors.append("the AppSecret is not 32 hex digits")
    if errors:
        return CheckResult("app", WARNING, f"{' and '.join(errors)}: compare with the WeChat console")
    return CheckResult("app", OK, "AppID and AppSecret have the expected format")


def _exchange(client: WeChatClient, appid: str) -> CheckResult:
    """Exchange an invalid code. WeChat rejects the code only if it accepts AppID and AppSecret."""
    try:
        client.exchange(appid, INVALID_CODE)
    except WeChatUnreachable as error:
        return _unreachable(error.reason)
    except WeChatError as error:
        return _rejected(error)
    return CheckResult(
        "wechat",
        FAILURE,
        "an invalid code was accepted: the server at WXAUTH_WECHAT_URL is not WeChat",
        "无效的 code 通过了校验：WXAUTH_WECHAT_URL 指向的服务不是微信",
    )


def _unreachable(reason: str) -> CheckResult:
    return CheckResult(
        "wechat",
        FAILURE,
        f"no valid answer ({reason}): allow outgoing connections to WXAUTH_WECHAT_URL, and check that it is WeChat",
        f"没有收到微信的有效响应（{reason}）：检查网络是否允许访问 WXAUTH_WECHAT_URL，以及该地址是否是微信",
        reason,
    )


def _rejected(error: WeChatError) -> CheckResult:
    errcode = error.errcode or 0
    if errcode == CODE_INVALID:
        return CheckResult(
            "wechat",
            OK,
            "WeChat accepts AppID and AppSecret (it returns 40029 for an invalid code, as expected)",
            "AppID 和 AppSecret 有效（无效的 code 返回 40029，符合预期）",
            errcode,
        )
    meaning = MEANINGS.get(errcode, _unknown(error))
    address = error.address if isinstance(error, WeChatMisconfigured) else None
    return CheckResult(
        "wechat",
        WARNING if errcode in ERRCODES else FAILURE,
        f"{errcode}: {meaning.english}" + (f" (WeChat saw {address})" if address else ""),
        f"{errcode}：{meaning.chinese}" + (f"（微信看到的 IP：{address}）" if address else ""),
        errcode,
    )


def _unknown(error: WeChatError) -> Text:
    rid = error.rid or "-"
    return Text(
        f"unknown errcode: contact WeChat support with the rid {rid}",
        f"未知的 errcode：请联系微信客服，并提供 rid {rid}",
    )
