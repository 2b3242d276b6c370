"""`Settings.from_env`: the accepted values of each variable, and one report with all errors."""

from __future__ import annotations

import contextlib
import dataclasses
import re

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from tests.conftest import APP_SECRET, APPID, RING_KEY
from wxauth.errors import ConfigurationError
from wxauth.models import Secret
from wxauth.settings import REDIS_URL_NAMES, SECRET_NAMES, Client, Settings, production_names

REDIS_URL = "rediss://127.0.0.1:6379/0"
REQUIRED = {
    "WECHAT_APPID": APPID,
    "WECHAT_SECRET": APP_SECRET,
    "WXAUTH_SECRET_KEYS": RING_KEY,
    "REDIS_URL": REDIS_URL,
}
OTHER_KEY = RING_KEY[::-1]
PLANTED = "pLaNtEd-value"

# fmt: off
#: The optional variables of the contract: field, default.
DEFAULTS: dict[str, tuple[str, object]] = {
    "WXAUTH_REDIS_TLS": ("redis_tls", "verify"),
    "WXAUTH_REDIS_CONNECTIONS": ("redis_connections", 8),
    "WXAUTH_REDIS_TIMEOUT": ("redis_timeout", None),
    "WXAUTH_IDLE_TTL": ("idle_ttl", 604800),
    "WXAUTH_MAX_TTL": ("max_ttl", 2592000),
    "WXAUTH_MAX_SESSIONS": ("max_sessions", 10),
    "WXAUTH_CLIENTS": ("clients", {}),
    "WXAUTH_LOGIN_RATE": ("login_rate", "300/minute"),
    "WXAUTH_THREADS": ("threads", 256),
    "WXAUTH_TRUSTED_PROXIES": ("trusted_proxies", 0),
    "WXAUTH_WECHAT_URL": ("wechat_url", "https://api.weixin.qq.com"),
    "WXAUTH_WECHAT_TIMEOUT": ("wechat_timeout", 4.0),
    "WXAUTH_WAIT_REPLICAS": ("wait_replicas", 0),
    "WXAUTH_CACHE_SIZE": ("cache_size", 10000),
    "WXAUTH_USERDATA_MAX_AGE": ("userdata_max_age", 600),
    "WXAUTH_PUSH_TOKEN": ("push_token", None),
    "WXAUTH_PUSH_AES_KEY": ("push_aes_key", None),
    "WXAUTH_LOG_LEVEL": ("log_level", "info"),
    "WXAUTH_SANDBOX": ("sandbox", False),
    "WXAUTH_PUBLIC_URL": ("public_url", ""),
    "WXAUTH_PUBLIC_CLIENTS": ("public_clients", {}),
    "WXAUTH_SCAN_PAGE": ("scan_page", ""),
    "WXAUTH_SCAN_LINK": ("scan_link", False),
    "WXAUTH_CORS_ORIGINS": ("cors_origins", frozenset()),
    "WXAUTH_WECHAT_PROXY": ("wechat_proxy", None),
    "WXAUTH_HOST": ("host", "0.0.0.0"),  # noqa: S104 - it is only compared
}
FINGERPRINT = "0a" * 32
LONG = "s" * 16
GOOD: list[tuple[str, str, object]] = [
    ("WXAUTH_REDIS_TLS", "verify", "verify"),
    ("WXAUTH_REDIS_TLS", "INSECURE", "insecure"),
    ("WXAUTH_REDIS_TLS", f"pin:{FINGERPRINT}", f"pin:{FINGERPRINT}"),
    ("WXAUTH_REDIS_TLS", f"pin:{':'.join(['0A'] * 32)}", f"pin:{FINGERPRINT}"),
    ("WXAUTH_REDIS_CONNECTIONS", "1", 1), ("WXAUTH_REDIS_CONNECTIONS", "1000", 1000),
    ("WXAUTH_REDIS_TIMEOUT", "0.05", 0.05), ("WXAUTH_REDIS_TIMEOUT", "30", 30.0),
    ("WXAUTH_IDLE_TTL", "1", 1), ("WXAUTH_IDLE_TTL", "31536000", 31536000),
    ("WXAUTH_MAX_TTL", "1", 1), ("WXAUTH_MAX_TTL", "31536000", 31536000),
    ("WXAUTH_MAX_SESSIONS", "1", 1), ("WXAUTH_MAX_SESSIONS", "1000", 1000),
    ("WXAUTH_CLIENTS", f"shop:{'a' * 14}:b", {"shop": Client(Secret(f"{'a' * 14}:b"), None, "shop")}),
    ("WXAUTH_CLIENTS", f"shop@wx1:{'a' * 16}, bill:{'b' * 16}",
     {"shop": Client(Secret("a" * 16), frozenset({"wx1"}), "shop"), "bill": Client(Secret("b" * 16), None, "bill")}),
    ("WXAUTH_CLIENTS", f"web!scan:{'a' * 16}", {"web": Client(Secret("a" * 16), None, "web", True)}),
    ("WXAUTH_PUBLIC_CLIENTS", "spa, desk@wx1",
     {"spa": Client(None, None, "spa", True), "desk": Client(None, frozenset({"wx1"}), "desk", True)}),
    ("WXAUTH_PUBLIC_URL", "https://login.example.com/auth/", "https://login.example.com/auth"),
    ("WXAUTH_PUBLIC_URL", "http://127.0.0.1:8000", "http://127.0.0.1:8000"),
    ("WXAUTH_SCAN_PAGE", "pages/scan/index", "pages/scan/index"),
    ("WXAUTH_SCAN_LINK", "1", True),
    ("WXAUTH_CORS_ORIGINS", "https://a.example:443,http://a.example:80,https://a.example:80",
     frozenset({"https://a.example", "http://a.example", "https://a.example:80"})),
    ("WXAUTH_CORS_ORIGINS", "https://Shop.example.com, http://127.0.0.1:3000",
     frozenset({"https://shop.example.com", "http://127.0.0.1:3000"})),
    *(("WXAUTH_LOGIN_RATE", rate, rate) for rate in ("1/second", "20/minute", "30/hour", "9/day")),
    ("WXAUTH_THREADS", "1", 1), ("WXAUTH_THREADS", "1000", 1000),
    ("WXAUTH_TRUSTED_PROXIES", "10", 10),
    ("WXAUTH_WECHAT_URL", "https://relay.example:8443/wx/", "https://relay.example:8443/wx"),
    *(("WXAUTH_WECHAT_URL", url, url) for url in ("http://127.0.0.1:8001", "http://localhost", "http://[::1]:8001")),
    ("WXAUTH_WECHAT_TIMEOUT", "0.1", 0.1), ("WXAUTH_WECHAT_TIMEOUT", "30", 30.0),
    ("WXAUTH_WAIT_REPLICAS", "1", 1),
    ("WXAUTH_CACHE_SIZE", "0", 0), ("WXAUTH_CACHE_SIZE", "10000000", 10000000),
    ("WXAUTH_USERDATA_MAX_AGE", "1", 1), ("WXAUTH_USERDATA_MAX_AGE", "1000000000", 1000000000),
    *(("WXAUTH_PUSH_TOKEN", token, Secret(token)) for token in ("AAA", "a1" * 16)),
    *(("WXAUTH_LOG_LEVEL", level, level) for level in ("debug", "info", "warning", "error")),
    *(("WXAUTH_WECHAT_PROXY", url, Secret(url)) for url in (
        "http://proxy.example", "http://fixie:pass%20word@proxy.example:80/", "http://user@10.0.0.1:3128",
        "http://:password@[2001:db8::1]:9293")),
    *(("WXAUTH_HOST", address, address) for address in ("127.0.0.1", "::", "::1", "2001:db8::1")),
]
BAD: dict[str, list[str]] = {
    "WXAUTH_APPS": [f"{APPID}:{APP_SECRET}"],  # beside WECHAT_APPID
    "WXAUTH_SECRET_KEYS": ["k" * 31, f"{RING_KEY},short", f"{RING_KEY},{RING_KEY}", ",", "k" * 32 + "\udc80"],
    "REDIS_URL": ["127.0.0.1:6379", "http://127.0.0.1", "redis://", "redis+sentinel://10.0.0.1:26379",
                  "redis+sentinel://10.0.0.1:26379/service/db", "redis://host:port/0", "redis://[::1",
                  "rediss://host?ssl_cert_reqs=none", "redis://:pa[ss@host", "redis://:pa]ss@host",
                  "redis://:p[::1]@host", "redis://host:0", "redis://host:65536", "redis://host:99999",
                  "redis://[::1]:99999", "redis://[:::]", "redis://[1]", "redis://a..b", f"redis://{'a' * 64}",
                  f"redis://host/{'9' * 5000}", "redis+sentinel://10.0.0.1,10.0.0.2:0/service",
                  "redis+sentinel://[::1]:99999,host/service", f"redis+sentinel://host/service/{'9' * 5000}",
                  "redis+cluster://10.0.0.1,[::1]:65536", "redis+cluster://10.0.0.1,[::1",
                  "redis+cluster://10.0.0.1:0", "redis+cluster://host,a..b",
                  "valkey://", "valkey:host", "valkeyss://host", "valkey+sentinel://host", "valkeys://host?db=0",
                  "valkey+unix:///redis.sock", "unix://", "unix:///", "unix:/redis.sock", "unix://redis.sock",
                  "unix://a:b@c/redis.sock", "unix://a/b:c@/redis.sock", "unix:///redis.sock?db=x",
                  "unix:///redis.sock?db=0&ssl_cert_reqs=none", "unix:///redis.sock?password=secret",
                  "unix:///redis.sock?db=123456", "unix:///redis.sock#db", "unix:///redis%00.sock", "unix:///a b",
                  "unix+sentinel:///redis.sock/service"],
    "WXAUTH_REDIS_TLS": ["off", "pin:", f"pin:{'0' * 63}", f"pin:{'0' * 65}", f"pin:{'g' * 64}", "verify:sha256",
                         "insecure:a", f":{FINGERPRINT}"],
    "WXAUTH_REDIS_CONNECTIONS": ["0", "1001", "eight"],
    "WXAUTH_REDIS_TIMEOUT": ["0", "0.04", "30.1", "nan", "inf", "-1", "1s", "1e0", ".5"],
    "WXAUTH_IDLE_TTL": ["0", "31536001", "1.5", "week", "１２"],
    "WXAUTH_MAX_TTL": ["0", "31536001", "-1", "9" * 5000],
    "WXAUTH_MAX_SESSIONS": ["0", "1001", "many"],
    "WXAUTH_CLIENTS": [
        "shop", "shop:", f":{LONG}", f"shop:{LONG},shop:{LONG}", f"shop:{LONG},shop@wx1:{LONG}", f"shop@:{LONG}",
        f"shop!scan:{LONG[1:]}", f"shop!admin:{LONG}", f"shop!scan@wx1:{LONG}",
        f"@wx1:{LONG}", f"shop:{LONG[1:]}", f"shop:{LONG},bill:its-secret", f"shop@wx1:{LONG[1:]}",
    ],
    "WXAUTH_LOGIN_RATE": ["0/minute", "300", "300/week", "/minute", "-1/minute", "300/minute/minute", "3٣/minute"],
    "WXAUTH_THREADS": ["0", "1001"],
    "WXAUTH_TRUSTED_PROXIES": ["-1", "11", "10.0.0.1"],
    "WXAUTH_WECHAT_URL": [
        "http://api.weixin.qq.com", "http://10.0.0.1", "http://127.0.0.1.example", "http://127.0.0.1@relay.example",
        "http://localhost.example", "ftp://relay.example", "relay.example", "https://", "https://user:pass@a.example",
        "https://a.example?a=b", "https://a.example#a", "https://a.example:port", "https://[::1",
        "https://:pass@a.example", "https://a.example?", "https://a b.example", "https://a.example:0",
        "https://a.example:99999", "https://a.example:65536/wx", "https://[:::]", "https://a..example",
        "http://127.0.0.1:0", "http://[::1]:99999",
    ],
    "WXAUTH_WECHAT_TIMEOUT": ["0", "30.1", "nan", "inf", "4s"],
    "WXAUTH_WAIT_REPLICAS": ["2", "yes"],
    "WXAUTH_CACHE_SIZE": ["-1", "10000001"],
    "WXAUTH_USERDATA_MAX_AGE": ["0", "1000000001", "ten"],
    "WXAUTH_PUSH_TOKEN": ["AA", "a" * 33, "with-a-dash", "ÄÄÄÄ"],
    "WXAUTH_PUSH_AES_KEY": ["A" * 42, "A" * 43],  # without WXAUTH_PUSH_TOKEN
    "WXAUTH_LOG_LEVEL": ["loud", "trace"],
    "WXAUTH_SANDBOX": ["0", "true", "11"],
    "WXAUTH_PUBLIC_URL": ["login.example.com", "http://login.example.com", "https://a.example/?a", "https://u@a.example"],
    "WXAUTH_PUBLIC_CLIENTS": ["spa,spa", f"spa:{LONG}", "spa@", "s p a", "spa!scan"],
    "WXAUTH_SCAN_PAGE": ["/pages/scan", "pages/scan?a=1", "pages//scan", "pages/scan/"],
    "WXAUTH_SCAN_LINK": ["0", "yes"],
    "WXAUTH_CORS_ORIGINS": ["*", "null", "https://*.example.com", "https://a.example/", "shop.example", "https://a.example:0"],
    "WXAUTH_WECHAT_PROXY": [
        "proxy.example:3128", "https://proxy.example", "socks5://proxy.example", "http://", "http://proxy.example/path",
        "http://proxy.example:0", "http://proxy.example:99999", "http://proxy.example?a=b", "http://one,two",
        "http://user:pass@word@proxy.example", "http://user:pa/ss@proxy.example", "http://[::1", "http://a..b",
    ],
    "WXAUTH_HOST": ["localhost", "0.0.0.0:8000", "[::]", "10.0.0.256", ":::", "*"],
}
# fmt: on
EVERY_NAME = sorted({*DEFAULTS, *BAD, *REQUIRED, *REDIS_URL_NAMES})
BAD_ROWS = [
    pytest.param(name, text, id=ascii(f"{name}={text[:40]}")) for name, texts in BAD.items() for text in texts
]


