"""The contenders: how each is started, what it is asked, and how its users are logged in.

Names are those of the results file. `{folder}` in a command is the server's own folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from benchmarks.identity import APPID, SECRET
from benchmarks.places import ROOT

Seeding = Literal["ours", "http", "plain", "none"]

#: gunicorn's documentation recommends 2 to 4 threads a core.
GUNICORN_THREADS: Final = 4
#: With more they wait for the interpreter, and wake up every 5 ms to ask for it; with 2 or 3 it is slower, too.
GRANIAN_THREADS: Final = 5


@dataclass(frozen=True)
class Contender:
    """`seeding` names the way of logging users in; see `seeding`."""

    name: str
    title: str
    command: tuple[str, ...]
    path: str = "/me"
    seeding: Seeding = "http"
    environ: Mapping[str, str] = field(default_factory=dict)


OURS: Final = {
    "WECHAT_APPID": APPID,
    "WECHAT_SECRET": SECRET,
    "WXAUTH_SECRET_KEYS": SECRET,
    "WXAUTH_LOGIN_RATE": "100000000/second",
    "WEB_CONCURRENCY": "1",
}
UNCACHED: Final = {"WXAUTH_CACHE_SIZE": "0"}
ONE: Final = {"WEB_CONCURRENCY": "1"}
#: The service has more threads, since its logins wait for WeChat.
APPLICATION: Final = ONE | {"WXAUTH_THREADS": str(GRANIAN_THREADS)}
NODE: Final = {"NODE_ENV": "production"}


def granian(app: str) -> tuple[str, ...]:
    """The command of the Procfile, for `app` and on loopback alone."""
    command = (ROOT / "Procfile").read_text().removeprefix("web: ").strip()
    return ("sh", "-c", command.replace("--host 0.0.0.0", "--host 127.0.0.1").replace(" app:app", f" {app}"))


def gunicorn(app: str) -> tuple[str, ...]:
    # The address comes from $PORT; gunicorn's own default is loopback, but port 8000.
    options = f"--worker-class gthread --workers 1 --threads {GUNICORN_THREADS} --bind 127.0.0.1:$PORT"
    return ("sh", "-c", f"exec gunicorn {options} {app}")


def node(script: str) -> tuple[str, ...]:
    return ("node", str(ROOT / "benchmarks" / "node" / script))


NGINX: Final = ("nginx", "-p", "{folder}", "-c", "{folder}/nginx.conf", "-e", "{folder}/log", "-g", "daemon off;")
IN_PYTHON: Final = "benchmarks.contenders"

VERIFY: Final = Contender("verify", "wxauth `/verify`", granian("app:app"), "/verify", "ours", OURS)
DECORATOR: Final = Contender(
    "decorator",
    "wxauth `@login_required`",
    granian(f"{IN_PYTHON}.decorator:app"),
    "/me",
    "ours",
    OURS | APPLICATION,
)
SERVER_SIDE: Final = Contender(
    "flask-session", "Flask-Session, Redis (Granian)", granian(f"{IN_PYTHON}.server_side:app"), environ=APPLICATION
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
    Contender("granian", "nothing but Granian", granian(f"{IN_PYTHON}.nothing:app"), "/", "none", ONE),
    Contender("flask", "bare Flask (Granian)", granian(f"{IN_PYTHON}.bare:app"), "/me", "none", APPLICATION),
    SERVER_SIDE,
    replace(SERVER_SIDE, name="flask-session-gunicorn", title="Flask-Session, Redis (gunicorn)",
            command=gunicorn(f"{IN_PYTHON}.server_side:app")),
    JWT,
    replace(JWT, name="flask-jwt-gunicorn", title="Flask-JWT-Extended, block list (gunicorn)",
            command=gunicorn(f"{IN_PYTHON}.jwt_blocklist:app")),
    Contender("koa-jwt", "Koa, jsonwebtoken, as in the article", node("koa_jwt.js"), environ=NODE),
    Contender("express-session", "express-session, connect-redis", node("express_session.js"), environ=NODE),
    Contender("koa-ioredis", "Koa, ioredis, opaque tokens", node("koa_ioredis.js"), "/verify", environ=NODE),
    Contender("nginx-lua", "nginx, Lua, Redis", NGINX, "/verify", "plain"),
)  # fmt: skip
BY_NAME: Final = {contender.name: contender for contender in CONTENDERS}
