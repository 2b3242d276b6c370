"""What is wrong with a set-up, and how to cure it. Looks at everything outside this process; prints nothing.

Nothing that is found out holds a secret, nor a value that was pasted where a secret may have been meant.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from .errcodes import ERRCODES, MEANINGS, Text
from .errors import StoreUnavailable, WeChatError, WeChatMisconfigured, WeChatUnreachable
from .extension import redis_client, wechat_client
from .redis_causes import CURES, dangers
from .redis_client import PROBE, RedisClient
from .settings import LOOPBACK, REDIS_URL_NAMES, Settings
from .transport import Transport
from .wechat import WeChatClient

OK: Final = "ok"
SKIPPED: Final = "skipped"
WARNING: Final = "warning"
FAILURE: Final = "failure"

#: As exit codes: what can't be found out is nobody's fault.
GRAVITY: Final[Mapping[str, int]] = {OK: 0, SKIPPED: 0, WARNING: 1, FAILURE: 2}

REDIS_NAMES: Final = (*REDIS_URL_NAMES, "WXAUTH_REDIS_TLS")
WECHAT_NAMES: Final = ("WECHAT_APPID", "WECHAT_SECRET", "WXAUTH_APPS", "WXAUTH_WECHAT_URL", "WXAUTH_WECHAT_TIMEOUT")
APPID: Final = re.compile(r"wx[0-9a-f]{16}")
APP_SECRET: Final = re.compile(r"[0-9a-f]{32}")

PINGS: Final = 5
SLOW_MILLISECONDS: Final = 20
#: Seconds by which the clocks may differ.
CLOCK_SKEW: Final = 5
#: No wx.login gives this, so no user's code is spent.
NO_CODE: Final = "wxauth-doctor-has-no-code"
CODE_INVALID: Final = 40029
#: What Redis says where a host has forbidden or renamed a command.
UNTOLD: Final = ("noperm", "error")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: `status` is one of GRAVITY, `value` what was measured, `app` whom it is about."""

    check: str
    status: str
    english: str
    chinese: str | None = None
    value: str | float | None = None
    app: str | None = None


