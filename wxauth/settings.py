"""Read the environment once into a frozen `Settings`, and report all configuration errors together.

An error names the variable and the fix. It never contains the value, because a secret may be in the wrong variable.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import secrets
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Annotated, Any, Final, NamedTuple, TypeVar, get_type_hints
from urllib.parse import unquote, urlsplit

from .errors import ConfigurationError
from .models import Secret

REDIS_URL_NAMES: Final = ("REDIS_URL", "REDIS_TLS_URL", "REDIS_URI", "REDIS_CONNECTION_STRING")
APP_NAMES: Final = ("WECHAT_APPID", "WECHAT_SECRET", "WXAUTH_APPS")
OUR_SECRETS: Final = (
    "WXAUTH_SECRET_KEYS",
    "WXAUTH_CLIENTS",
    "WXAUTH_PUSH_TOKEN",
    "WXAUTH_PUSH_AES_KEY",
    "WXAUTH_WECHAT_PROXY",
)
#: The variables that hold a secret.
SECRET_NAMES: Final = ("WECHAT_SECRET", "WXAUTH_APPS", *OUR_SECRETS, *REDIS_URL_NAMES)

#: An appid or a client id. WeChat publishes no format, so this only excludes what is clearly wrong.
NAME: Final = r"[A-Za-z0-9_.-]{1,64}"
#: The minimal length of a signing key, in characters.
KEY_LENGTH: Final = 32
#: Seconds. The client waits 0.15 s for replicas, and an idle Redis answers up to 0.1 s later.
MIN_WAIT_TIMEOUT: Final = 0.25
#: The minimal length of a client's secret, in characters.
CLIENT_SECRET_LENGTH: Final = 16
#: A client's id, and the app that it is limited to.
CLIENT_ID: Final = rf"(?P<id>{NAME})(@(?P<appid>{NAME}))?"
CONSOLE: Final = "copy it from the WeChat console"

#: `_hosts_are_valid` checks the rest: the address in the brackets, and the port.
HOST: Final = r"(\[[0-9a-fA-F:.]+\]|[\w-]{1,63}(\.[\w-]{1,63})*\.?)(:[0-9]{1,5})?"
ONE_HOST: Final = rf"://([^@/?#\[\]\s]*@)?{HOST}"
HOSTS: Final = rf"{ONE_HOST}(,{HOST})*"
DATABASE: Final = "[0-9]{1,5}"
#: No path has a NUL.
SOCKET: Final = rf"unix://([^@/?#\[\]\s]*@)?/(?![^?]*%00)[^?#\s]+(\?db={DATABASE})?"

#: The variables of a real installation. A misspelt WECHAT_ name counts: it shows what was meant.
PRODUCTION: Final = "|".join((*REDIS_URL_NAMES, "WXAUTH_SECRET_KEYS", "WXAUTH_APPS", "WECHAT.*"))

T = TypeVar("T")


class _Format(NamedTuple):
    """The form of a variable: a pattern, the fix for an error, and the conversion, which returns None if invalid."""

    pattern: str
    fix: str
    convert: Callable[[str], Any]


def _number(low: float, high: float) -> _Format:
    pattern = r"[0-9]+" if isinstance(low, int) else r"[0-9]+(\.[0-9]+)?"

    def convert(text: str) -> float | None:
        # float() accepts any number of digits; int() raises ValueError above 4,300.
        return type(low)(float(text)) if low <= float(text) <= high else None

    return _Format(pattern, f"set a number from {low} to {high}.", convert)


def _list(text: str) -> list[str]:
    return [item for item in map(str.strip, text.split(",")) if item]


def _entries(text: str, pattern: str, make: Callable[[re.Match[str]], T]) -> dict[str, T] | None:
    """Return the entries of a list by id, or None if one is invalid, or if two have the same id."""
    items = _list(text)
    entries = {found["id"]: make(found) for item in items if (found := re.fullmatch(pattern, item))}
    return entries if len(entries) == len(items) else None


def _apps(text: str) -> Mapping[str, Secret] | None:
    return _entries(text, rf"(?P<id>{NAME}):(?P<secret>.+)", lambda found: Secret(found["secret"]))


def _clients(text: str) -> Mapping[str, Client] | None:
    return _entries(text, rf"{CLIENT_ID}(?P<scan>!scan)?:(?P<secret>.{{{CLIENT_SECRET_LENGTH},}})", _client)


def _public_clients(text: str) -> Mapping[str, Client] | None:
    return _entries(text, CLIENT_ID, _public_client)


def _client(found: re.Match[str]) -> Client:
    return Client(Secret(found["secret"]), _appids(found), found["id"], bool(found["scan"]))


def _public_client(found: re.Match[str]) -> Client:
    return Client(None, _appids(found), found["id"], scan_only=True)


def _appids(found: re.Match[str]) -> frozenset[str] | None:
    return frozenset({found["appid"]}) if found["appid"] else None


def _secret_url(text: str) -> Secret | None:
    return Secret(text) if _hosts_are_valid(text) else None


def _base_url(text: str) -> str | None:
    return text.rstrip("/") if _hosts_are_valid(text) else None


def _origins(text: str) -> frozenset[str] | None:
    # A browser sends no default port.
    origins = [re.sub(r"(?<=^http:)(.*):80$|(?<=^https:)(.*):443$", r"\1\2", it.lower()) for it in _list(text)]
    valid = all(re.fullmatch(rf"https?://{HOST}", origin) and _hosts_are_valid(origin) for origin in origins)
    return frozenset(origins) if valid else None


def _address(text: str) -> str | None:
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(text))
    return None


def _hosts_are_valid(url: str) -> bool:
    """Whether each host of the URL is a name or an IP address, and each port is 1 to 65535."""
    try:
        return all(urlsplit(f"//{host}").port != 0 for host in _authority(url).rpartition("@")[2].split(","))
    except ValueError:
        return False


def _authority(url: str) -> str:
    """Return the `user:password@host:port,host:port` of a URL. `urlsplit` raises for some passwords and lists."""
    return url.partition("://")[2].partition("/")[0]


def _passwords(url: Secret | None) -> tuple[Secret, Secret]:
    """Return the password in the URL as it is written there and decoded. Empty if there is none."""
    password = _authority(url.reveal() if url else "").rpartition("@")[0].partition(":")[2]
    return Secret(password), Secret(unquote(password))


def _ids(text: str) -> frozenset[str] | None:
    ids = _list(text)
    return frozenset(ids) if all(re.fullmatch(NAME, id) for id in ids) else None


def _secret_keys(text: str) -> tuple[Secret, ...] | None:
    keys = _list(text)
    valid = keys and len(set(keys)) == len(keys) and min(map(len, keys)) >= KEY_LENGTH
    return tuple(map(Secret, keys)) if valid else None


APPID: Final = _Format(NAME, f"required; {CONSOLE}.", str)
APP_SECRET: Final = _Format(".+", f"required; {CONSOLE}.", Secret)
APPS: Final = _Format(".+", "write each entry as appid:secret, and each appid once.", _apps)
CLIENTS: Final = _Format(
    ".+",
    "write id:secret, id@appid:secret or id!scan:secret, each id once, each secret with"
    f" {CLIENT_SECRET_LENGTH} or more characters.",
    _clients,
)
PUBLIC_CLIENTS: Final = _Format(".+", "write id or id@appid, each id once.", _public_clients)
ADMIN_CLIENTS: Final = _Format(".+", "write ids of WXAUTH_CLIENTS, without app and secret.", _ids)
KEYS: Final = _Format(".+", "required; different keys, 32 or more characters: python -m wxauth keygen", _secret_keys)
REDIS: Final = _Format(
    # A query is invalid, because an option of redis-py's there can turn off certificate verification.
    rf"(redis|valkey)s?({ONE_HOST}(/({DATABASE})?)?|\+sentinel{HOSTS}/[\w.-]+(/{DATABASE})?|\+cluster{HOSTS}/?)|{SOCKET}",
    "required; such as redis://user:password@host:port/db, with special characters percent-encoded; "
    "see docs/configuration.md.",
    _secret_url,
)
REDIS_TLS: Final = _Format(
    r"(?i)verify|insecure|pin:([0-9a-f]:?){64}",
    "set verify, insecure or pin:<SHA-256 of the certificate, 64 hex digits>.",
    lambda text: re.sub("(?<!pin):", "", text.lower()),
)
SAFE_URL: Final = rf"(?i)(https://{HOST}|http://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{{1,5}})?)(/[^?#@\s]*)?"
WECHAT_URL: Final = _Format(
    SAFE_URL,
    "set a plain https URL; http is allowed to 127.0.0.1 only, because the AppSecret is sent to this URL.",
    _base_url,
)
PUBLIC_URL: Final = _Format(
    SAFE_URL,
    "set the https URL of this service, such as https://login.example.com; http for 127.0.0.1 only.",
    _base_url,
)
SCAN_PAGE: Final = _Format(
    r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", "set a page of the mini program without a slash in front.", str
)
CORS_ORIGINS: Final = _Format(
    ".+", "write each origin as https://host or https://host:port, without a path; there is no *.", _origins
)
WECHAT_PROXY: Final = _Format(
    rf"http{ONE_HOST}/?",
    "set an HTTP proxy such as http://user:password@host:port, with special characters percent-encoded.",
    _secret_url,
)
LISTEN: Final = _Format(".+", "set an IP address, such as 0.0.0.0, or :: for IPv6.", _address)
RATE: Final = _Format(r"[1-9][0-9]{0,8}/(second|minute|hour|day)", "set a rate such as 300/minute.", str)
LOG_LEVEL: Final = _Format("debug|info|warning|error", "set debug, info, warning or error.", str)
FLAG: Final = _Format("1", "set 1, or remove the variable.", bool)
PUSH_TOKEN: Final = _Format(r"[A-Za-z0-9]{3,32}", f"3 to 32 letters and digits; {CONSOLE}.", Secret)
PUSH_AES_KEY: Final = _Format(r"[A-Za-z0-9]{43}", f"43 letters and digits; {CONSOLE}.", Secret)


@dataclass(frozen=True, slots=True)
class Client:
    """A backend or website of the operator.

    `secret` is None for a public client. `appids` are the apps that it may query (None: all apps). With `scan_only`
    it may use device codes, and the tokens that were granted to it.
    """

    secret: Secret | None
    appids: frozenset[str] | None
    id: str = ""
    scan_only: bool = False

    def may_see(self, appid: str) -> bool:
        """Whether the client may query this app."""
        return self.appids is None or appid in self.appids


@dataclass(frozen=True)
class Settings:
    """The configuration of the service. docs/configuration.md describes each variable. Times are in seconds.

    A variable is named WXAUTH_ and the field's name in capitals, except REDIS_URL.
    """

    apps: Annotated[Mapping[str, Secret], APPS]
    secret_keys: Annotated[tuple[Secret, ...], KEYS]
    redis_url: Annotated[Secret, REDIS]
    redis_tls: Annotated[str, REDIS_TLS] = "verify"
    redis_connections: Annotated[int, _number(1, 1000)] = 8
    redis_timeout: Annotated[float | None, _number(0.05, 30.0)] = None
    idle_ttl: Annotated[int, _number(1, 31536000)] = 604800
    max_ttl: Annotated[int, _number(1, 31536000)] = 2592000
    max_sessions: Annotated[int, _number(1, 1000)] = 10
    clients: Annotated[Mapping[str, Client], CLIENTS] = field(default_factory=dict)
    login_rate: Annotated[str, RATE] = "300/minute"
    phone_rate: Annotated[str, RATE] = "10/hour"
    client_rate: Annotated[str, RATE] = "60000/minute"
    threads: Annotated[int, _number(1, 1000)] = 256
    trusted_proxies: Annotated[int, _number(0, 10)] = 0
    wechat_url: Annotated[str, WECHAT_URL] = "https://api.weixin.qq.com"
    wechat_timeout: Annotated[float, _number(0.1, 30.0)] = 4.0
    wait_replicas: Annotated[int, _number(0, 1)] = 0
    cache_size: Annotated[int, _number(0, 10000000)] = 10000
    userdata_max_age: Annotated[int, _number(1, 1000000000)] = 600
    push_token: Annotated[Secret | None, PUSH_TOKEN] = None
    push_aes_key: Annotated[Secret | None, PUSH_AES_KEY] = None
    log_level: Annotated[str, LOG_LEVEL] = "info"
    sandbox: Annotated[bool, FLAG] = False
    public_url: Annotated[str, PUBLIC_URL] = ""
    public_clients: Annotated[Mapping[str, Client], PUBLIC_CLIENTS] = field(default_factory=dict)
    scan_page: Annotated[str, SCAN_PAGE] = ""
    scan_link: Annotated[bool, FLAG] = False
    cors_origins: Annotated[frozenset[str], CORS_ORIGINS] = frozenset()
    wechat_proxy: Annotated[Secret | None, WECHAT_PROXY] = None
    host: Annotated[str, LISTEN] = "0.0.0.0"  # noqa: S104 - a host routes its traffic to any address
    admin_clients: Annotated[frozenset[str], ADMIN_CLIENTS] = frozenset()

    @property
    def max_wechat_calls(self) -> int:
        """How many threads of a worker may wait for WeChat at the same time. The others are for checks."""
        return max(self.threads * 3 // 4, 1)

    @property
    def max_images(self) -> int:
        """How many of these may wait for images to scan. Everyone can ask for one, so they are few."""
        return max(self.max_wechat_calls // 8, 1)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Return the settings in `environ`. An empty variable counts as absent.

        Raises ConfigurationError if a variable can't be used; its `errors` lists all such variables.
        """
        settings, errors = cls.read(environ)
        if errors:
            raise ConfigurationError([f"{name}: {fix}" for name, fix in errors.items()])
        return settings

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> tuple[Settings, Mapping[str, str]]:
        """Return the settings and all errors (variable: fix) instead of raising.

        Do not use the setting of a variable with an error: it holds the default or an empty value.
        """
        reader = _Reader(environ)
        reader.check_names()
        if reader.text("WXAUTH_SANDBOX") == "1":
            reader.enter_sandbox()
        settings = cls(**reader.values())
        reader.check_combinations(settings)
        return settings, reader.errors

    def remove_secrets(self, environ: MutableMapping[str, str]) -> None:
        """Remove each variable that holds one of these secrets.

        Granian copies `os.environ` into every WSGI environment, and tracebacks and APM tools show that.
        """
        for name in [name for name, text in environ.items() if name in SECRET_NAMES or self.shown_by(text)]:
            del environ[name]

    def shown_by(self, text: str) -> bool:
        """Whether `text` contains one of these secrets. Secrets below 8 characters are ignored."""
        clients = (client.secret for client in self.clients.values())
        passwords = (*_passwords(self.redis_url), *_passwords(self.wechat_proxy))
        known = (*self.apps.values(), *self.secret_keys, *clients, self.push_token, self.push_aes_key, *passwords)
        return any(secret.reveal() in text for secret in known if secret and len(secret.reveal()) >= 8)


