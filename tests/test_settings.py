"""`Settings.from_env`: what the environment may say, and how everything that is wrong with it is told at once."""

from __future__ import annotations

import contextlib
import dataclasses

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from tests.conftest import APP_SECRET, APPID, RING_KEY
from wxauth.errors import ConfigurationError
from wxauth.models import Secret
from wxauth.settings import REDIS_URL_NAMES, Client, Settings, names_an_app

REDIS_URL = "rediss://127.0.0.1:6379/0"
NEEDED = {"WECHAT_APPID": APPID, "WECHAT_SECRET": APP_SECRET, "WXAUTH_SECRET_KEYS": RING_KEY, "REDIS_URL": REDIS_URL}
OTHER_KEY = RING_KEY[::-1]
PLANTED = "pLaNtEd-value"

# fmt: off
#: What the contract says of the variables that may be left out: field, default.
DEFAULTS: dict[str, tuple[str, object]] = {
    "WXAUTH_REDIS_TLS": ("redis_tls", "verify"),
    "WXAUTH_IDLE_TTL": ("idle_ttl", 604800),
    "WXAUTH_MAX_TTL": ("max_ttl", 2592000),
    "WXAUTH_MAX_SESSIONS": ("max_sessions", 10),
    "WXAUTH_CLIENTS": ("clients", {}),
    "WXAUTH_LOGIN_RATE": ("login_rate", "300/minute"),
    "WXAUTH_THREADS": ("threads", 96),
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
}
FINGERPRINT = "0a" * 32
GOOD: list[tuple[str, str, object]] = [
    ("WXAUTH_REDIS_TLS", "verify", "verify"),
    ("WXAUTH_REDIS_TLS", "INSECURE", "insecure"),
    ("WXAUTH_REDIS_TLS", f"pin:{FINGERPRINT}", f"pin:{FINGERPRINT}"),
    ("WXAUTH_REDIS_TLS", f"pin:{':'.join(['0A'] * 32)}", f"pin:{FINGERPRINT}"),
    ("WXAUTH_IDLE_TTL", "1", 1), ("WXAUTH_IDLE_TTL", "31536000", 31536000),
    ("WXAUTH_MAX_TTL", "1", 1), ("WXAUTH_MAX_TTL", "31536000", 31536000),
    ("WXAUTH_MAX_SESSIONS", "1", 1), ("WXAUTH_MAX_SESSIONS", "1000", 1000),
    ("WXAUTH_CLIENTS", "shop:a:b", {"shop": Client(Secret("a:b"), None)}),
    ("WXAUTH_CLIENTS", "shop@wx1:a, bill:b",
     {"shop": Client(Secret("a"), frozenset({"wx1"})), "bill": Client(Secret("b"), None)}),
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
]
BAD: dict[str, list[str]] = {
    "WXAUTH_APPS": [f"{APPID}:{APP_SECRET}"],  # beside WECHAT_APPID
    "WXAUTH_SECRET_KEYS": ["k" * 31, f"{RING_KEY},short", f"{RING_KEY},{RING_KEY}", ",", "k" * 32 + "\udc80"],
    "REDIS_URL": ["127.0.0.1:6379", "http://127.0.0.1", "redis://", "redis+sentinel://10.0.0.1:26379",
                  "redis+sentinel://10.0.0.1:26379/service/db", "redis://host:port/0", "redis://[::1",
                  "rediss://host?ssl_cert_reqs=none"],
    "WXAUTH_REDIS_TLS": ["off", "pin:", f"pin:{'0' * 63}", f"pin:{'0' * 65}", f"pin:{'g' * 64}", "verify:sha256",
                         "insecure:a", f":{FINGERPRINT}"],
    "WXAUTH_IDLE_TTL": ["0", "31536001", "1.5", "week", "１２"],
    "WXAUTH_MAX_TTL": ["0", "31536001", "-1", "9" * 5000],
    "WXAUTH_MAX_SESSIONS": ["0", "1001", "many"],
    "WXAUTH_CLIENTS": ["shop", "shop:", ":secret", "shop:a,shop:b", "shop:a,shop@wx1:b", "shop@:a", "@wx1:a"],
    "WXAUTH_LOGIN_RATE": ["0/minute", "300", "300/week", "/minute", "-1/minute", "300/minute/minute", "3٣/minute"],
    "WXAUTH_THREADS": ["0", "1001"],
    "WXAUTH_TRUSTED_PROXIES": ["-1", "11", "10.0.0.1"],
    "WXAUTH_WECHAT_URL": [
        "http://api.weixin.qq.com", "http://10.0.0.1", "http://127.0.0.1.example", "http://127.0.0.1@relay.example",
        "http://localhost.example", "ftp://relay.example", "relay.example", "https://", "https://user:pass@a.example",
        "https://a.example?a=b", "https://a.example#a", "https://a.example:port", "https://[::1",
        "https://:pass@a.example", "https://a.example?", "https://a b.example",
    ],
    "WXAUTH_WECHAT_TIMEOUT": ["0", "30.1", "nan", "inf", "4s"],
    "WXAUTH_WAIT_REPLICAS": ["2", "yes"],
    "WXAUTH_CACHE_SIZE": ["-1", "10000001"],
    "WXAUTH_USERDATA_MAX_AGE": ["0", "1000000001", "ten"],
    "WXAUTH_PUSH_TOKEN": ["AA", "a" * 33, "with-a-dash", "ÄÄÄÄ"],
    "WXAUTH_PUSH_AES_KEY": ["A" * 42, "A" * 43],  # without WXAUTH_PUSH_TOKEN
    "WXAUTH_LOG_LEVEL": ["loud", "trace"],
    "WXAUTH_SANDBOX": ["0", "true", "11"],
}
# fmt: on
EVERY_NAME = sorted({*DEFAULTS, *BAD, *NEEDED, *REDIS_URL_NAMES})
BAD_ROWS = [
    pytest.param(name, text, id=ascii(f"{name}={text[:40]}")) for name, texts in BAD.items() for text in texts
]