def read(**changes: str) -> Settings:
    return Settings.from_env({**REQUIRED, **changes})


def error_of(environ: dict[str, str]) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(environ)
    return caught.value


def names_in(errors: tuple[str, ...]) -> list[str]:
    return [error.partition(": ")[0] for error in errors]


@pytest.mark.parametrize("name", [name for name in EVERY_NAME if name.startswith("WXAUTH_")])
def test_a_misspelt_name_is_an_error_that_suggests_the_right_one(name: str) -> None:
    """Holds for each variable of the contract."""
    (error,) = error_of({**REQUIRED, f"{name}X": "1"}).errors
    assert error.startswith(f"{name}X: ")
    assert re.search(rf"\b{name}\b", error)


@pytest.mark.parametrize(("field", "default"), DEFAULTS.values(), ids=DEFAULTS)
def test_an_absent_variable_has_the_default_of_the_contract(field: str, default: object) -> None:
    assert getattr(read(), field) == default


def test_the_required_variables_are_enough() -> None:
    """One app, one key and one Redis URL."""
    found = read()
    assert found.apps == {APPID: Secret(APP_SECRET)}
    assert found.secret_keys == (Secret(RING_KEY),)
    assert found.redis_url == Secret(REDIS_URL)


@pytest.mark.parametrize(("name", "text", "value"), GOOD, ids=[f"{name}={text}" for name, text, _ in GOOD])
def test_a_valid_value_is_in_the_settings(name: str, text: str, value: object) -> None:
    assert getattr(read(**{name: text}), DEFAULTS[name][0]) == value


