"""Read the environment once into a frozen `Settings`, and report all configuration errors together.

An error names the variable and the fix. It never contains the value, because a secret may be in the wrong variable.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from .errors import ConfigurationError
from .models import Secret

REDIS_URL_NAMES: Final = ("REDIS_URL", "REDIS_TLS_URL", "REDIS_URI", "REDIS_CONNECTION_STRING")
APP_NAMES: Final = ("WECHAT_APPID", "WECHAT_SECRET", "WXAUTH_APPS")
OUR_SECRETS: Final = ("WXAUTH_SECRET_KEYS", "WXAUTH_CLIENTS", "WXAUTH_PUSH_TOKEN", "WXAUTH_PUSH_AES_KEY")
#: The variables that hold a secret. The WSGI entry removes them from the environment.
SECRET_NAMES: Final = ("WECHAT_SECRET", "WXAUTH_APPS", *OUR_SECRETS, *REDIS_URL_NAMES)

HOSTS: Final = r"([^@/?#\s]*@)?(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:[0-9]{1,5})?"
MORE_HOSTS: Final = r"(,[\w.-]+(:[0-9]{1,5})?)*"
#: For each kind of URL: the pattern after the scheme, and its form for people. The query is refused, because an
#: option of redis-py's there can turn off certificate verification.
REDIS_FORMS: Final = {
    "": (rf"{HOSTS}(/[0-9]*)?", "user:password@host:port/db"),
    "+sentinel": (rf"{HOSTS}{MORE_HOSTS}/[\w.-]+(/[0-9]+)?", "user:password@host:port,host:port/service/db"),
    "+cluster": (rf"{HOSTS}{MORE_HOSTS}/?", "user:password@host:port,host:port"),
}
REDIS_SCHEMES: Final = tuple(tls + kind for kind in REDIS_FORMS for tls in ("redis", "rediss"))
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")

#: An appid or a client id. WeChat publishes no format, so this only excludes what is clearly wrong.
NAME: Final = r"[A-Za-z0-9_.-]{1,64}"
#: The minimal length of a signing key, in characters.
KEY_LENGTH: Final = 32
SANDBOX_APPID: Final = "wxsandbox00000000"
KEYGEN: Final = "create one with: python -m wxauth keygen"
CONSOLE_APP: Final = "required; copy it from the WeChat console, Development > Settings."
CONSOLE_PUSH: Final = "copy it from the WeChat console, Message Push"
CLIENT_FORM: Final = "id:secret or id@appid:secret"

T = TypeVar("T")
Number = TypeVar("Number", int, float)


class _Invalid(Exception):
    """A value that can't be used. The message is the fix."""


def _require(valid: object, fix: str) -> None:
    if not valid:
        raise _Invalid(fix)


# --- Parsers: the text of a variable -> its value. Raise _Invalid.


def _number(low: Number, high: Number, kind: Callable[[float], Number]) -> Callable[[str], Number]:
    shape = r"[0-9]+" if kind is int else r"[0-9]+(\.[0-9]+)?"

    def parse(text: str) -> Number:
        # float() accepts any number of digits; int() raises ValueError above 4,300.
        _require(re.fullmatch(shape, text) and low <= float(text) <= high, f"set a number from {low} to {high}.")
        return kind(float(text))

    return parse


def _matching(shape: str, fix: str, convert: Callable[[str], T]) -> Callable[[str], T]:
    def parse(text: str) -> T:
        _require(re.fullmatch(shape, text), fix)
        return convert(text)

    return parse


RATE: Final = _matching(r"[1-9][0-9]{0,8}/(second|minute|hour|day)", "set a rate such as 300/minute.", str)
LOG_LEVEL: Final = _matching("debug|info|warning|error", "set debug, info, warning or error.", str)
PUSH_TOKEN: Final = _matching(r"[A-Za-z0-9]{3,32}", f"3 to 32 letters and digits; {CONSOLE_PUSH}.", Secret)
PUSH_AES_KEY: Final = _matching(r"[A-Za-z0-9]{43}", f"43 letters and digits; {CONSOLE_PUSH}.", Secret)


