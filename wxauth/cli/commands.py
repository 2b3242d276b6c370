"""The commands of `python -m wxauth`, and the start of `python app.py`. Help works without a valid configuration."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

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
from ..settings import KEY_LENGTH, Settings, names_an_app
from ..web.extension import Services
from ..web.routes.sessions import session_json
from ..wechat.answers import OPENID
from ..wechat.errcodes import MEANINGS
from . import doctor
from .check_result import EXIT_CODES, printable, row, summary, worst

# Granian logs a warning if it has more threads than this.
SANDBOX = (
    "exec granian --interface wsgi --host 127.0.0.1 --port ${PORT:-8000} --workers 1"
    f" --blocking-threads {2 * (os.cpu_count() or 1) + 1}"
    " --http 1 --no-ws --workers-kill-timeout 10 --log-config wxauth/granian.json app:app"
)


class CommandFailed(click.ClickException):
    """The command could not be executed. Exit code 2."""

    exit_code = 2


@click.group()
def main() -> None:
    """A login service for WeChat mini programs.

    All commands read the same environment variables as the service. The service need not run.

    Exit codes: 0 success; 1 no such session, an outdated session_key, or a warning of doctor; 2 failure.
    """
    # The commands print their own messages. Without a handler, log events would appear on stderr.
    logging.getLogger("wxauth").addHandler(logging.NullHandler())


@main.command()
def keygen() -> None:
    """Print a new key for WXAUTH_SECRET_KEYS."""
    click.echo(secrets.token_urlsafe(KEY_LENGTH))


@main.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def run_doctor(context: click.Context, as_json: bool) -> None:
    """Check this installation and suggest fixes.

    Checks the configuration, the format of AppID and AppSecret, Redis, the clock, and whether WeChat accepts AppID
    and AppSecret. For the last check it sends an invalid code. If the configuration has errors, the rest is still
    checked where possible. Prints no secret.

    Exit codes: 0 no problem; 1 a warning; 2 a failure: users can't log in or stay logged in.
    """
    results = []
    for result in doctor.run_checks(os.environ):
        results.append(result)
        if not as_json:
            click.echo(row(result))
    if as_json:
        _print_json({"status": worst(results), "checks": [_without_none(asdict(it)) for it in results]})
    else:
        click.echo(f"\n{summary(results)}")
    context.exit(EXIT_CODES[worst(results)])


@main.command()
@click.argument("appid")
@click.argument("openid")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def sessions(appid: str, openid: str, as_json: bool) -> None:
    """List the sessions of a user, oldest first."""
    with _services(appid, openid) as (services, user):
        entries = services.store.sessions_of(user)
    if as_json:
        _print_json({"sessions": [session_json(entry) for entry in entries]})
        return
    for entry in entries:
        since = datetime.fromtimestamp(entry.created_at, UTC).strftime("%Y-%m-%d %H:%M:%S")
        click.echo(f"{entry.id}  {since} UTC  {printable(entry.device or '')}".rstrip())
    click.echo(f"{len(entries)} live", err=True)


@main.command()
@click.argument("appid")
@click.argument("openid")
@click.option("--id", help="End only this session; `sessions` lists the ids.")
def revoke(appid: str, openid: str, id: str | None) -> None:
    """End all sessions of a user, or one session."""
    with _services(appid, openid) as (services, user):
        if id is None:
            services.store.end_all(user)
        else:
            services.store.end(user, id)
    click.echo("Ended." if id else "All ended.")


@main.command()
@click.argument("appid")
@click.argument("openid")
def ban(appid: str, openid: str) -> None:
    """Ban a user: end all sessions, reject logins.

    The ban lasts until `unban`.
    """
    with _services(appid, openid) as (services, user):
        services.store.ban(user)
    click.echo("Banned.")


@main.command()
@click.argument("appid")
@click.argument("openid")
def unban(appid: str, openid: str) -> None:
    """Allow a user to log in again."""
    with _services(appid, openid) as (services, user):
        services.store.unban(user)
    click.echo("No longer banned.")


@main.command("check-session")
@click.argument("appid")
@click.argument("openid")
def check_session(appid: str, openid: str) -> None:
    """Check the session_key of a user at WeChat.

    Exit codes: 0 valid; 1 outdated or not stored, until the next login; 2 unknown.
    """
    with _services(appid, openid) as (services, user):
        services.user_api.check_session_key(user)
    click.echo("The stored session_key is valid.")


@main.command("reset-session-key")
@click.argument("appid")
@click.argument("openid")
def reset_session_key(appid: str, openid: str) -> None:
    """Replace the session_key of a user at WeChat.

    The service stores the new session_key. The old one is invalid immediately. The expiry does not change.

    Exit codes: 0 replaced; 1 the stored session_key is outdated or absent, and nothing was replaced; 2 failure.
    """
    with _services(appid, openid) as (services, user):
        services.user_api.reset_session_key(user)
    click.echo("Replaced.")


def start(root: Path) -> NoReturn:
    """Replace this process with the server.

    Runs the Procfile's command if a mini program is configured, and the sandbox on loopback if not.
    """
    if names_an_app(os.environ) and not os.environ.get("WXAUTH_SANDBOX"):
        command = (root / "Procfile").read_text().removeprefix("web: ").strip()
    else:
        os.environ["WXAUTH_SANDBOX"] = "1"
        command = SANDBOX
        click.echo("The sandbox: a fake WeChat and an in-memory Redis, reachable from this machine only.")
        click.echo(f"Open http://127.0.0.1:{os.environ.get('PORT') or 8000}/ in a browser.\n")
    os.chdir(root)
    # The server's script is next to the interpreter, also if the virtual environment is not activated.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.execv("/bin/sh", ["sh", "-c", command])  # noqa: S606 - the command is from our own file


@contextlib.contextmanager
def _services(appid: str, openid: str) -> Iterator[tuple[Services, User]]:
    """What the service uses, and the user. An error ends the command with a message and no traceback."""
    try:
        settings = Settings.from_env(os.environ)
        yield Services(settings), _user(settings, appid, openid)
    except ConfigurationError as error:
        raise CommandFailed(str(error)) from None
    except StoreUnavailable as error:
        raise CommandFailed(f"{error}{f'; {error.hint}' if error.hint else ''}") from None
    except SessionNotFound:
        raise click.ClickException("The user has no session with this id.") from None
    except SessionKeyStale:
        raise click.ClickException("The stored session_key is outdated, or none is stored.") from None
    except WeChatUnreachable as error:
        raise CommandFailed(f"WeChat did not answer ({error.reason}).") from None
    except WeChatError as error:
        meaning = MEANINGS.get(error.errcode or 0)
        raise CommandFailed(f"{error}: {meaning.english}\n{meaning.chinese}" if meaning else str(error)) from None


def _user(settings: Settings, appid: str, openid: str) -> User:
    if settings.sandbox:
        raise CommandFailed("The sandbox has its sessions in the memory of its own process.")
    if appid not in settings.apps:
        raise CommandFailed("This AppID is not configured.")
    if not OPENID.fullmatch(openid):
        raise CommandFailed("This is not an openid.")
    return User(appid, openid)


def _print_json(content: dict[str, object]) -> None:
    click.echo(json.dumps(content, ensure_ascii=False, indent=2))


def _without_none(content: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in content.items() if value is not None}
