"""What is wrong with a set-up, and how to hint it. Looks at everything outside this process; prints nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from ..errors import WeChatError, WeChatMisconfigured, WeChatUnreachable
from ..settings import REDIS_URL_NAMES, Settings
from ..web.extension import redis_client, wechat_client
from ..wechat.client import WeChatClient
from ..wechat.errcodes import ERRCODES, MEANINGS, Text
from ..wechat.transport import Transport
from .check_result import FAILURE, OK, SKIPPED, WARNING, CheckResult
from .doctor_redis import check_redis

REDIS_NAMES: Final = (*REDIS_URL_NAMES, "WXAUTH_REDIS_TLS")
WECHAT_NAMES: Final = ("WECHAT_APPID", "WECHAT_SECRET", "WXAUTH_APPS", "WXAUTH_WECHAT_URL", "WXAUTH_WECHAT_TIMEOUT")
APPID: Final = re.compile(r"wx[0-9a-f]{16}")
APP_SECRET: Final = re.compile(r"[0-9a-f]{32}")

#: No wx.login gives this, so no user's code is spent.
NO_CODE: Final = "wxauth-doctor-has-no-code"
CODE_INVALID: Final = 40029


def run_checks(environ: Mapping[str, str]) -> Iterator[CheckResult]:
    """Every result about the set-up that `environ` describes, each as soon as it is made."""
    settings, faults = Settings.read(environ)
    yield from _configuration(faults)
    if settings.sandbox:
        yield CheckResult(
            "sandbox", SKIPPED, "the fake WeChat and the in-memory Redis live in the sandbox's own process"
        )
        return
    if _concern(faults, REDIS_NAMES):
        yield CheckResult("redis", SKIPPED, "not asked: mend the configuration first")
    else:
        yield from check_redis(settings, redis_client(settings))
    if _concern(faults, WECHAT_NAMES):
        yield CheckResult("wechat", SKIPPED, "not asked: mend the configuration first")
    else:
        yield from _shapes(settings)
        yield from _wechat(settings)


def _concern(faults: list[str], names: tuple[str, ...]) -> bool:
    return any(fault.partition(":")[0] in names for fault in faults)


def _configuration(faults: list[str]) -> Iterator[CheckResult]:
    if not faults:
        yield CheckResult("configuration", OK, "every variable can be used")
    for fault in faults:
        yield CheckResult("configuration", FAILURE, fault)


def _shapes(settings: Settings) -> Iterator[CheckResult]:
    """Hints only: WeChat publishes no shape, but all that were ever seen have this one."""
    for place, (appid, secret) in enumerate(settings.apps.items(), start=1):
        hints = []
        if not APPID.fullmatch(appid):
            hints.append("the AppID is not wx and 16 hex digits")
        if not APP_SECRET.fullmatch(secret.reveal()):
            hints.append("the AppSecret is not 32 hex digits")
        found = (
            f"{' and '.join(hints)}: compare with the WeChat console" if hints else "AppID and AppSecret look right"
        )
        yield CheckResult("app", WARNING if hints else OK, found, app=_name(appid, place))


def _name(appid: str, place: int) -> str:
    """The AppID, unless it may be a secret in the wrong place."""
    return appid if APPID.fullmatch(appid) else f"app {place}"


def _wechat(settings: Settings) -> Iterator[CheckResult]:
    client = wechat_client(settings, Transport(settings.wechat_url))
    for place, appid in enumerate(settings.apps, start=1):
        yield replace(_answer(client, appid), app=_name(appid, place))


def _answer(client: WeChatClient, appid: str) -> CheckResult:
    """Whether WeChat, asked with a code that can't be valid, finds fault with the code alone."""
    try:
        client.exchange(appid, NO_CODE)
    except WeChatUnreachable as error:
        return _unreachable(error.reason)
    except WeChatError as error:
        return _answered(error)
    return CheckResult(
        "wechat",
        FAILURE,
        "a code that can't be valid was taken: what answers at WXAUTH_WECHAT_URL is not WeChat",
        "一个不可能有效的 code 居然通过了：WXAUTH_WECHAT_URL 那头不是微信",
    )


def _unreachable(reason: str) -> CheckResult:
    return CheckResult(
        "wechat",
        FAILURE,
        f"no answer that is WeChat's ({reason}): is the way out to WXAUTH_WECHAT_URL open, and is it WeChat?",
        f"没有得到微信的回答（{reason}）：查一下到 WXAUTH_WECHAT_URL 的出网是否放行，那头是不是微信",
        reason,
    )


def _answered(error: WeChatError) -> CheckResult:
    errcode = error.errcode or 0
    if errcode == CODE_INVALID:
        return CheckResult(
            "wechat",
            OK,
            "it takes AppID and AppSecret (40029 to a code that can't be valid, as it should be)",
            "AppID 和 AppSecret 有效（对不可能有效的 code 回 40029，正常）",
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
        f"WeChat refuses for a reason that is not known here: ask its support, with the rid {rid}",
        f"微信拒绝了，原因这里不认得：带上 rid {rid} 去问微信客服",
    )
