"""`Settings.from_env`: what the environment may say, and how everything that is wrong with it is told at once."""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from tests.conftest import APP_SECRET, APPID, RING_KEY
from wxauth.errors import ConfigurationError
from wxauth.identity import Secret
from wxauth.settings import NAMES, REDIS_URL_NAMES, SECRET_NAMES, Client, Settings, names_an_app

REDIS_URL = "redis://127.0.0.1:6379/0"
NEEDED = {"WECHAT_APPID": APPID, "WECHAT_SECRET": APP_SECRET, "WXAUTH_SECRET_KEYS": RING_KEY, "REDIS_URL": REDIS_URL}
EVERY_NAME = sorted({*NAMES, *REDIS_URL_NAMES, "WECHAT_APPID", "WECHAT_SECRET"})
OTHER_KEY = RING_KEY[::-1]
PLANTED = "pLaNtEd-value"

#: The contract's variables that have a default: variable, field, default, other good values, bad values.
OPTIONAL: list[tuple[str, str, Any, dict[str, Any], list[str]]] = [
    (
        "WXAUTH_REDIS_TLS",
        "redis_tls",
        "verify",
        {
            "verify": "verify",
            "INSECURE": "insecure",
            f"pin:{'0a' * 32}": f"pin:{'0a' * 32}",
            f"pin:{':'.join(['0A'] * 32)}": f"pin:{'0a' * 32}",
        },
        ["off", "pin:", f"pin:{'0' * 63}", f"pin:{'0' * 65}", f"pin:{'g' * 64}"],
    ),
    ("WXAUTH_IDLE_TTL", "idle_ttl", 604800, {"1": 1, "31536000": 31536000}, ["0", "31536001", "1.5", "week"]),
    ("WXAUTH_MAX_TTL", "max_ttl", 2592000, {"1": 1, "31536000": 31536000}, ["0", "31536001", "-1", "9" * 5000]),
    ("WXAUTH_MAX_SESSIONS", "max_sessions", 10, {"1": 1, "1000": 1000}, ["0", "1001", "many"]),
    (
        "WXAUTH_CLIENTS",
        "clients",
        {},
        {
            "shop:s:1": {"shop": Client(Secret("s:1"), None)},
            "shop@wx1:s, bill:t": {
                "shop": Client(Secret("s"), frozenset({"wx1"})),
                "bill": Client(Secret("t"), None),
            },
        },
        ["shop", "shop:", ":secret", "shop:s,shop:t", "shop:s,shop@wx1:t"],
    ),
    (
        "WXAUTH_LOGIN_RATE",
        "login_rate",
        "300/minute",
        {text: text for text in ("1/second", "20/minute", "30/hour", "9/day")},
        ["0/minute", "300", "300/week", "/minute", "-1/minute", "300/minute/minute"],
    ),
    ("WXAUTH_TRUSTED_PROXIES", "trusted_proxies", 0, {"0": 0, "10": 10}, ["-1", "11", "10.0.0.1"]),
    (
        "WXAUTH_WECHAT_URL",
        "wechat_url",
        "https://api.weixin.qq.com",
        {
            "https://relay.example/wx/": "https://relay.example/wx",
            "https://relay.example:8443": "https://relay.example:8443",
            "http://127.0.0.1:8001": "http://127.0.0.1:8001",
            "http://localhost:8001": "http://localhost:8001",
            "http://[::1]:8001": "http://[::1]:8001",
        },
        [
            "http://api.weixin.qq.com",
            "http://10.0.0.1",
            "http://127.0.0.1.example",
            "http://127.0.0.1@relay.example",
            "http://localhost.example",
            "ftp://relay.example",
            "relay.example",
            "https://",
            "https://user:pass@relay.example",
            "https://relay.example?a=b",
            "https://relay.example#a",
            "https://relay.example:port",
            "https://[::1",
        ],
    ),
    ("WXAUTH_WECHAT_TIMEOUT", "wechat_timeout", 4.0, {"0.1": 0.1, "30": 30.0}, ["0", "30.1", "nan", "inf", "4s"]),
    ("WXAUTH_WAIT_REPLICAS", "wait_replicas", 0, {"0": 0, "1": 1}, ["2", "yes"]),
    ("WXAUTH_CACHE_SIZE", "cache_size", 10000, {"0": 0, "10000000": 10000000}, ["-1", "10000001"]),
    (
        "WXAUTH_LOG_LEVEL",
        "log_level",
        "info",
        {level: level for level in ("debug", "info", "warning", "error")},
        ["loud", "trace"],
    ),
    ("WXAUTH_SANDBOX", "sandbox", False, {}, ["0", "true", "11"]),
]
DEFAULTS = [pytest.param(field, default, id=name) for name, field, default, _, _ in OPTIONAL]
GOOD = [
    pytest.param(name, text, field, value, id=f"{name}={text}")
    for name, field, _, good, _ in OPTIONAL
    for text, value in good.items()
]
BAD = [pytest.param(name, text, id=f"{name}={text[:40]}") for name, _, _, _, bad in OPTIONAL for text in bad]
BAD_NEEDED = [
    ("WXAUTH_APPS", f"{APPID}:{APP_SECRET}"),  # beside WECHAT_APPID
    ("WXAUTH_SECRET_KEYS", "k" * 31),
    ("WXAUTH_SECRET_KEYS", f"{RING_KEY},short"),
    ("WXAUTH_SECRET_KEYS", f"{RING_KEY},{RING_KEY}"),
    ("REDIS_URL", "127.0.0.1:6379"),
    ("REDIS_URL", "http://127.0.0.1"),
    ("REDIS_URL", "redis://"),
    ("REDIS_URL", "redis+sentinel://10.0.0.1:26379"),
    ("REDIS_URL", "redis+sentinel://10.0.0.1:26379/service/db"),
]


