"""The contenders: the command, the path that is requested, and how users are logged in.

The names are the keys of `results.json`. `{folder}` in a command is the temporary folder of the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from benchmarks.contenders.users import APPID, SECRET
from benchmarks.harness.host import BENCHMARKS
from wxauth.cli.commands import HEAPS
from wxauth.settings import Settings

SeedMethod = Literal["wxauth", "http", "redis", "none"]

#: gunicorn's documentation recommends 2 to 4 threads per core.
GUNICORN_THREADS: Final = 4
#: The fastest number for Flask in a trial: more threads compete for the GIL.
GRANIAN_THREADS: Final = 5


@dataclass(frozen=True)
class Contender:
    """`seeding` is a key of `harness.seeding.METHODS`."""

    name: str
    title: str
    command: tuple[str, ...]
    path: str = "/me"
    seeding: SeedMethod = "http"
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_login(self) -> bool:
        """Whether the requests are logins, and no checks."""
        return self.path == "/login"


OURS: Final = {
    "WECHAT_APPID": APPID,
    "WECHAT_SECRET": SECRET,
    "WXAUTH_SECRET_KEYS": SECRET,
    "WXAUTH_LOGIN_RATE": "100000000/second",
    "WEB_CONCURRENCY": "1",
}
UNCACHED: Final = {"WXAUTH_CACHE_SIZE": "0"}
ONE: Final = {"WEB_CONCURRENCY": "1"}
#: An application. The service has more threads, because its logins wait for WeChat.
APPLICATION: Final = ONE | {"WXAUTH_THREADS": str(GRANIAN_THREADS)}
NODE: Final = {"NODE_ENV": "production"}


def granian(app: str) -> tuple[str, ...]:
    """Return the command that `python -m wxauth serve` runs, for `app` and on loopback only."""
    options = f"127.0.0.1 $PORT $WEB_CONCURRENCY ${{WXAUTH_THREADS:-{Settings.threads}}}"
    heaps = " ".join(f"{name}={value}" for name, value in HEAPS.items())
    return ("sh", "-c", f"{heaps} exec python -m wxauth.cli.server {app} {options}")


def gunicorn(app: str) -> tuple[str, ...]:
    options = f"--worker-class gthread --workers 1 --threads {GUNICORN_THREADS} --bind 127.0.0.1:$PORT"
    return ("sh", "-c", f"exec gunicorn {options} {app}")


def node(script: str) -> tuple[str, ...]:
    return ("node", str(BENCHMARKS / "node" / script))


NGINX: Final = ("nginx", "-p", "{folder}", "-c", "{folder}/nginx.conf", "-e", "{folder}/log", "-g", "daemon off;")
IN_PYTHON: Final = "benchmarks.contenders"

#: The service starts as on a host, so that its start time is the real one.
SERVE: Final = ("python", "-m", "wxauth", "serve")
VERIFY: Final = Contender("verify", "wxauth `/verify`", SERVE, "/verify", "wxauth", OURS)
DECORATOR: Final = Contender(
    "decorator",
    "wxauth `@login_required`",
    granian(f"{IN_PYTHON}.guarded_flask:app"),
    "/me",
    "wxauth",
    OURS | APPLICATION,
)
SERVER_SIDE: Final = Contender(
    "flask-session",
    "Flask-Session, Redis (Granian)",
    granian(f"{IN_PYTHON}.server_side_sessions:app"),
    environ=APPLICATION,
)
JWT: Final = Contender(
    "flask-jwt",
    "Flask-JWT-Extended, block list (Granian)",
    granian(f"{IN_PYTHON}.jwt_blocklist:app"),
    environ=APPLICATION,
)

CONTENDERS: Final = (
    VERIFY,
    replace(VERIFY, name="verify-uncached", title="wxauth `/verify`, cache off", environ=OURS | UNCACHED),
    DECORATOR,
    replace(DECORATOR, name="decorator-uncached", title="wxauth `@login_required`, cache off",
            environ=OURS | APPLICATION | UNCACHED),
    Contender("granian", "bare Granian", granian(f"{IN_PYTHON}.bare_wsgi:app"), "/", "none", ONE),
    Contender("flask", "bare Flask (Granian)", granian(f"{IN_PYTHON}.bare_flask:app"), "/me", "none", APPLICATION),
    SERVER_SIDE,
    replace(SERVER_SIDE, name="flask-session-gunicorn", title="Flask-Session, Redis (gunicorn)",
            command=gunicorn(f"{IN_PYTHON}.server_side_sessions:app")),
    JWT,
    replace(JWT, name="flask-jwt-gunicorn", title="Flask-JWT-Extended, block list (gunicorn)",
            command=gunicorn(f"{IN_PYTHON}.jwt_blocklist:app")),
    Contender("koa-jwt", "Koa, jsonwebtoken, as in tutorials", node("koa_jwt.js"), environ=NODE),
    Contender("express-session", "express-session, connect-redis", node("express_session.js"), environ=NODE),
    Contender("koa-ioredis", "Koa, ioredis, opaque tokens", node("koa_ioredis.js"), "/verify", environ=NODE),
    Contender("nginx-lua", "nginx, Lua, Redis", NGINX, "/verify", "redis"),
    Contender("login", "wxauth `/login`", SERVE, "/login", "none", OURS),
    Contender("flask-login", "Flask view of eight lines (Granian)", granian(f"{IN_PYTHON}.flask_login:app"), "/login",
              "none", ONE),
    Contender("koa-login", "Koa, ioredis", node("koa_login.js"), "/login", "none", NODE),
)  # fmt: skip
BY_NAME: Final = {contender.name: contender for contender in CONTENDERS}
