"""The commands of `python -m wxauth`, and the start of `python app.py`. Help works without a valid configuration."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import json
import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import click

from ..errors import SessionKeyStale, SessionNotFound, StoreUnavailable, WeChatError, WxAuthError
from ..models import User
from ..settings import KEY_LENGTH, Settings, production_names
from ..web.admin.doctor import CheckResult, explain, run_checks
from ..web.extension import sandbox
from ..web.routes.sessions import session_json
from ..web.services import Services
from ..wechat.answers import OPENID

try:
    import fcntl
except ImportError:  # Windows, where all commands but `serve` work
    fcntl = None  # type: ignore[assignment]

#: The address belongs to no network of this machine, or to a version of IP that it does not have.
NOT_AN_ADDRESS_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
#: One heap for all threads, in glibc and in Granian's jemalloc. No thread keeps a freed block of more than 1 KiB for
#: itself (2**10 bytes), and free pages go back to the system after 100 ms. By default, callers that do not read their
#: answers take more memory, and it stays taken.
HEAPS: Final = {"MALLOC_ARENA_MAX": "1", "_RJEM_MALLOC_CONF": "narenas:1,lg_tcache_max:10,dirty_decay_ms:100"}

#: A skipped check is no problem.
EXIT_CODES: Final = {"ok": 0, "skipped": 0, "warning": 1, "failure": 2}


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
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The encoding of a Windows console may have no Chinese letters.
        sys.stdout.reconfigure(errors="replace")


def user_command(function: Callable[..., None]) -> click.Command:
    """Make a command about a user: its arguments are APPID and OPENID. An error ends it without a traceback."""

    @main.command()
    @click.argument("appid")
    @click.argument("openid")
    @functools.wraps(function)
    def command(appid: str, openid: str, **options: Any) -> None:
        with _click_errors():
            settings = _settings()
            function(Services(settings), _user(settings, appid, openid), **options)

    return command


@main.command()
def keygen() -> None:
    """Print a new key for WXAUTH_SECRET_KEYS."""
    click.echo(secrets.token_urlsafe(KEY_LENGTH))


@main.command()
@click.option(
    "--port", envvar="PORT", type=click.IntRange(1, 65535), default=8000, show_default=True, show_envvar=True
)
@click.option(
    "--workers", envvar="WEB_CONCURRENCY", type=click.IntRange(1), default=2, show_default=True, show_envvar=True
)
def serve(port: int, workers: int) -> None:
    """Start the service on the address WXAUTH_HOST.

    With WXAUTH_SANDBOX=1, start the sandbox, which listens on 127.0.0.1 only.
    """
    if fcntl is None:
        raise CommandFailed("The server runs on Linux and macOS; on Windows use WSL.")
    if find_spec("granian") is None:
        raise CommandFailed("The server is not installed: pip install 'wxauth[service]'.")
    with _click_errors():
        settings = Settings.from_env(os.environ)
        if settings.sandbox:
            sandbox()
    host, threads = settings.host, settings.threads
    if settings.sandbox:
        # Its Redis is in the memory of one process.
        host, workers = "127.0.0.1", 1
    _check_port(host, port)
    _lock_port(port)
    if settings.sandbox:
        click.echo("The sandbox: a fake WeChat and an in-memory Redis, reachable from this machine only.")
        click.echo(f"Open http://127.0.0.1:{port}/ in a browser.\n")
    for name, value in HEAPS.items():
        os.environ.setdefault(name, value)
    numbers = map(str, (port, workers, threads))
    command = [sys.executable, "-m", "wxauth.cli.server", "wxauth.wsgi:app", host, *numbers, *_metrics_folder(port)]
    os.execv(sys.executable, command)  # noqa: S606 - the command is our own


@main.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def run_doctor(context: click.Context, as_json: bool) -> None:
    """Check this installation and suggest fixes.

    Checks the configuration, Redis, the clock, and whether WeChat accepts AppID and AppSecret. For the last check
    it sends an invalid code. If the configuration has errors, the rest is still checked where possible.
    Prints no secret.

    Exit codes: 0 no problem; 1 a warning; 2 a failure: users can't log in or stay logged in.
    """
    results = list(run_checks(os.environ))
    worst = max(results, key=lambda result: EXIT_CODES[result.status]).status
    if as_json:
        checks = [{name: value for name, value in asdict(it).items() if value is not None} for it in results]
        _print_json({"status": worst, "checks": checks})
    else:
        click.echo("\n".join(map(_row, results)))
    context.exit(EXIT_CODES[worst])


@user_command
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def sessions(services: Services, user: User, as_json: bool) -> None:
    """List the sessions of a user, oldest first."""
    entries = services.store.sessions_of(user)
    if as_json:
        _print_json({"sessions": [session_json(entry) for entry in entries]})
        return
    for entry in entries:
        since = datetime.fromtimestamp(entry.created_at, UTC).strftime("%Y-%m-%d %H:%M:%S")
        click.echo(f"{entry.id}  {since} UTC  {_printable(entry.device or '')}".rstrip())


@user_command
@click.option("--id", help="End only this session; `sessions` lists the ids.")
def revoke(services: Services, user: User, id: str | None) -> None:
    """End all sessions of a user, or one session."""
    if id is None:
        services.store.end_all(user)
    else:
        services.store.end(user, id)
    click.echo("Ended." if id else "All ended.")


@user_command
def ban(services: Services, user: User) -> None:
    """Ban a user: end all sessions, reject logins.

    The ban lasts until `unban`.
    """
    services.store.ban(user)
    click.echo("Banned.")


@user_command
def unban(services: Services, user: User) -> None:
    """Allow a user to log in again."""
    services.store.unban(user)
    click.echo("No longer banned.")


@user_command
def check_session(services: Services, user: User) -> None:
    """Check the session_key of a user at WeChat.

    Exit codes: 0 valid; 1 outdated or not stored, until the next login; 2 unknown.
    """
    services.user_api.check_session_key(user)
    click.echo("The stored session_key is valid.")


@user_command
def reset_session_key(services: Services, user: User) -> None:
    """Replace the session_key of a user at WeChat.

    The service stores the new session_key. The old one is invalid immediately. The expiry does not change.

    Exit codes: 0 replaced; 1 the stored session_key is outdated or absent, and nothing was replaced; 2 failure.
    """
    services.user_api.reset_session_key(user)
    click.echo("Replaced.")


@main.command()
@click.option("--delete", is_flag=True, help="Delete them. Without this option they are only counted.")
def prune(delete: bool) -> None:
    """Count the hashes of users in Redis that no key in WXAUTH_SECRET_KEYS opens.

    They are left when a key is dropped. No token is valid for them, and no purge reaches them. They expire
    WXAUTH_IDLE_TTL after their last use. All services on this Redis must have the same keys: the hashes of another
    key count too.
    """
    with _click_errors():
        store = Services(_settings()).store
        names = set(store.orphans())
        if delete:
            for name in names:
                store.redis.delete(name)
    click.echo(f"{len(names)} deleted." if delete else f"{len(names)} found. Delete them with --delete.")


def start(root: Path) -> None:
    """Run `serve` in the folder of `python app.py`. Without a real installation's variables it is the sandbox."""
    if not production_names(os.environ) and not os.environ.get("WXAUTH_SANDBOX"):
        os.environ["WXAUTH_SANDBOX"] = "1"
    os.chdir(root)
    main(["serve"], prog_name="python -m wxauth")