@pytest.mark.parametrize(("name", "text"), BAD_ROWS)
def test_an_invalid_value_is_one_error_that_starts_with_the_name(name: str, text: str) -> None:
    assert names_in(error_of({**REQUIRED, name: text}).errors) == [name]


@pytest.mark.parametrize("name", REQUIRED)
def test_an_absent_required_variable_is_an_error(name: str) -> None:
    assert names_in(error_of({**REQUIRED, name: ""}).errors) == [name]


def test_all_errors_are_reported_together() -> None:
    """The exception lists all of them, and so does its message."""
    error = error_of({name: texts[0] for name, texts in BAD.items() if name in DEFAULTS} | {"WXAUTH_TYPO": "1"})
    assert sorted(names_in(error.errors)) == sorted([*DEFAULTS, *REQUIRED, "WXAUTH_TYPO"])
    assert [text for text in error.errors if text not in str(error)] == []


def test_an_unknown_name_with_our_prefix_is_an_error() -> None:
    """Also if no known name is similar."""
    assert names_in(error_of({**REQUIRED, "WXAUTH_3141592653589793": "1"}).errors) == ["WXAUTH_3141592653589793"]


def test_names_without_our_prefix_are_ignored() -> None:
    assert read(WECHAT_APPKEY="x", PATH="/bin") == read()


