"""Check the configuration, Redis and WeChat of an installation. Prints nothing.

No result contains a secret, or a value that may be a secret in the wrong variable.
"""

from __future__ import annotations

import re
import statistics
import time
import timeit
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from ...errors import CodeInvalid, StoreUnavailable, WeChatError, WeChatMisconfigured, WeChatUnreachable
from ...settings import APP_NAMES, REDIS_URL_NAMES, Settings
from ...storage.client import FORBIDDEN, PROBE, RedisClient
from ...storage.connections import is_encrypted, login_and_hosts
from ...storage.reasons import CHINESE_HINTS, DANGERS, HINTS, dangers
from ...wechat.client import WeChatClient
from ...wechat.errcodes import ERRCODES, MEANINGS, Text
from ..middleware.addresses import FORWARDED, FORWARDED_HINT
from ..services import redis_client, transport, wechat_client

Status = Literal["ok", "skipped", "warning", "failure"]

#: A check that uses one of these variables is skipped if the variable has an error.
REDIS_NAMES: Final = (*REDIS_URL_NAMES, "WXAUTH_REDIS_TLS", "WXAUTH_REDIS_CONNECTIONS", "WXAUTH_REDIS_TIMEOUT")
WECHAT_NAMES: Final = (*APP_NAMES, "WXAUTH_WECHAT_URL", "WXAUTH_WECHAT_TIMEOUT", "WXAUTH_WECHAT_PROXY")

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
#: Round trips of the latency check.
PINGS: Final = 5
#: A higher median is a warning.
SLOW_MILLISECONDS: Final = 20
#: A larger difference between the two clocks is a warning, in seconds.
MAX_CLOCK_SKEW: Final = 5