def _list(text: str) -> list[str]:
    return [item for item in map(str.strip, text.split(",")) if item]


def _pairs(text: str, shape: str, form: str) -> list[tuple[str, Secret]]:
    found = [item.partition(":") for item in _list(text)]
    _require(all(re.fullmatch(shape, name) and secret for name, _, secret in found), f"write each entry as {form}.")
    return [(name, Secret(secret)) for name, _, secret in found]


def _apps(text: str) -> Mapping[str, Secret]:
    pairs = _pairs(text, NAME, "appid:secret")
    _require(len(dict(pairs)) == len(pairs), "the same appid is set twice; remove one.")
    return MappingProxyType(dict(pairs))


def _secret_keys(text: str) -> tuple[Secret, ...]:
    keys = _list(text)
    _require(all(len(key) >= KEY_LENGTH for key in keys), f"a key has at least {KEY_LENGTH} characters; {KEYGEN}")
    _require(len(set(keys)) == len(keys), "the same key is set twice; remove one.")
    return tuple(map(Secret, keys))


def _redis_url(text: str) -> Secret:
    scheme, _, rest = text.partition("://")
    _require(scheme in REDIS_SCHEMES, f"start it with one of {', '.join(f'{it}://' for it in REDIS_SCHEMES)}")
    pattern, form = REDIS_FORMS[scheme.removeprefix("rediss").removeprefix("redis")]
    valid = re.fullmatch(pattern, rest, re.ASCII)
    _require(valid, f"write it as {scheme}://{form}; percent-encode special characters of the password.")
    return Secret(text)


def _redis_tls(text: str) -> str:
    mode, colon, fingerprint = text.lower().partition(":")
    text = mode + colon + fingerprint.replace(":", "") if mode == "pin" else text.lower()
    valid = re.fullmatch(r"verify|insecure|pin:[0-9a-f]{64}", text)
    _require(valid, "set verify, insecure or pin:<SHA-256 of the certificate, 64 hex digits>.")
    return text


def _clients(text: str) -> Mapping[str, Client]:
    pairs = [(*name.partition("@"), secret) for name, secret in _pairs(text, f"{NAME}(@{NAME})?", CLIENT_FORM)]
    clients = {id: Client(secret, frozenset({appid}) if at else None) for id, at, appid, secret in pairs}
    _require(len(clients) == len(pairs), "the same id is set twice; remove one.")
    return clients


def _wechat_url(text: str) -> str:
    url = text.rstrip("/")
    _require(_host(url) and not re.search(r"[?#@\s]", url), "set a plain URL, for example https://api.weixin.qq.com")
    secure = urlsplit(url).scheme == "https" or _host(url) in LOOPBACK
    _require(secure, "use https, because the AppSecret is sent to this URL; http is allowed to 127.0.0.1 only.")
    return url


def _host(url: str) -> str | None:
    """The host of an http or https URL; None if the URL is malformed."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError if it is no number
    except ValueError:
        return None
    return parts.hostname if parts.scheme in ("https", "http") else None


# --- The settings


def _variable(default: T, parse: Callable[[str], T]) -> T:
    """The field of an optional variable, which is named WXAUTH_ and the field's name in capitals."""
    found: T = field(default=default, metadata={"parse": parse})
    return found


@dataclass(frozen=True, slots=True)
class Client:
    """A backend of the operator: its secret, and the apps that it may query (None: all apps)."""

    secret: Secret
    appids: frozenset[str] | None