@pytest.mark.parametrize("blank", ["", " ", "\t\n"], ids=["empty", "space", "tab and newline"])
@pytest.mark.parametrize("name", DEFAULTS)
def test_an_empty_variable_counts_as_absent(name: str, blank: str) -> None:
    """A compose file sets an undefined variable to the empty string."""
    assert read(**{name: blank}) == read()


@pytest.mark.parametrize("name", ["REDIS_URL", "REDIS_TLS_URL", "REDIS_URI", "REDIS_CONNECTION_STRING"])
def test_an_alias_of_redis_url_is_used(name: str) -> None:
    """Hosting platforms use different names."""
    assert read(**{"REDIS_URL": "", name: "rediss://host:6380"}).redis_url == Secret("rediss://host:6380")


def test_redis_url_takes_precedence_over_its_aliases() -> None:
    assert read(REDIS_URI="redis://elsewhere:6379").redis_url == Secret(REDIS_URL)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@host:6379/0",
        "rediss://host:6380",
        "redis+sentinel://10.0.0.1:26379,10.0.0.2:26379/service/2",
        "redis+sentinel://10.0.0.1:26379/service",
        "rediss+sentinel://10.0.0.1:26379/service",
        "redis+cluster://10.0.0.1:6379,10.0.0.2:6379",
        "rediss+cluster://10.0.0.1:6379",
        "redis://user:p%5Bss@[::1]:1/15",
        "redis://:pa℀ss@host",
        "redis+sentinel://[::1],10.0.0.2:26379,[fd00::2]:65535/service/0",
        "rediss+cluster://redis-1.example.,[::ffff:10.0.0.1]:6379/",
        "valkey://user:secret@host:6379/0",
        "valkeys://[2001:db8::1]:6380",
        "valkey+sentinel://[::1],10.0.0.2:26379/service/2",
        "valkeys+sentinel://[fd00::1]:26379/service",
        "valkey+cluster://[fd00::1],[fd00::2]:7000",
        "valkeys+cluster://host",
        "unix:///run/redis/redis-server.sock",
        "unix:///redis.sock?db=3",
        "unix://:p%40ss@/tmp/redis.sock",
        "unix://user:pa%2Fss@/tmp/50%25%20@:,/redis.sock?db=15",
    ],
)
def test_each_kind_of_redis_url_is_valid(url: str) -> None:
    """One server, Sentinel or a cluster."""
    assert read(REDIS_URL=url).redis_url == Secret(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://host:6379",
        "valkey://host",
        "rediss+sentinel://host:26379/service",
        "valkeys+cluster://host:6379",
        "unix:///redis.sock",
    ],
)
def test_a_pin_without_a_single_tls_server_is_an_error(url: str) -> None:
    """A pin that has no effect must not be ignored."""
    changes = {"REDIS_URL": url, "WXAUTH_REDIS_TLS": f"pin:{FINGERPRINT}"}
    assert names_in(error_of({**REQUIRED, **changes}).errors) == ["WXAUTH_REDIS_TLS"]


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_a_pin_of_a_single_tls_server_is_valid(scheme: str) -> None:
    changes = {"REDIS_URL": f"{scheme}://host", "WXAUTH_REDIS_TLS": f"pin:{FINGERPRINT}"}
    assert read(**changes).redis_tls == f"pin:{FINGERPRINT}"


