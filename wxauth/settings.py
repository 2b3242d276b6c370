"""The environment, read once into one frozen `Settings`. Every fault is found before any is reported.

No value is ever echoed: a secret may have been pasted into the wrong variable.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final, TypeVar
from urllib.parse import urlsplit

from .errors import ConfigurationError
from .models import Secret

REDIS_URL_NAMES: Final = ("REDIS_URL", "REDIS_TLS_URL", "REDIS_URI", "REDIS_CONNECTION_STRING")
REDIS_SCHEMES: Final = tuple(tls + kind for kind in ("", "+sentinel", "+cluster") for tls in ("redis", "rediss"))
HOSTS: Final = r"([^@/?#\s]*@)?(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:[0-9]{1,5})?"
MORE_HOSTS: Final = r"(,[\w.-]+(:[0-9]{1,5})?)*"
#: After the scheme: the shape, and how it is told. There are no options: one of redis-py's turns TLS' checks off.
REDIS_FORMS: Final = {
    "": (rf"{HOSTS}(/[0-9]*)?", "user:password@host:port/db"),
    "+sentinel": (rf"{HOSTS}{MORE_HOSTS}/[\w.-]+(/[0-9]+)?", "user:password@host:port,host:port/service/db"),
    "+cluster": (rf"{HOSTS}{MORE_HOSTS}/?", "user:password@host:port,host:port"),
}
#: What an appid or a client's id may look like; not what it must, for that only WeChat knows.
NAME: Final = r"[A-Za-z0-9_.-]{1,64}"
OUR_SECRETS: Final = ("WXAUTH_SECRET_KEYS", "WXAUTH_CLIENTS", "WXAUTH_PUSH_TOKEN", "WXAUTH_PUSH_AES_KEY")
SECRET_NAMES: Final = ("WECHAT_SECRET", "WXAUTH_APPS", *OUR_SECRETS, *REDIS_URL_NAMES)
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
KEY_LENGTH: Final = 32
SANDBOX_APPID: Final = "wxsandbox00000000"

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Client:
    """A backend of the operator's: its secret, and the apps it may ask about (None: all)."""

    secret: Secret
    appids: frozenset[str] | None


@dataclass(frozen=True)
class Settings:
    """What the operator decided; the table in the README says what each field means. Times are seconds."""

    apps: Mapping[str, Secret]
    secret_keys: tuple[Secret, ...]
    redis_url: Secret
    redis_tls: str = "verify"
    idle_ttl: int = 604800
    max_ttl: int = 2592000
    max_sessions: int = 10
    clients: Mapping[str, Client] = field(default_factory=dict)
    login_rate: str = "300/minute"
    phone_rate: str = "10/hour"
    client_rate: str = "60000/minute"
    threads: int = 96
    trusted_proxies: int = 0
    wechat_url: str = "https://api.weixin.qq.com"
    wechat_timeout: float = 4.0
    wait_replicas: int = 0
    cache_size: int = 10000
    userdata_max_age: int = 600
    push_token: Secret | None = None
    push_aes_key: Secret | None = None
    log_level: str = "info"
    sandbox: bool = False

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """The settings in `environ` (an empty variable counts as absent), or ConfigurationError with every fault."""
        settings, faults = cls.read(environ)
        if faults:
            raise ConfigurationError(faults)
        return settings

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
        """As far as they can be read, and every fault: for whoever tells of faults instead of refusing to start.

        A fault begins with its variable's name; what was read from such a variable must not be used.
        """
        reader = _Reader(environ)
        settings = _read(cls, reader)
        reader.refuse_odd_names_and_texts()
        return settings, reader.errors

    def shown_by(self, text: str) -> bool:
        """Whether `text` holds one of these secrets, but for those that are too short to tell."""
        password = urlsplit(self.redis_url.reveal()).password
        clients = (client.secret for client in self.clients.values())
        push = filter(None, (self.push_token, self.push_aes_key))
        known = [secret.reveal() for secret in (*self.apps.values(), *self.secret_keys, *clients, *push)]
        return any(secret in text for secret in [*known, password or ""] if len(secret) >= 8)


def names_an_app(environ: Mapping[str, str]) -> bool:
    """Whether anybody has begun to configure a mini program; if not, `python app.py` is a newcomer's."""
    return any(environ.get(name, "").strip() for name in ("WECHAT_APPID", "WECHAT_SECRET", "WXAUTH_APPS"))