@dataclass(frozen=True)
class Settings:
    """The configuration of the service. The README's table describes each variable. Times are in seconds."""

    apps: Mapping[str, Secret]
    secret_keys: tuple[Secret, ...]
    redis_url: Secret
    redis_tls: str = _variable("verify", _redis_tls)
    idle_ttl: int = _variable(604800, _number(1, 31536000, int))
    max_ttl: int = _variable(2592000, _number(1, 31536000, int))
    max_sessions: int = _variable(10, _number(1, 1000, int))
    clients: Mapping[str, Client] = field(default_factory=dict, metadata={"parse": _clients})
    login_rate: str = _variable("300/minute", RATE)
    phone_rate: str = _variable("10/hour", RATE)
    client_rate: str = _variable("60000/minute", RATE)
    threads: int = _variable(96, _number(1, 1000, int))
    trusted_proxies: int = _variable(0, _number(0, 10, int))
    wechat_url: str = _variable("https://api.weixin.qq.com", _wechat_url)
    wechat_timeout: float = _variable(4.0, _number(0.1, 30.0, float))
    wait_replicas: int = _variable(0, _number(0, 1, int))
    cache_size: int = _variable(10000, _number(0, 10000000, int))
    userdata_max_age: int = _variable(600, _number(1, 1000000000, int))
    push_token: Secret | None = _variable(None, PUSH_TOKEN)  # noqa: RUF009 - it returns a field
    push_aes_key: Secret | None = _variable(None, PUSH_AES_KEY)  # noqa: RUF009 - it returns a field
    log_level: str = _variable("info", LOG_LEVEL)
    sandbox: bool = _variable(False, _matching("1", "set 1, or remove the variable.", bool))

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Return the settings in `environ`. An empty variable counts as absent.

        Raises ConfigurationError if a variable can't be used; its `errors` lists all such variables.
        """
        settings, errors = cls.read(environ)
        if errors:
            raise ConfigurationError(errors)
        return settings

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
        """Return the settings and all errors instead of raising.

        An error starts with the variable's name and a colon. Do not use the setting of such a variable: it holds the
        default or an empty value.
        """
        reader = _Reader(environ)
        values = {it.name: value for it in OPTIONAL if (value := reader.optional(it)) is not None}
        required = _sandbox_values(reader) if values.get("sandbox") else _required_values(reader)
        settings = cls(**required, **values)
        _check_combinations(reader, settings)
        reader.check_names()
        return settings, [f"{name}: {fix}" for name, fix in reader.errors.items()]

    def shown_by(self, text: str) -> bool:
        """Whether `text` contains one of these secrets. Secrets below 8 characters are ignored."""
        password = urlsplit(self.redis_url.reveal()).password
        clients = (client.secret for client in self.clients.values())
        push = filter(None, (self.push_token, self.push_aes_key))
        known = [secret.reveal() for secret in (*self.apps.values(), *self.secret_keys, *clients, *push)]
        return any(secret in text for secret in [*known, password or ""] if len(secret) >= 8)


def _name(setting: Field[Any]) -> str:
    return f"WXAUTH_{setting.name.upper()}"


OPTIONAL: Final = tuple(setting for setting in fields(Settings) if "parse" in setting.metadata)
#: Every variable with our prefix.
VARIABLES: Final = frozenset({"WXAUTH_APPS", "WXAUTH_SECRET_KEYS", *map(_name, OPTIONAL)})


def names_an_app(environ: Mapping[str, str]) -> bool:
    """Whether a variable of a mini program is set. If none is, `python app.py` starts the sandbox."""
    return any(environ.get(name, "").strip() for name in APP_NAMES)


class _Reader:
    """Reads single variables, and keeps the first error of each."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.errors: dict[str, str] = {}

    def add_error(self, name: str, fix: str) -> None:
        self.errors.setdefault(name, fix)

    def text(self, name: str) -> str:
        text = self._environ.get(name, "").strip()
        if not text.isprintable():
            self.add_error(name, "remove the characters that can't be printed.")
        return text

    def value(self, name: str, parse: Callable[[str], T]) -> T | None:
        """The parsed value; None if the variable is absent or can't be used."""
        text = self.text(name)
        try:
            return parse(text) if text else None
        except _Invalid as error:
            self.add_error(name, str(error))
            return None

    def optional(self, setting: Field[Any]) -> Any:
        return self.value(_name(setting), setting.metadata["parse"])

    def check_names(self) -> None:
        """Report unknown variables with our prefix, so that a misspelt name is not ignored."""
        for name in sorted(self._environ):
            if name.startswith("WXAUTH_") and name not in VARIABLES and self._environ[name].strip():
                near = get_close_matches(name, sorted(VARIABLES), 1, cutoff=0.8)
                self.add_error(name, f"unknown variable; did you mean {near[0]}?" if near else "unknown; remove it.")