def test_a_timeout_in_which_no_replica_can_confirm_is_an_error() -> None:
    """The service waits 0.15 s for replicas, and an idle Redis looks every 0.1 s."""
    changes = {"WXAUTH_REDIS_TIMEOUT": "0.2", "WXAUTH_WAIT_REPLICAS": "1"}
    assert names_in(error_of({**REQUIRED, **changes}).errors) == ["WXAUTH_REDIS_TIMEOUT"]
    assert read(**changes | {"WXAUTH_REDIS_TIMEOUT": "0.25"}).redis_timeout == 0.25


def test_wxauth_apps_configures_several_apps() -> None:
    apps = "wx1:one, wx2:two:2,"
    assert read(WECHAT_APPID="", WECHAT_SECRET="", WXAUTH_APPS=apps).apps == {
        "wx1": Secret("one"),
        "wx2": Secret("two:2"),
    }


@pytest.mark.parametrize("apps", ["wx1", "wx1:", ":one", "wx1:one,wx1:two", "wx 1:one", ","])
def test_an_invalid_list_of_apps_is_an_error(apps: str) -> None:
    """An app without a secret, a repeated app, or no app at all."""
    names = names_in(error_of({**REQUIRED, "WECHAT_APPID": "", "WECHAT_SECRET": "", "WXAUTH_APPS": apps}).errors)
    assert set(names) <= {"WXAUTH_APPS", "WECHAT_APPID", "WECHAT_SECRET"}