def _read(cls: type[Settings], reader: _Reader) -> Settings:
    sandbox = bool(reader.choice("WXAUTH_SANDBOX", "", {"1"}))
    return cls(
        apps=_sandbox_apps(reader) if sandbox else _apps(reader),
        secret_keys=_secret_keys(reader, needed=not sandbox),
        redis_url=Secret("") if sandbox else _redis_url(reader),
        redis_tls=_redis_tls(reader),
        idle_ttl=reader.number("WXAUTH_IDLE_TTL", cls.idle_ttl, 1, 31536000, int),
        max_ttl=reader.number("WXAUTH_MAX_TTL", cls.max_ttl, 1, 31536000, int),
        max_sessions=reader.number("WXAUTH_MAX_SESSIONS", cls.max_sessions, 1, 1000, int),
        clients=_clients(reader),
        login_rate=_rate(reader, "WXAUTH_LOGIN_RATE", cls.login_rate),
        phone_rate=_rate(reader, "WXAUTH_PHONE_RATE", cls.phone_rate),
        client_rate=_rate(reader, "WXAUTH_CLIENT_RATE", cls.client_rate),
        threads=reader.number("WXAUTH_THREADS", cls.threads, 1, 1000, int),
        trusted_proxies=reader.number("WXAUTH_TRUSTED_PROXIES", cls.trusted_proxies, 0, 10, int),
        wechat_url=_wechat_url(reader),
        wechat_timeout=reader.number("WXAUTH_WECHAT_TIMEOUT", cls.wechat_timeout, 0.1, 30.0, float),
        wait_replicas=reader.number("WXAUTH_WAIT_REPLICAS", cls.wait_replicas, 0, 1, int),
        cache_size=reader.number("WXAUTH_CACHE_SIZE", cls.cache_size, 0, 10000000, int),
        userdata_max_age=reader.number("WXAUTH_USERDATA_MAX_AGE", cls.userdata_max_age, 1, 1000000000, int),
        push_token=_push_secret(reader, "WXAUTH_PUSH_TOKEN", r"[A-Za-z0-9]{3,32}", "3 to 32 letters and digits"),
        push_aes_key=_push_aes_key(reader),
        log_level=reader.choice("WXAUTH_LOG_LEVEL", cls.log_level, {"debug", "info", "warning", "error"}),
        sandbox=sandbox,
    )


