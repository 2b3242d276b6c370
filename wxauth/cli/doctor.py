"""Check the configuration, Redis and WeChat of an installation. Prints nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ..settings import APP_NAMES, REDIS_URL_NAMES, Settings
from ..web.extension import redis_client, wechat_client
from ..wechat.transport import Transport
from .check_result import FAILURE, OK, SKIPPED, CheckResult
from .doctor_redis import check_redis
from .doctor_wechat import check_wechat

#: A check that uses one of these variables is skipped if the variable has an error.
REDIS_NAMES: Final = (*REDIS_URL_NAMES, "WXAUTH_REDIS_TLS")
WECHAT_NAMES: Final = (*APP_NAMES, "WXAUTH_WECHAT_URL", "WXAUTH_WECHAT_TIMEOUT")


def run_checks(environ: Mapping[str, str]) -> Iterator[CheckResult]:
    """Check the installation that `environ` configures. Yields each result as soon as it is known."""
    settings, errors = Settings.read(environ)
    yield from _configuration(errors)
    if settings.sandbox:
        yield CheckResult("sandbox", SKIPPED, "nothing else to check: the sandbox uses no external service")
        return
    if _concern(errors, REDIS_NAMES):
        yield _skipped("redis")
    else:
        yield from check_redis(settings, redis_client(settings))
    if _concern(errors, WECHAT_NAMES):
        yield _skipped("wechat")
    else:
        yield from check_wechat(settings.apps, wechat_client(settings, Transport(settings.wechat_url)))


def _configuration(errors: list[str]) -> Iterator[CheckResult]:
    if not errors:
        yield CheckResult("configuration", OK, "all variables are valid")
    for error in errors:
        yield CheckResult("configuration", FAILURE, error)


def _concern(errors: list[str], names: tuple[str, ...]) -> bool:
    return any(error.partition(":")[0] in names for error in errors)


def _skipped(check: str) -> CheckResult:
    return CheckResult(check, SKIPPED, "not checked: fix the configuration first")