def test_the_push_key_is_in_the_settings() -> None:
    """It needs the push token too."""
    assert read(WXAUTH_PUSH_TOKEN="AAAAA", WXAUTH_PUSH_AES_KEY="A" * 43).push_aes_key == Secret("A" * 43)


@pytest.mark.parametrize("key", ["A" * 42, "A" * 44, "A" * 42 + "=", "A" * 42 + "+"])
def test_a_push_key_of_a_wrong_format_is_an_error(key: str) -> None:
    """It has 43 letters and digits."""
    environ = {**REQUIRED, "WXAUTH_PUSH_TOKEN": "AAAAA", "WXAUTH_PUSH_AES_KEY": key}
    assert names_in(error_of(environ).errors) == ["WXAUTH_PUSH_AES_KEY"]


def test_the_key_ring_keeps_its_order() -> None:
    """The first key signs."""
    keys = read(WXAUTH_SECRET_KEYS=f" {OTHER_KEY} , {RING_KEY} ").secret_keys
    assert [key.reveal() for key in keys] == [OTHER_KEY, RING_KEY]


def test_the_sandbox_needs_no_other_variable() -> None:
    """It creates an app and a key."""
    found = Settings.from_env({"WXAUTH_SANDBOX": "1"})
    assert (found.sandbox, len(found.apps), len(found.secret_keys)) == (True, 1, 1)


def test_each_sandbox_has_random_secrets() -> None:
    """None is in the source code."""
    one, other = Settings.from_env({"WXAUTH_SANDBOX": "1"}), Settings.from_env({"WXAUTH_SANDBOX": "1"})
    assert one.secret_keys != other.secret_keys
    assert one.apps != other.apps


#: Variables of a real installation, also misspelt.
REAL = [
    *(*REDIS_URL_NAMES, "redis_url", "WXAUTH_SECRET_KEYS", "WXAUTH_APPS", "WECHAT_SECRET"),
    *("wechat_secret", "WECHAT_APP_ID", "WeChat_AppSecret", "WECHAT_", "WECHATSECRET", "wechat_appid"),
]


@pytest.mark.parametrize("name", REAL)
def test_the_sandbox_beside_a_real_installation_is_an_error(name: str) -> None:
    """The error names the variable."""
    (error,) = error_of({"WXAUTH_SANDBOX": "1", "WECHAT_APPID": APPID, name: "anything"}).errors
    assert error == f"WXAUTH_SANDBOX: remove this, or {name}."


@pytest.mark.parametrize("name", [*REAL, "WECHAT_APPID"])
def test_production_names_returns_the_set_variables_of_a_real_installation(name: str) -> None:
    """With one of them, `python app.py` starts no sandbox."""
    assert production_names({name: "x", "PATH": "/bin", "WXAUTH_THREADS": "5", "PORT": "1"}) == [name]
    assert production_names({name: " "}) == []


def test_the_sandbox_takes_an_appid() -> None:
    assert list(Settings.from_env({"WXAUTH_SANDBOX": "1", "WECHAT_APPID": APPID}).apps) == [APPID]


@pytest.mark.parametrize(
    "form", ["{0}", ":{0}", "{0}:", "{0},{0}:{0}", "redis://{0}", "http://{0}/{0}", "https://{0}@{0}:{0}", "pin:{0}"]
)
def test_no_error_contains_a_value(form: str) -> None:
    """A secret in the wrong variable does not reach the log, neither in the error nor in its cause or context."""
    error = error_of(dict.fromkeys([*EVERY_NAME, "WXAUTH_TYPO"], form.format(PLANTED)))
    assert PLANTED.lower() not in f"{error} {error!r} {error.errors}".lower()
    assert error.__cause__ is error.__context__ is None