class _Reader:
    """Reads one variable at a time and keeps what was wrong with it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._known: set[str] = set()
        self.errors: list[str] = []

    def fault(self, name: str, hint: str) -> None:
        self.errors.append(f"{name}: {hint}")

    def text(self, name: str) -> str:
        self._known.add(name)
        return self._environ.get(name, "").strip()

    def items(self, name: str) -> list[str]:
        return [item for item in map(str.strip, self.text(name).split(",")) if item]

    def pairs(self, name: str, form: str, shape: str) -> Iterator[tuple[str, Secret]]:
        for item in self.items(name):
            left, _, right = item.partition(":")
            if re.fullmatch(shape, left) and right:
                yield left, Secret(right)
            else:
                self.fault(name, f"each entry has the form {form}.")

    def refuse_odd_names_and_texts(self) -> None:
        """To be called last: a name is known if it has been read."""
        for name in sorted(self._environ):
            if name in self._known and not self.text(name).isprintable():
                self.fault(name, "there are characters in it that can't be printed.")
            if name.startswith("WXAUTH_") and name not in self._known and self._environ[name].strip():
                near = get_close_matches(name, self._known, 1, cutoff=0.8)
                self.fault(name, "no such setting" + (f"; {near[0]} is meant?" if near else "; remove it."))

    def number(self, name: str, default: Number, low: Number, high: Number, kind: Callable[[str], Number]) -> Number:
        text = self.text(name)
        try:
            value = kind(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else None if text else default
        except ValueError:
            value = None
        if value is not None and low <= value <= high:
            return value
        self.fault(name, f"a number from {low} to {high} is needed.")
        return default

    def choice(self, name: str, default: str, choices: set[str]) -> str:
        text = self.text(name) or default
        if text not in {default, *choices}:
            self.fault(name, f"one of these is needed: {', '.join(sorted(choices))}; or leave it out.")
            return default
        return text


def _apps(reader: _Reader) -> Mapping[str, Secret]:
    appid, secret = reader.text("WECHAT_APPID"), reader.text("WECHAT_SECRET")
    several = list(reader.pairs("WXAUTH_APPS", "appid:secret", NAME))
    if several and (appid or secret):
        reader.fault("WXAUTH_APPS", "set either this or WECHAT_APPID and WECHAT_SECRET, not both.")
    elif not reader.items("WXAUTH_APPS"):
        for name in ("WECHAT_APPID", "WECHAT_SECRET"):
            if not reader.text(name):
                reader.fault(name, "needed; it stands in the WeChat console under Development > Settings.")
        if appid and not re.fullmatch(NAME, appid):
            reader.fault("WECHAT_APPID", "this can't be one; it looks like wx0123456789abcdef.")
        several = [(appid, Secret(secret))]
    if len(dict(several)) < len(several):
        reader.fault("WXAUTH_APPS", "the same appid stands there twice.")
    return MappingProxyType(dict(several))


def _sandbox_apps(reader: _Reader) -> Mapping[str, Secret]:
    for name in ("WECHAT_SECRET", "WXAUTH_APPS"):
        if reader.text(name):
            reader.fault("WXAUTH_SANDBOX", f"the sandbox needs no WeChat secret; remove {name} or the sandbox.")
    return {reader.text("WECHAT_APPID") or SANDBOX_APPID: Secret(secrets.token_hex(16))}


def _secret_keys(reader: _Reader, needed: bool) -> tuple[Secret, ...]:
    name = "WXAUTH_SECRET_KEYS"
    keys = reader.items(name)
    if not keys and needed:
        reader.fault(name, "needed; make one with: python -m wxauth keygen")
    if any(len(key) < KEY_LENGTH for key in keys):
        reader.fault(name, f"each key needs {KEY_LENGTH} characters or more; make one with: python -m wxauth keygen")
    if len(set(keys)) < len(keys):
        reader.fault(name, "the same key stands there twice.")
    return tuple(map(Secret, keys or [secrets.token_hex(KEY_LENGTH)]))


def _redis_url(reader: _Reader) -> Secret:
    name = _redis_url_name(reader)
    if name is None:
        reader.fault("REDIS_URL", "needed; for example redis://127.0.0.1:6379/0")
        return Secret("")
    url = reader.text(name)
    scheme, _, rest = url.partition("://")
    kind = scheme.removeprefix("rediss").removeprefix("redis")
    if scheme not in REDIS_SCHEMES:
        reader.fault(name, f"must begin with one of {', '.join(f'{scheme}://' for scheme in REDIS_SCHEMES)}")
    elif not re.fullmatch(REDIS_FORMS[kind][0], rest, re.ASCII):
        reader.fault(name, f"the form is {scheme}://{REDIS_FORMS[kind][1]}; a password is to be percent-encoded.")
    return Secret(url)


def _redis_url_name(reader: _Reader) -> str | None:
    return next((name for name in REDIS_URL_NAMES if reader.text(name)), None)


def _redis_tls(reader: _Reader) -> str:
    name = "WXAUTH_REDIS_TLS"
    text = reader.text(name).lower() or "verify"
    if text.startswith("pin:"):
        text = "pin:" + text.removeprefix("pin:").replace(":", "")
    if not re.fullmatch(r"verify|insecure|pin:[0-9a-f]{64}", text):
        reader.fault(name, "verify, pin:<sha256 of the certificate, 64 hex digits> or insecure.")
    elif text.startswith("pin:") and not reader.text(_redis_url_name(reader) or "").startswith("rediss://"):
        reader.fault(name, "only the one server of a rediss:// address can be pinned.")
    return text


def _clients(reader: _Reader) -> dict[str, Client]:
    clients: dict[str, Client] = {}
    for name, secret in reader.pairs("WXAUTH_CLIENTS", "id:secret or id@appid:secret", f"{NAME}(@{NAME})?"):
        id, at, appid = name.partition("@")
        if id in clients:
            reader.fault("WXAUTH_CLIENTS", "the same id stands there twice.")
        clients[id] = Client(secret, frozenset({appid}) if at else None)
    return clients


def _rate(reader: _Reader, name: str, default: str) -> str:
    text = reader.text(name) or default
    if not re.fullmatch(r"[1-9][0-9]{0,8}/(second|minute|hour|day)", text):
        reader.fault(name, "a number and a span are needed, such as 300/minute.")
    return text


def _push_secret(reader: _Reader, name: str, shape: str, told: str) -> Secret | None:
    text = reader.text(name)
    if text and not re.fullmatch(shape, text):
        reader.fault(name, f"{told}, as it stands in the WeChat console under Message Push.")
    return Secret(text) if text else None


def _push_aes_key(reader: _Reader) -> Secret | None:
    name = "WXAUTH_PUSH_AES_KEY"
    if reader.text(name) and not reader.text("WXAUTH_PUSH_TOKEN"):
        reader.fault(name, "of no use without WXAUTH_PUSH_TOKEN, which turns the message push on.")
        return None
    return _push_secret(reader, name, r"[A-Za-z0-9]{43}", "43 letters and digits")


def _wechat_url(reader: _Reader) -> str:
    url = reader.text("WXAUTH_WECHAT_URL").rstrip("/") or Settings.wechat_url
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("https", "http") or re.search(r"[?#@\s]", url):
        reader.fault("WXAUTH_WECHAT_URL", "a plain address is needed, such as https://api.weixin.qq.com")
    elif parts.scheme == "http" and host not in LOOPBACK:
        reader.fault("WXAUTH_WECHAT_URL", "the AppSecret travels there: only https is taken, or http to 127.0.0.1.")
    return url