def examine(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Every finding about the set-up that `environ` describes, each as soon as it is made."""
    settings, faults = Settings.with_faults(environ)
    yield from _configuration(faults)
    if settings.sandbox:
        yield Finding("sandbox", SKIPPED, "the fake WeChat and the in-memory Redis live in the sandbox's own process")
        return
    if _concern(faults, REDIS_NAMES):
        yield Finding("redis", SKIPPED, "not asked: mend the configuration first")
    else:
        yield from _redis(settings, redis_client(settings))
    if _concern(faults, WECHAT_NAMES):
        yield Finding("wechat", SKIPPED, "not asked: mend the configuration first")
    else:
        yield from _shapes(settings)
        yield from _wechat(settings)


def worst(findings: list[Finding]) -> str:
    """The gravest status among them."""
    return max(
        (finding.status for finding in findings if GRAVITY[finding.status]), key=GRAVITY.__getitem__, default=OK
    )


def _concern(faults: list[str], names: tuple[str, ...]) -> bool:
    return any(fault.partition(":")[0] in names for fault in faults)


def _configuration(faults: list[str]) -> Iterator[Finding]:
    if not faults:
        yield Finding("configuration", OK, "every variable can be used")
    for fault in faults:
        yield Finding("configuration", FAILURE, fault)


def _shapes(settings: Settings) -> Iterator[Finding]:
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
        yield Finding("app", WARNING if hints else OK, found, app=_name(appid, place))


def _name(appid: str, place: int) -> str:
    """The AppID, unless it may be a secret in the wrong place."""
    return appid if APPID.fullmatch(appid) else f"app {place}"


def _redis(settings: Settings, redis: RedisClient) -> Iterator[Finding]:
    yield _redis_tls(settings)
    try:
        redis.examine()
    except StoreUnavailable as error:
        yield Finding("redis", FAILURE, f"no session can be kept: {error.cure or error.cause}", value=error.cause)
        return
    yield Finding("redis", OK, "a session can be kept")
    for check, ask in (("redis.version", _facts), ("redis.latency", _latency), ("clock", _clock)):
        yield from _told(check, ask, redis)


def _told(check: str, ask: Callable[[RedisClient], Iterator[Finding]], redis: RedisClient) -> Iterator[Finding]:
    """What `ask` finds; some hosts forbid the question, and what it is about is then the host's matter."""
    try:
        yield from ask(redis)
    except StoreUnavailable as error:
        status = SKIPPED if error.cause in UNTOLD else FAILURE
        yield Finding(check, status, f"Redis does not tell: {error.cure or error.cause}", value=error.cause)


def _redis_tls(settings: Settings) -> Finding:
    url = urlsplit(settings.redis_url.reveal())
    if url.scheme.startswith("rediss"):
        if settings.redis_tls == "insecure":
            cure = "the certificate is not looked at: set WXAUTH_REDIS_TLS to pin:<its sha256>, or to verify"
            return Finding("redis.tls", WARNING, cure, value="insecure")
        mode = settings.redis_tls.partition(":")[0]
        return Finding("redis.tls", OK, f"in use, {'certificate pinned' if mode == 'pin' else mode}", value=mode)
    if _on_loopback(url.netloc):
        return Finding("redis.tls", OK, "not in use, and not needed on loopback", value="off")
    cure = "not in use: anybody on the way reads the password; use rediss://, or a network of your own"
    return Finding("redis.tls", WARNING, cure, value="off")


def _on_loopback(netloc: str) -> bool:
    """Whether all of one or several `host:port` are this machine."""
    hosts = netloc.rpartition("@")[2].split(",")
    return all(re.sub(r":\d+$", "", host).strip("[]") in LOOPBACK for host in hosts)


def _facts(redis: RedisClient) -> Iterator[Finding]:
    facts = redis.facts()
    found = set(dangers(facts))
    version, policy = facts["redis_version"], facts.get("maxmemory_policy", "unknown")
    if "too_old" in found:
        yield Finding("redis.version", FAILURE, f"{version}: {CURES['too_old']}", value=version)
    else:
        yield Finding("redis.version", OK, version, value=version)
    if "evicting" in found:
        yield Finding("redis.policy", WARNING, f"{policy}: {CURES['evicting']}", value=policy)
    else:
        yield Finding("redis.policy", OK, policy, value=policy)


def _latency(redis: RedisClient) -> Iterator[Finding]:
    took = [_milliseconds(lambda: redis.read(PROBE)) for _ in range(PINGS)]
    middle = round(statistics.median(took), 2)
    found = f"{middle} ms, at most {max(took):.2f} ms, of {PINGS} round trips"
    if middle > SLOW_MILLISECONDS:
        yield Finding("redis.latency", WARNING, f"{found}: bring Redis into the same region", value=middle)
    else:
        yield Finding("redis.latency", OK, found, value=middle)


def _milliseconds(ask: Callable[[], object]) -> float:
    begun = time.perf_counter()
    ask()
    return (time.perf_counter() - begun) * 1000


def _clock(redis: RedisClient) -> Iterator[Finding]:
    before = time.time()
    there = redis.clock()
    ahead = round((before + time.time()) / 2 - there, 3) + 0.0  # no -0.0
    if abs(ahead) > CLOCK_SKEW:
        found = (
            f"{ahead} s ahead of Redis' clock: one of them is wrong, and so are the ends of sessions; set both by NTP"
        )
        yield Finding("clock", WARNING, found, value=ahead)
    else:
        yield Finding("clock", OK, f"{abs(ahead):.3f} s away from Redis' clock", value=ahead)


def _wechat(settings: Settings) -> Iterator[Finding]:
    client = wechat_client(settings, Transport(settings.wechat_url))
    for place, appid in enumerate(settings.apps, start=1):
        yield replace(_answer(client, appid), app=_name(appid, place))


def _answer(client: WeChatClient, appid: str) -> Finding:
    """Whether WeChat, asked with a code that can't be valid, finds fault with the code alone."""
    try:
        client.exchange(appid, NO_CODE)
    except WeChatUnreachable as error:
        return _unreachable(error.cause)
    except WeChatError as error:
        return _answered(error)
    return Finding(
        "wechat",
        FAILURE,
        "a code that can't be valid was taken: what answers at WXAUTH_WECHAT_URL is not WeChat",
        "一个不可能有效的 code 居然通过了：WXAUTH_WECHAT_URL 那头不是微信",
    )


def _unreachable(cause: str) -> Finding:
    return Finding(
        "wechat",
        FAILURE,
        f"no answer that is WeChat's ({cause}): is the way out to WXAUTH_WECHAT_URL open, and is it WeChat?",
        f"没有得到微信的回答（{cause}）：查一下到 WXAUTH_WECHAT_URL 的出网是否放行，那头是不是微信",
        cause,
    )


def _answered(error: WeChatError) -> Finding:
    errcode = error.errcode or 0
    if errcode == CODE_INVALID:
        return Finding(
            "wechat",
            OK,
            "it takes AppID and AppSecret (40029 to a code that can't be valid, as it should be)",
            "AppID 和 AppSecret 有效（对不可能有效的 code 回 40029，正常）",
            errcode,
        )
    meaning = MEANINGS.get(errcode, _unknown(error))
    address = error.address if isinstance(error, WeChatMisconfigured) else None
    return Finding(
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