def test_the_repr_of_the_settings_contains_no_secret() -> None:
    clients, url = f"shop:{PLANTED * 2}", f"redis://:{PLANTED}@host"
    more = {"REDIS_URL": url, "WXAUTH_CLIENTS": clients, "WXAUTH_WECHAT_PROXY": f"http://a:{PLANTED}@proxy.example"}
    found = read(WECHAT_SECRET=PLANTED, WXAUTH_SECRET_KEYS=PLANTED * 3, **more)
    assert PLANTED not in repr(found)


def test_remove_secrets_leaves_only_the_variables_without_a_secret() -> None:
    """A secret may be in a variable that we do not know."""
    environ = dict.fromkeys(SECRET_NAMES, f"{PLANTED}x") | {"COPY_OF_SECRET": f"a {APP_SECRET} b", "PORT": "8000"}
    read().remove_secrets(environ)
    assert environ == {"PORT": "8000"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param(f"wx1:{APP_SECRET}", True, id="app"),
        pytest.param(f"{OTHER_KEY},{RING_KEY}", True, id="older key"),
        pytest.param("shop:client-secret-of-a-shop", True, id="client"),
        pytest.param("rediss://:redis:pass%20word@elsewhere", True, id="Redis password"),
        pytest.param("REDIS_PASSWORD=redis:pass word", True, id="Redis password, decoded"),
        pytest.param("token=pushTokenPushToken", True, id="push token"),
        pytest.param(f"key={'K' * 43}", True, id="push key"),
        pytest.param("FIXIE_URL=http://fixie:proxy%40password@elsewhere", True, id="proxy password"),
        pytest.param("PROXY_PASSWORD=proxy@password", True, id="proxy password, decoded"),
        pytest.param("rediss://elsewhere", False, id="nothing"),
        pytest.param("", False, id="empty"),
    ],
)
def test_shown_by_finds_each_secret_in_a_text(text: str, shown: bool) -> None:
    """`remove_secrets` removes such variables, under any name."""
    changes = {"WXAUTH_SECRET_KEYS": f"{'n' * 32},{RING_KEY}", "WXAUTH_CLIENTS": "shop:client-secret-of-a-shop"}
    changes |= {"WXAUTH_PUSH_TOKEN": "pushTokenPushToken", "WXAUTH_PUSH_AES_KEY": "K" * 43}
    changes["WXAUTH_WECHAT_PROXY"] = "http://fixie:proxy%40password@proxy.example:80"
    assert read(REDIS_URL="rediss://:redis:pass%20word@host", **changes).shown_by(text) is shown


@pytest.mark.parametrize("hosts", ["127.0.0.1,[::1]:6379", "[::1],127.0.0.1"])
def test_shown_by_finds_the_password_in_front_of_several_hosts(hosts: str) -> None:
    found = read(REDIS_URL=f"redis+cluster://:{PLANTED}@{hosts}")
    assert found.shown_by(f"REDIS_PASSWORD={PLANTED}")
    assert not found.shown_by(hosts)


def test_shown_by_finds_the_password_in_front_of_a_socket() -> None:
    """`remove_secrets` removes the variable with it, under any name."""
    found = read(REDIS_URL=f"unix://user:{PLANTED}@/run/redis.sock?db=1")
    assert found.shown_by(f"REDIS_PASSWORD={PLANTED}")
    assert not found.shown_by("/run/redis.sock")
    environ = {"REDIS_URI": f"unix://user:{PLANTED}@/elsewhere.sock", "MY_REDIS": f"valkey://:{PLANTED}@host"}
    found.remove_secrets(environ)
    assert environ == {}


def test_the_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().sandbox = True  # type: ignore[misc]


@hypothesis_settings(deadline=None)
@given(st.dictionaries(st.sampled_from(EVERY_NAME), st.text(st.characters(), max_size=80)))
def test_any_environment_gives_settings_or_a_configuration_error(changes: dict[str, str]) -> None:
    """No value raises another exception."""
    with contextlib.suppress(ConfigurationError):
        assert read(**changes).secret_keys


def test_a_client_in_both_lists_is_an_error() -> None:
    found = error_of({**REQUIRED, "WXAUTH_CLIENTS": f"shop:{LONG}", "WXAUTH_PUBLIC_CLIENTS": "desk,shop"})
    assert names_in(found.errors) == ["WXAUTH_PUBLIC_CLIENTS"]