def _check_port(host: str, port: int) -> None:
    """Raises CommandFailed if another server has the port. Granian would share it with another Granian.

    Like Granian's, the socket of `::` takes IPv4 connections too.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family, dualstack_ipv6=host == "::").close()
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        name = "WXAUTH_HOST" if error.errno in NOT_AN_ADDRESS_HERE else "PORT"
        raise CommandFailed(f"Cannot listen on port {port}: {reason}; set {name} to use another.") from None


def _lock_port(port: int) -> None:
    """Hold a lock until the server ends. Of two starts at the same moment both would find the port free."""
    path = Path(tempfile.gettempdir(), f"wxauth-{os.getuid()}-{port}.lock")
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CommandFailed(f"Cannot listen on port {port}: another start has it; set PORT to use another.") from None
    os.set_inheritable(lock, True)


def _metrics_folder(port: int) -> list[str]:
    """Make a folder for the metrics of the workers. Return it if the server has to remove it."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return []
    try:
        folder = Path(tempfile.gettempdir(), f"wxauth-metrics-{os.getuid()}-{port}")
        # It is still there if the last server on this port was killed.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
    except OSError:
        os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
        click.echo("No folder for temporary files: /metrics has the numbers of one worker only.", err=True)
        return []
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    return [str(folder)]


@contextlib.contextmanager
def _click_errors() -> Iterator[None]:
    """End the command with one message instead of a traceback."""
    try:
        yield
    except WxAuthError as error:
        raise _as_click_error(error) from None


def _settings() -> Settings:
    settings = Settings.from_env(os.environ)
    if settings.sandbox:
        raise CommandFailed("The sandbox has its sessions in the memory of its own process.")
    return settings


def _user(settings: Settings, appid: str, openid: str) -> User:
    if appid not in settings.apps or not OPENID.fullmatch(openid):
        raise CommandFailed("The AppID is not configured, or the openid is invalid.")
    return User(appid, openid)


def _as_click_error(error: WxAuthError) -> click.ClickException:
    if isinstance(error, SessionNotFound | SessionKeyStale):
        return click.ClickException(error.detail)
    if isinstance(error, WeChatError):
        return CommandFailed("\n".join(explain(error)))
    hint = error.hint if isinstance(error, StoreUnavailable) else None
    return CommandFailed(f"{error}; {hint}" if hint else str(error))


def _row(result: CheckResult) -> str:
    """Return one result for a terminal: status, check and text, with the Chinese text below the English one."""
    text = f"{result.app}: {result.english}" if result.app else result.english
    row = f"{result.status:<9}{result.check:<18}{_printable(text)}"
    return f"{row}\n{'':27}{_printable(result.chinese)}" if result.chinese else row


def _printable(text: str) -> str:
    """Replace control characters, which could move the cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _print_json(content: dict[str, object]) -> None:
    click.echo(json.dumps(content, indent=2))