def _required_values(reader: _Reader) -> dict[str, Any]:
    url_name = _redis_url_name(reader)
    keys = reader.value("WXAUTH_SECRET_KEYS", _secret_keys)
    url = reader.value(url_name, _redis_url)
    if not keys:
        reader.add_error("WXAUTH_SECRET_KEYS", f"required; {KEYGEN}")
    if not url:
        reader.add_error(url_name, "required; for example redis://127.0.0.1:6379/0")
    apps = reader.value("WXAUTH_APPS", _apps) if _list(reader.text("WXAUTH_APPS")) else _single_app(reader)
    return {"apps": apps or {}, "secret_keys": keys or (), "redis_url": url or Secret("")}


def _sandbox_values(reader: _Reader) -> dict[str, Any]:
    """An app and a key with random secrets. The sandbox's Redis needs no URL."""
    appid, key = reader.text("WECHAT_APPID") or SANDBOX_APPID, Secret(secrets.token_hex(KEY_LENGTH))
    return {
        "apps": {appid: Secret(secrets.token_hex(16))},
        "secret_keys": reader.value("WXAUTH_SECRET_KEYS", _secret_keys) or (key,),
        "redis_url": Secret(""),
    }


def _single_app(reader: _Reader) -> Mapping[str, Secret]:
    appid, secret = reader.text("WECHAT_APPID"), reader.text("WECHAT_SECRET")
    for name, text in (("WECHAT_APPID", appid), ("WECHAT_SECRET", secret)):
        if not text:
            reader.add_error(name, CONSOLE_APP)
    if not re.fullmatch(NAME, appid):
        reader.add_error("WECHAT_APPID", "this is not an AppID; one looks like wx0123456789abcdef.")
    return MappingProxyType({appid: Secret(secret)})


def _redis_url_name(reader: _Reader) -> str:
    return next((name for name in REDIS_URL_NAMES if reader.text(name)), REDIS_URL_NAMES[0])


def _check_combinations(reader: _Reader, settings: Settings) -> None:
    """Report variables that are valid alone and can't be used together."""
    if settings.sandbox:
        for name in ("WECHAT_SECRET", "WXAUTH_APPS"):
            if reader.text(name):
                reader.add_error("WXAUTH_SANDBOX", f"the sandbox needs no secret; remove {name} or WXAUTH_SANDBOX.")
    elif _list(reader.text("WXAUTH_APPS")) and (reader.text("WECHAT_APPID") or reader.text("WECHAT_SECRET")):
        reader.add_error("WXAUTH_APPS", "set either this or WECHAT_APPID and WECHAT_SECRET, not both.")
    if settings.redis_tls.startswith("pin:") and not reader.text(_redis_url_name(reader)).startswith("rediss://"):
        reader.add_error("WXAUTH_REDIS_TLS", "a pin needs a rediss:// URL, which names one server.")
    if reader.text("WXAUTH_PUSH_AES_KEY") and not reader.text("WXAUTH_PUSH_TOKEN"):
        reader.add_error("WXAUTH_PUSH_AES_KEY", "set WXAUTH_PUSH_TOKEN too; the key has no effect without it.")