def read(**changes: str) -> Settings:
    return Settings.from_env({**NEEDED, **changes})


def refusal(environ: dict[str, str]) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(environ)
    return caught.value


def names_in(faults: tuple[str, ...]) -> list[str]:
    return [fault.partition(": ")[0] for fault in faults]


@pytest.mark.parametrize("name", [name for name in EVERY_NAME if name.startswith("WXAUTH_")])
def test_every_variable_of_the_contract_is_known(name: str) -> None:
    """A slip in the name of any variable of ours is a fault, and the fault says which one is meant."""
    (fault,) = refusal({**NEEDED, f"{name}X": "1"}).errors
    assert fault.startswith(f"{name}X: ")
    assert f" {name} " in fault


@pytest.mark.parametrize(("field", "default"), DEFAULTS.values(), ids=DEFAULTS)
def test_a_variable_left_out_has_its_default(field: str, default: object) -> None:
    """What the operator leaves out has the contract's default."""
    assert getattr(read(), field) == default


def test_the_needed_variables_are_taken() -> None:
    """One app, one key and one Redis are enough to start."""
    found = read()
    assert found.apps == {APPID: Secret(APP_SECRET)}
    assert found.secret_keys == (Secret(RING_KEY),)
    assert found.redis_url == Secret(REDIS_URL)


@pytest.mark.parametrize(("name", "text", "value"), GOOD, ids=[f"{name}={text}" for name, text, _ in GOOD])
def test_a_good_value_is_taken(name: str, text: str, value: object) -> None:
    """A value within its bounds arrives in the settings."""
    assert getattr(read(**{name: text}), DEFAULTS[name][0]) == value


@pytest.mark.parametrize(("name", "text"), BAD_ROWS)
def test_a_bad_value_is_one_fault_under_its_name(name: str, text: str) -> None:
    """A value out of bounds is exactly one fault, and begins with the variable's name."""
    assert names_in(refusal({**NEEDED, name: text}).errors) == [name]


@pytest.mark.parametrize("name", NEEDED)
def test_a_needed_variable_has_no_default(name: str) -> None:
    """Without an app, a key or a Redis the service does not start."""
    assert names_in(refusal({**NEEDED, name: ""}).errors) == [name]


def test_all_faults_are_reported_together() -> None:
    """Whoever mends the configuration sees everything that is wrong with it at once, in the message too."""
    error = refusal({name: texts[0] for name, texts in BAD.items() if name in DEFAULTS} | {"WXAUTH_TYPO": "1"})
    assert sorted(names_in(error.errors)) == sorted([*DEFAULTS, *NEEDED, "WXAUTH_TYPO"])
    assert [fault for fault in error.errors if fault not in str(error)] == []