#: The variables that every installation needs, and the settings if one has an error.
REQUIRED: Final[dict[str, Any]] = {"secret_keys": (), "redis_url": Secret("")}
FORMATS: Final[Mapping[str, _Format]] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(Settings, include_extras=True).items()
}
#: The variables that are on with 1, and else off.
FLAGS: Final = frozenset(f"WXAUTH_{name.upper()}" for name, form in FORMATS.items() if form is FLAG)
#: Every variable with our prefix.
VARIABLES: Final = frozenset(f"WXAUTH_{name.upper()}" for name in FORMATS if name != "redis_url")


def production_names(environ: Mapping[str, str]) -> list[str]:
    """Return the variables of a real installation that are set, in any case. `python app.py` reads them too."""
    return sorted(name for name, text in environ.items() if text.strip() and re.fullmatch(PRODUCTION, name.upper()))


class _Reader:
    """Reads single variables, and keeps the first error of each."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._texts = {name: text.strip() for name, text in environ.items() if text.strip()}
        self.errors: dict[str, str] = {}

    def text(self, name: str) -> str:
        return self._texts.get(name, "")

    def check(self, valid: object, name: str, fix: str) -> None:
        if not valid:
            self.errors.setdefault(name, fix)

    def value(self, name: str, form: _Format, required: bool) -> Any:
        """Return the parsed value, or None if the variable is absent or can't be used."""
        text = self.text(name)
        is_valid = text.isprintable() and re.fullmatch(form.pattern, text, re.ASCII)
        value = form.convert(text) if is_valid else None
        self.check(value is not None or not (text or required), name, form.fix)
        return value

    def values(self) -> dict[str, Any]:
        """Return the values of the settings that are set. Reports each invalid or missing variable."""
        found = {field: self.value(self._variable(field), form, field in REQUIRED) for field, form in FORMATS.items()}
        if not _list(self.text("WXAUTH_APPS")):
            appid, secret = self.value("WECHAT_APPID", APPID, True), self.value("WECHAT_SECRET", APP_SECRET, True)
            found["apps"] = {appid: secret} if appid and secret else {}
        return REQUIRED | {"apps": {}} | {field: value for field, value in found.items() if value is not None}

    def enter_sandbox(self) -> None:
        """Use an app and a key with random secrets. The sandbox has its Redis in memory and connects to no URL."""
        real = [name for name in production_names(self._texts) if name != "WECHAT_APPID"]
        self.check(not real, "WXAUTH_SANDBOX", f"remove this, or {', '.join(real)}.")
        address = f"http://127.0.0.1:{self.text('PORT') or 8000}"
        scan = {"WXAUTH_PUBLIC_URL": address, "WXAUTH_PUBLIC_CLIENTS": "shop.example"}
        self._texts = {"WECHAT_APPID": "wxsandbox00000000", **scan} | self._texts
        self._texts |= {"WXAUTH_SECRET_KEYS": secrets.token_hex(KEY_LENGTH), "WECHAT_SECRET": secrets.token_hex(16)}
        self._texts |= {"REDIS_URL": "rediss://127.0.0.1", "WXAUTH_APPS": ""}

    def check_names(self) -> None:
        """Report unknown variables with our prefix, so that a misspelt name is not ignored."""
        for name in sorted(self._texts.keys() - VARIABLES):
            near = get_close_matches(name, sorted(VARIABLES), 1, cutoff=0.8)
            fix = f"unknown variable; did you mean {near[0]}?" if near else "unknown; remove it."
            self.check(not name.startswith("WXAUTH_"), name, fix)

    def check_combinations(self, settings: Settings) -> None:
        """Report variables that are valid alone and can't be used together."""
        one_app = self.text("WECHAT_APPID") or self.text("WECHAT_SECRET")
        both = one_app and _list(self.text("WXAUTH_APPS"))
        self.check(not both, "WXAUTH_APPS", "set either this or WECHAT_APPID and WECHAT_SECRET, not both.")
        no_pin = not settings.redis_tls.startswith("pin:")
        pinnable = self.text(self._variable("redis_url")).startswith(("rediss://", "valkeys://"))
        self.check(no_pin or pinnable, "WXAUTH_REDIS_TLS", "a pin needs a rediss:// URL, which names one server.")
        twice = settings.clients.keys() & settings.public_clients.keys()
        self.check(not twice, "WXAUTH_PUBLIC_CLIENTS", "an id can't be in WXAUTH_CLIENTS too.")
        timeout = settings.redis_timeout or MIN_WAIT_TIMEOUT
        confirmable = timeout >= MIN_WAIT_TIMEOUT or not settings.wait_replicas
        fix = f"set {MIN_WAIT_TIMEOUT} or more beside WXAUTH_WAIT_REPLICAS: a replica confirms that late."
        self.check(confirmable, "WXAUTH_REDIS_TIMEOUT", fix)
        able = {id for id, client in settings.clients.items() if not client.scan_only}
        are_known = settings.admin_clients <= able or "WXAUTH_CLIENTS" in self.errors
        self.check(are_known, "WXAUTH_ADMIN_CLIENTS", "each id must be in WXAUTH_CLIENTS, and not for scans alone.")
        has_token = self.text("WXAUTH_PUSH_TOKEN") or not self.text("WXAUTH_PUSH_AES_KEY")
        self.check(has_token, "WXAUTH_PUSH_AES_KEY", "set WXAUTH_PUSH_TOKEN too; the key has no effect without it.")

    def _variable(self, field: str) -> str:
        names = REDIS_URL_NAMES if field == "redis_url" else (f"WXAUTH_{field.upper()}",)
        return next((name for name in names if self.text(name)), names[0])
