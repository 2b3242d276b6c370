"""`python -m wxauth …` and `python app.py`. Must also serve where the configuration is broken."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

import click

from ..errors import (
    ConfigurationError,
    SessionKeyStale,
    SessionNotFound,
    StoreUnavailable,
    WeChatError,
    WeChatUnreachable,
)
from ..models import User
from ..sessions.store import SessionStore
from ..sessions.user_api import UserApi
from ..settings import KEY_LENGTH, Settings, names_an_app
from ..web.extension import redis_client, session_store, user_api, wechat_client
from ..web.routes.sessions import session_json
from ..wechat.answers import OPENID
from ..wechat.errcodes import MEANINGS
from ..wechat.transport import Transport
from . import doctor
from .check_result import EXIT_CODES, FAILURE, OK, SKIPPED, WARNING, CheckResult, worst

# For one person: with more threads than this, a warning of Granian's is the first that a newcomer sees.
SANDBOX = (
    "exec granian --interface wsgi --host 127.0.0.1 --port ${PORT:-8000} --workers 1"
    f" --blocking-threads {2 * (os.cpu_count() or 1) + 1}"
    " --http 1 --no-ws --workers-kill-timeout 10 --log-config wxauth/granian.json app:app"
)


COLOURS: Final = {OK: "green", SKIPPED: None, WARNING: "yellow", FAILURE: "red"}
STATUS_WIDTH: Final = 9
CHECK_WIDTH: Final = 16
WIDEST: Final = 110


class Failure(click.ClickException):
    """The command could not be carried out."""

    exit_code = 2


@click.group()
def main() -> None:
    """A login service for WeChat mini programs.

    Every command takes its configuration from the environment alone, as the service does, and needs no running
    service. Exit codes: 0 done; 1 there is no such session, the session_key is not WeChat's, or a warning of
    doctor's; 2 it could not be done.
    """
    # What happened is told by the commands, not by stray lines of the log.
    logging.getLogger("wxauth").addHandler(logging.NullHandler())


@main.command()
def keygen() -> None:
    """Print a new key for WXAUTH_SECRET_KEYS."""
    click.echo(secrets.token_urlsafe(KEY_LENGTH))


@main.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
@click.pass_context
def examine(context: click.Context, as_json: bool) -> None:
    """Say what is wrong with this set-up, and how to hint it.

    Looks at the configuration, the shape of AppID and AppSecret, Redis, the clock, and whether WeChat takes AppID and
    AppSecret; for that it sends a code that can't be valid. A broken configuration is told, and what it leaves
    usable is looked at too. No secret is printed.

    Exit codes: 0 all is well; 1 there is a warning; 2 there is a failure: users can't log in, or stay logged in.
    """
    if as_json:
        results = list(doctor.run_checks(os.environ))
        _print_json({"status": worst(results), "checks": [_without_none(asdict(it)) for it in results]})
    else:
        results = []
        for result in doctor.run_checks(os.environ):
            results.append(result)
            click.echo(_row(result))
        click.echo(f"\n{_summary(results)}")
    context.exit(EXIT_CODES[worst(results)])


@main.command()
@click.argument("appid")
@click.argument("openid")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
def sessions(appid: str, openid: str, as_json: bool) -> None:
    """List a user's live sessions, oldest first."""
    with _store(appid, openid) as (store, user):
        entries = store.sessions_of(user)
    if as_json:
        _print_json({"sessions": [session_json(entry) for entry in entries]})
        return
    for entry in entries:
        since = datetime.fromtimestamp(entry.created_at, UTC).strftime("%Y-%m-%d %H:%M:%S")
        click.echo(f"{entry.id}  {since} UTC  {_printable(entry.device or '')}".rstrip())
    click.echo(f"{len(entries)} live", err=True)


@main.command()
@click.argument("appid")
@click.argument("openid")
@click.option("--id", help="End this one alone; `sessions` lists the ids.")
def revoke(appid: str, openid: str, id: str | None) -> None:
    """End all sessions of a user, or one."""
    with _store(appid, openid) as (store, user):
        if id is None:
            store.end_all(user)
        else:
            store.end(user, id)
    click.echo("Ended." if id else "All ended.")


@main.command()
@click.argument("appid")
@click.argument("openid")
def ban(appid: str, openid: str) -> None:
    """End all sessions of a user and refuse every login, until `unban`."""
    with _store(appid, openid) as (store, user):
        store.ban(user)
    click.echo("Banned.")


@main.command()
@click.argument("appid")
@click.argument("openid")
def unban(appid: str, openid: str) -> None:
    """Let a user log in again."""
    with _store(appid, openid) as (store, user):
        store.unban(user)
    click.echo("No longer banned.")