def test_a_name_like_no_other_is_a_fault() -> None:
    """A variable of ours that does not exist is not passed over, either."""
    assert names_in(refusal({**NEEDED, "WXAUTH_3141592653589793": "1"}).errors) == ["WXAUTH_3141592653589793"]


def test_a_foreign_name_is_nobodys_business() -> None:
    """Variables without our prefix are not ours to judge."""
    assert read(WECHAT_APPKEY="x", PATH="/bin") == read()


@pytest.mark.parametrize("blank", ["", " ", "\t\n"], ids=["empty", "space", "tab and newline"])
@pytest.mark.parametrize("name", DEFAULTS)
def test_an_empty_variable_counts_as_absent(name: str, blank: str) -> None:
    """A variable that a compose file sets to nothing is as good as none."""
    assert read(**{name: blank}) == read()


@pytest.mark.parametrize("name", ["REDIS_URL", "REDIS_TLS_URL", "REDIS_URI", "REDIS_CONNECTION_STRING"])
def test_the_aliases_of_redis_url_are_taken(name: str) -> None:
    """Whatever the host calls Redis' address, it is found."""
    assert read(**{"REDIS_URL": "", name: "rediss://host:6380"}).redis_url == Secret("rediss://host:6380")


def test_redis_url_goes_before_its_aliases() -> None:
    """What the operator set by its own name beats what the host injected."""
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
    ],
)
def test_every_kind_of_redis_is_taken(url: str) -> None:
    """One server, Sentinel or a cluster: each has a form of address."""
    assert read(REDIS_URL=url).redis_url == Secret(url)


@pytest.mark.parametrize(
    "url", ["redis://host:6379", "rediss+sentinel://host:26379/service", "rediss+cluster://host:6379"]
)
def test_a_pin_where_nothing_can_be_pinned_is_a_fault(url: str) -> None:
    """A pin is never passed over: without TLS, or with several servers, it is refused."""
    changes = {"REDIS_URL": url, "WXAUTH_REDIS_TLS": f"pin:{FINGERPRINT}"}
    assert names_in(refusal({**NEEDED, **changes}).errors) == ["WXAUTH_REDIS_TLS"]


def test_several_apps_stand_in_one_variable() -> None:
    """With WXAUTH_APPS several mini programs log in at one service."""
    apps = "wx1:one, wx2:two:2,"
    assert read(WECHAT_APPID="", WECHAT_SECRET="", WXAUTH_APPS=apps).apps == {
        "wx1": Secret("one"),
        "wx2": Secret("two:2"),
    }


@pytest.mark.parametrize("apps", ["wx1", "wx1:", ":one", "wx1:one,wx1:two", "wx 1:one", ","])
def test_a_bad_list_of_apps_is_a_fault(apps: str) -> None:
    """An app without a secret, one that stands there twice, or no app at all is refused."""
    names = names_in(refusal({**NEEDED, "WECHAT_APPID": "", "WECHAT_SECRET": "", "WXAUTH_APPS": apps}).errors)
    assert set(names) <= {"WXAUTH_APPS", "WECHAT_APPID", "WECHAT_SECRET"}


def test_the_key_of_the_push_is_taken() -> None:
    """As the WeChat console shows it, beside the token."""
    assert read(WXAUTH_PUSH_TOKEN="AAAAA", WXAUTH_PUSH_AES_KEY="A" * 43).push_aes_key == Secret("A" * 43)


@pytest.mark.parametrize("key", ["A" * 42, "A" * 44, "A" * 42 + "=", "A" * 42 + "+"])
def test_a_key_of_the_push_that_can_be_none_is_a_fault(key: str) -> None:
    """It has 43 letters and digits, or it was not copied whole."""
    environ = {**NEEDED, "WXAUTH_PUSH_TOKEN": "AAAAA", "WXAUTH_PUSH_AES_KEY": key}
    assert names_in(refusal(environ).errors) == ["WXAUTH_PUSH_AES_KEY"]


def test_the_key_ring_keeps_its_order() -> None:
    """The newest key stands first, and stays first."""
    keys = read(WXAUTH_SECRET_KEYS=f" {OTHER_KEY} , {RING_KEY} ").secret_keys
    assert [key.reveal() for key in keys] == [OTHER_KEY, RING_KEY]