#: WeChat publishes no format, but all known AppIDs have this one.
APPID: Final = re.compile(r"wx[0-9a-f]{16}")
#: wx.login never returns this code, so the check uses up no user's code.
INVALID_CODE: Final = "wxauth-doctor-has-no-code"
ACCEPTED: Final = Text("WeChat accepts AppID and AppSecret", "AppID 和 AppSecret 有效")
NO_ANSWER: Final = Text("no valid answer: check WXAUTH_WECHAT_URL", "没有收到有效响应：检查 WXAUTH_WECHAT_URL")
#: For some reasons of WeChatUnreachable, by their first word.
NO_ANSWER_HINTS: Final[Mapping[str, Text]] = {
    "proxy": Text(
        "the proxy refuses or does not answer: check address, user and password in WXAUTH_WECHAT_PROXY",
        "代理没有响应，或拒绝了请求：检查 WXAUTH_WECHAT_PROXY 中的地址、用户名和密码",
    ),
    "tls": Text(
        "no trusted certificate: check WXAUTH_WECHAT_URL, and put a private authority into the file of SSL_CERT_FILE",
        "证书不受信任：检查 WXAUTH_WECHAT_URL；私有 CA 的证书要放进 SSL_CERT_FILE 指定的文件",
    ),
}
PROXY_NOT_TRUSTED: Final = Text(
    f"X-Forwarded-For arrives: {FORWARDED_HINT}",
    "收到了 X-Forwarded-For：前面有代理时，把 WXAUTH_TRUSTED_PROXIES 设为代理的层数，否则所有请求方共用一份限额；"
    "没有代理时不要修改，这个请求头是请求方自己发送的",
)
UNKNOWN: Final = Text("unknown errcode: contact WeChat support", "未知的 errcode：请联系微信客服")
AOF: Final = Text("Redis keeps an append-only file", "Redis 已开启 AOF")
NO_AOF: Final = Text(
    "no append-only file: a crash of Redis undoes the last logouts and bans; set appendonly yes, appendfsync always",
    "没有开启 AOF：Redis 崩溃会丢失最近的登出和封禁；请设置 appendonly yes 和 appendfsync always",
)
UNKNOWN_AOF: Final = Text("INFO does not say whether there is an append-only file", "INFO 没有说明是否开启了 AOF")
NO_INFO: Final = Text("Redis forbids INFO", "Redis 禁止 INFO 命令")
#: What to do if the connection to Redis is not protected, by mode.
TLS_HINTS: Final[Mapping[str, Text]] = {
    "off": Text(
        "the password can be read on the network; use rediss:// or a private network",
        "密码会以明文在网络上传输：使用 rediss://，或使用内网",
    ),
    "insecure": Text(
        "the certificate is not verified; set WXAUTH_REDIS_TLS to pin:<its SHA-256> or to verify",
        "没有校验证书：把 WXAUTH_REDIS_TLS 设为 pin:<证书的 SHA-256> 或 verify",
    ),
}
FAR: Final = Text("move Redis into the same region", "把 Redis 部署到同一地域")
SKEWED: Final = Text(
    "synchronize both clocks by NTP, because sessions expire by them", "用 NTP 同步两边的时间，会话的过期由时间决定"
)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One result: `value` is the measured value, `app` the AppID if it is about one."""

    check: str
    status: Status
    english: str
    chinese: str | None = None
    value: str | float | None = None
    app: str | None = None


IN_SANDBOX: Final = CheckResult(
    "sandbox",
    "skipped",
    "nothing else to check: the sandbox uses no external service",
    "没有其他检查项：沙箱不使用外部服务",
)


def run_checks(environ: Mapping[str, str]) -> Iterator[CheckResult]:
    """Check the installation that `environ` configures. Yields each result as soon as it is known."""
    settings, errors = Settings.read(environ)
    for name, fix in errors.items():
        yield CheckResult("configuration", "failure", f"{name}: {fix}")
    if not errors:
        yield CheckResult("configuration", "ok", "all variables are valid")
    if settings.sandbox:
        yield IN_SANDBOX
        return
    for check, names, run in (("redis", REDIS_NAMES, check_redis), ("wechat", WECHAT_NAMES, check_wechat)):
        if errors.keys().isdisjoint(names):
            yield from run(settings)
        else:
            yield CheckResult(check, "skipped", "not checked: fix the configuration first")


def check_redis(settings: Settings, client: RedisClient | None = None) -> Iterator[CheckResult]:
    """Check the encryption first, which needs no connection. The first error ends the rest.

    `client` is None for a new connection.
    """
    yield _tls(settings)
    redis = client or redis_client(settings)
    try:
        yield _health(redis.health())
        yield from _info(redis)
        yield _latency(redis)
        yield _clock(redis)
        if not settings.trusted_proxies and redis.read(FORWARDED) is not None:
            yield CheckResult("proxies", "warning", *PROXY_NOT_TRUSTED, settings.trusted_proxies)
    except StoreUnavailable as error:
        yield _judge("redis", error.reason, _hint(error.reason), "can't store sessions", "failure")


def _hint(reason: str) -> Text:
    """Return the hint for a reason of `storage.reasons`."""
    return Text(HINTS.get(reason, reason), CHINESE_HINTS.get(reason, reason))


def _judge(check: str, value: str | float, hint: Text | None, text: str, status: Status = "warning") -> CheckResult:
    """Return a result that is ok without `hint`."""
    if hint is None:
        return CheckResult(check, "ok", text, value=value)
    return CheckResult(check, status, f"{text}: {hint.english}", f"{value}：{hint.chinese}", value)


def _tls(settings: Settings) -> CheckResult:
    url = settings.redis_url.reveal()
    scheme, _, rest = url.partition("://")
    mode = settings.redis_tls.partition(":")[0] if is_encrypted(url) else "off"
    _, hosts = login_and_hosts(rest.partition("/")[0])
    is_local = scheme == "unix" or (mode == "off" and all(host in LOOPBACK for host, _ in hosts))
    return _judge("redis.tls", mode, None if is_local else TLS_HINTS.get(mode), mode)


def _health(health: str) -> CheckResult:
    if health in ("ok", *DANGERS):
        return CheckResult("redis", "ok", "can store sessions")
    return _judge("redis", health, _hint(health), "a part of the cluster can't store sessions", "failure")


def _info(redis: RedisClient) -> Iterator[CheckResult]:
    """Check the version, the eviction policy and the persistence. Some hosting providers forbid INFO."""
    try:
        nodes = [redis.info(probe) for probe in redis.probes()]
    except StoreUnavailable as error:
        if error.reason not in FORBIDDEN:
            raise
        yield CheckResult("redis.version", "skipped", *NO_INFO, error.reason)
        return
    hints = {danger: _hint(danger) for facts in nodes for danger in dangers(facts)}
    versions = ", ".join(sorted({facts.get("redis_version", "unknown") for facts in nodes}))
    policies = ", ".join(sorted({facts.get("maxmemory_policy", "unknown") for facts in nodes}))
    yield _judge("redis.version", versions, hints.get("too_old"), versions, "failure")
    yield _judge("redis.policy", policies, hints.get("evicting"), policies)
    yield _persistence({str(facts.get("aof_enabled", "unknown")) for facts in nodes})


def _persistence(aof: set[str]) -> CheckResult:
    """Judge the `aof_enabled` of all nodes. Servers that only resemble Redis may not report it."""
    if "0" in aof:
        return CheckResult("redis.persistence", "warning", *NO_AOF, "off")
    if aof == {"1"}:
        return CheckResult("redis.persistence", "ok", *AOF, "on")
    return CheckResult("redis.persistence", "skipped", *UNKNOWN_AOF)


def _latency(redis: RedisClient) -> CheckResult:
    times = timeit.repeat(lambda: redis.read(PROBE), repeat=PINGS, number=1)
    median = round(statistics.median(times) * 1000, 2)
    hint = FAR if median > SLOW_MILLISECONDS else None
    return _judge("redis.latency", median, hint, f"median {median} ms of {PINGS} round trips")


def _clock(redis: RedisClient) -> CheckResult:
    before = time.time()
    redis_time = redis.clock()
    ahead = round((before + time.time()) / 2 - redis_time, 3) + 0.0  # + 0.0 turns -0.0 into 0.0
    hint = SKEWED if abs(ahead) > MAX_CLOCK_SKEW else None
    return _judge("clock", ahead, hint, f"{abs(ahead):.3f} s difference to Redis")


def check_wechat(settings: Settings, client: WeChatClient | None = None) -> Iterator[CheckResult]:
    """Check the login of each app at WeChat."""
    if settings.wechat_proxy:
        host = urlsplit(settings.wechat_proxy.reveal()).netloc.rpartition("@")[2]
        text = Text(f"requests to WeChat go through {host}", f"发往微信的请求经过代理 {host}")
        yield CheckResult("wechat.proxy", "ok", *text, host)
    client = client or wechat_client(settings, transport(settings, pool_size=1))
    for number, appid in enumerate(settings.apps, 1):
        # An AppID of another format may be a secret in the wrong variable.
        yield _exchange(client, appid, appid if APPID.fullmatch(appid) else f"app {number}")


def _exchange(client: WeChatClient, appid: str, label: str) -> CheckResult:
    """Exchange an invalid code. WeChat rejects the code only if it accepts AppID and AppSecret."""
    try:
        client.exchange(appid, INVALID_CODE)
    except CodeInvalid as error:
        return CheckResult("wechat", "ok", *ACCEPTED, error.errcode, label)
    except WeChatError as error:
        status: Status = "warning" if error.errcode in ERRCODES else "failure"
        value = error.reason if isinstance(error, WeChatUnreachable) else error.errcode
        return CheckResult("wechat", status, *explain(error), value, label)
    return CheckResult("wechat", "failure", *NO_ANSWER, app=label)


def explain(error: WeChatError) -> Text:
    """Return what is wrong and what to do, in both languages."""
    if isinstance(error, WeChatUnreachable):
        hint = NO_ANSWER_HINTS.get(error.reason.partition("_")[0], NO_ANSWER)
        return Text(f"{hint.english} ({error.reason})", f"{hint.chinese} ({error.reason})")
    english, chinese = MEANINGS.get(error.errcode or 0, UNKNOWN)
    address = f" (IP {error.address})" if isinstance(error, WeChatMisconfigured) and error.address else ""
    rid = f" (rid {error.rid})" if error.rid else ""
    return Text(f"{error.errcode}: {english}{address}{rid}", f"{error.errcode}：{chinese}{address}{rid}")