@main.command("check-session")
@click.argument("appid")
@click.argument("openid")
def check_session(appid: str, openid: str) -> None:
    """Ask WeChat whether the user's session_key that is kept here is still the one.

    Exit codes: 0 it is; 1 it is not, or none is kept: the next login brings the right one; 2 that is not known.
    """
    with _wechat(appid, openid) as (wechat, user):
        wechat.check_session_key(user)
    click.echo("WeChat takes the session_key that is kept here.")


@main.command("reset-session-key")
@click.argument("appid")
@click.argument("openid")
def reset_session_key(appid: str, openid: str) -> None:
    """Have WeChat replace a user's session_key, and keep the new one. The old one is dead at once, its end stays.

    Exit codes: 0 done; 1 the one kept here is not WeChat's, or none is kept: nothing was replaced; 2 it could not be
    done.
    """
    with _wechat(appid, openid) as (wechat, user):
        wechat.reset_session_key(user)
    click.echo("Replaced.")


def start(root: Path) -> NoReturn:
    """Become the server: as the Procfile says where a mini program is configured, else the sandbox on loopback."""
    if names_an_app(os.environ) and not os.environ.get("WXAUTH_SANDBOX"):
        command = (root / "Procfile").read_text().removeprefix("web: ").strip()
    else:
        os.environ["WXAUTH_SANDBOX"] = "1"
        command = SANDBOX
        click.echo("The sandbox: a fake WeChat and a Redis in memory, for this machine alone.")
        click.echo(f"Open http://127.0.0.1:{os.environ.get('PORT') or 8000}/ in a browser.\n")
    os.chdir(root)
    # The servers' scripts lie beside the interpreter, also where nobody has activated its environment.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.execv("/bin/sh", ["sh", "-c", command])  # noqa: S606 - the command is our own file's, not a caller's


@contextlib.contextmanager
def _store(appid: str, openid: str) -> Iterator[tuple[SessionStore, User]]:
    """The store that the service has, and the user that is meant; whatever goes wrong is told without a traceback."""
    with _told():
        settings = Settings.from_env(os.environ)
        yield session_store(settings, redis_client(settings)), _user(settings, appid, openid)


@contextlib.contextmanager
def _wechat(appid: str, openid: str) -> Iterator[tuple[UserApi, User]]:
    """As `_store`, for what WeChat is asked about the user."""
    with _told():
        settings = Settings.from_env(os.environ)
        wechat = wechat_client(settings, Transport(settings.wechat_url))
        store = session_store(settings, redis_client(settings))
        yield user_api(settings, wechat, store), _user(settings, appid, openid)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except ConfigurationError as error:
        raise Failure(str(error)) from None
    except StoreUnavailable as error:
        raise Failure(f"{error}{f'; {error.hint}' if error.hint else ''}") from None
    except SessionNotFound:
        raise click.ClickException("This user has no live session of that id.") from None
    except SessionKeyStale:
        raise click.ClickException("No session_key that is kept here is the one that WeChat has.") from None
    except WeChatUnreachable as error:
        raise Failure(f"WeChat gave no answer ({error.reason}).") from None
    except WeChatError as error:
        meaning = MEANINGS.get(error.errcode or 0)
        raise Failure(f"{error}: {meaning.english}\n{meaning.chinese}" if meaning else str(error)) from None


def _user(settings: Settings, appid: str, openid: str) -> User:
    if settings.sandbox:
        raise Failure("The sandbox keeps its sessions in its own memory; nobody else can reach them.")
    if appid not in settings.apps:
        raise Failure("This AppID is not configured here.")
    if not OPENID.fullmatch(openid):
        raise Failure("This is no openid.")
    return User(appid, openid)


def _row(result: CheckResult) -> str:
    """One result as people read it: status, check, what was found; the Chinese below the English."""
    status = click.style(f"{result.status:<{STATUS_WIDTH}}", fg=COLOURS[result.status])
    check = f"{result.check:<{CHECK_WIDTH}} "
    margin = STATUS_WIDTH + len(check)
    width = max(min(shutil.get_terminal_size().columns, WIDEST) - margin, 30)
    found = f"{result.app}: {result.english}" if result.app else result.english
    lines = textwrap.wrap(_printable(found), width, break_on_hyphens=False)
    # A terminal breaks Chinese by itself; textwrap would count each character as one column.
    lines += [_printable(result.chinese)] if result.chinese else []
    return status + check + f"\n{' ' * margin}".join(lines)


def _summary(results: list[CheckResult]) -> str:
    counts = [(status, sum(it.status == status for it in results)) for status in (FAILURE, WARNING)]
    told = [f"{count} {status}{'s' if count > 1 else ''}" for status, count in counts if count]
    return ", ".join(told) if told else "All is well."


def _printable(text: str) -> str:
    """Without what would move the cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _print_json(found: dict[str, object]) -> None:
    click.echo(json.dumps(found, ensure_ascii=False, indent=2))


def _without_none(found: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in found.items() if value is not None}