def test_the_sandbox_needs_nothing() -> None:
    """The sandbox starts with one variable, and makes its own app and key."""
    found = Settings.from_env({"WXAUTH_SANDBOX": "1"})
    assert (found.sandbox, len(found.apps), len(found.secret_keys)) == (True, 1, 1)


def test_each_sandbox_has_secrets_of_its_own() -> None:
    """Nothing that the sandbox signs with can be read in the source."""
    one, other = Settings.from_env({"WXAUTH_SANDBOX": "1"}), Settings.from_env({"WXAUTH_SANDBOX": "1"})
    assert one.secret_keys != other.secret_keys
    assert one.apps != other.apps


@pytest.mark.parametrize("name", ["WECHAT_SECRET", "WXAUTH_APPS"])
def test_the_sandbox_beside_a_wechat_secret_is_a_fault(name: str) -> None:
    """A sandbox can't be left on by mistake where a real mini program is configured."""
    assert names_in(refusal({"WXAUTH_SANDBOX": "1", name: f"{APPID}:{APP_SECRET}"}).errors) == ["WXAUTH_SANDBOX"]


@pytest.mark.parametrize(
    "form", ["{0}", ":{0}", "{0}:", "{0},{0}:{0}", "redis://{0}", "http://{0}/{0}", "https://{0}@{0}:{0}", "pin:{0}"]
)
def test_no_fault_echoes_a_value(form: str) -> None:
    """A secret pasted into the wrong variable does not reach the log, neither by the error nor by what caused it."""
    error = refusal(dict.fromkeys([*EVERY_NAME, "WXAUTH_TYPO"], form.format(PLANTED)))
    assert PLANTED.lower() not in f"{error} {error!r} {error.errors}".lower()
    assert error.__cause__ is error.__context__ is None


def test_the_settings_print_no_secret() -> None:
    """The printed settings may stand in a bug report."""
    clients, url = f"shop:{PLANTED}", f"redis://:{PLANTED}@host"
    found = read(WECHAT_SECRET=PLANTED, WXAUTH_SECRET_KEYS=PLANTED * 3, REDIS_URL=url, WXAUTH_CLIENTS=clients)
    assert PLANTED not in repr(found)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param(f"wx1:{APP_SECRET}", True, id="app"),
        pytest.param(f"{OTHER_KEY},{RING_KEY}", True, id="older key"),
        pytest.param("shop:client-secret", True, id="client"),
        pytest.param("rediss://:redis-password@elsewhere", True, id="password of Redis"),
        pytest.param("token=pushTokenPushToken", True, id="token of the push"),
        pytest.param(f"key={'K' * 43}", True, id="key of the push"),
        pytest.param("rediss://elsewhere", False, id="nothing"),
        pytest.param("", False, id="empty"),
    ],
)
def test_the_settings_know_their_secrets(text: str, shown: bool) -> None:
    """A server may drop from its environment whatever shows a secret, by whichever name it goes."""
    changes = {"WXAUTH_SECRET_KEYS": f"{'n' * 32},{RING_KEY}", "WXAUTH_CLIENTS": "shop:client-secret"}
    changes |= {"WXAUTH_PUSH_TOKEN": "pushTokenPushToken", "WXAUTH_PUSH_AES_KEY": "K" * 43}
    assert read(REDIS_URL="rediss://:redis-password@host", **changes).shown_by(text) is shown


def test_the_settings_are_frozen() -> None:
    """What was decided at the start holds until the end."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().sandbox = True  # type: ignore[misc]


@pytest.mark.parametrize("name", ["WECHAT_APPID", "WECHAT_SECRET", "WXAUTH_APPS"])
def test_any_word_about_an_app_is_a_begun_configuration(name: str) -> None:
    """Only where nothing is said of a mini program is a newcomer given the sandbox."""
    assert names_an_app({name: "x"})
    assert not names_an_app({name: ""})


@hypothesis_settings(deadline=None)
@given(st.dictionaries(st.sampled_from(EVERY_NAME), st.text(st.characters(), max_size=80)))
def test_any_environment_is_settings_or_faults(changes: dict[str, str]) -> None:
    """Nothing that can stand in an environment ends in another error than the list of faults."""
    with contextlib.suppress(ConfigurationError):
        assert read(**changes).secret_keys