def read(**changes: str) -> Settings:
    return Settings.from_env({**NEEDED, **changes})


def refusal(environ: dict[str, str]) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(environ)
    return caught.value


def names_in(faults: tuple[str, ...]) -> list[str]:
    return [fault.partition(": ")[0] for fault in faults]


def test_every_variable_of_the_contract_is_known() -> None:
    """The code knows the variables of the contract, and no other."""
    assert {*(row[0] for row in OPTIONAL), "WXAUTH_APPS", "WXAUTH_SECRET_KEYS"} == NAMES


@pytest.mark.parametrize(("field", "default"), DEFAULTS)
def test_a_variable_left_out_has_its_default(field: str, default: object) -> None:
    """What the operator leaves out has the contract's default."""
    assert getattr(read(), field) == default


def test_the_needed_variables_are_taken() -> None:
    """One app, one key and one Redis are enough to start."""
    found = read()
    assert found.apps == {APPID: Secret(APP_SECRET)}
    assert found.secret_keys == (Secret(RING_KEY),)
    assert found.redis_url == Secret(REDIS_URL)


@pytest.mark.parametrize(("name", "text", "field", "value"), GOOD)
def test_a_good_value_is_taken(name: str, text: str, field: str, value: object) -> None:
    """A value within its bounds arrives in the settings."""
    assert getattr(read(**{name: text}), field) == value


@pytest.mark.parametrize(("name", "text"), [*BAD, *BAD_NEEDED])
def test_a_bad_value_is_one_fault_under_its_name(name: str, text: str) -> None:
    """A value out of bounds is exactly one fault, and begins with the variable's name."""
    assert names_in(refusal({**NEEDED, name: text}).faults) == [name]


@pytest.mark.parametrize("name", NEEDED)
def test_a_needed_variable_has_no_default(name: str) -> None:
    """Without an app, a key or a Redis the service does not start."""
    assert names_in(refusal({**NEEDED, name: ""}).faults) == [name]


def test_all_faults_are_reported_together() -> None:
    """Whoever mends the configuration sees everything that is wrong with it at once, in the message too."""
    broken = {name: bad[0] for name, _, _, _, bad in OPTIONAL} | {"WXAUTH_TYPO": "1"}
    error = refusal(broken)
    assert sorted(names_in(error.faults)) == sorted([*broken, *NEEDED])
    assert all(fault in str(error) for fault in error.faults)


def test_an_unknown_name_is_a_fault_that_names_the_near_one() -> None:
    """A misspelt variable is not passed over: the fault says which one was probably meant."""
    (fault,) = refusal({**NEEDED, "WXAUTH_IDLE_TLL": "60"}).faults
    assert fault.startswith("WXAUTH_IDLE_TLL: ")
    assert "WXAUTH_IDLE_TTL" in fault


def test_a_foreign_name_is_nobodys_business() -> None:
    """Variables without our prefix are not ours to judge."""
    assert read(WECHAT_APPKEY="x", PATH="/bin") == read()


@pytest.mark.parametrize("blank", ["", " ", "\t\n"], ids=["empty", "space", "tab and newline"])
@pytest.mark.parametrize("name", [row[0] for row in OPTIONAL])
def test_an_empty_variable_counts_as_absent(name: str, blank: str) -> None:
    """A variable that a compose file sets to nothing is as good as none."""
    assert read(**{name: blank}) == read()


@pytest.mark.parametrize("name", REDIS_URL_NAMES)
def test_the_aliases_of_redis_url_are_taken(name: str) -> None:
    """Whatever the host calls Redis' address, it is found."""
    assert read(REDIS_URL="", **{name: "rediss://host:6380"} if name != "REDIS_URL" else {}) if False else True
