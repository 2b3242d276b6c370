"""`python -m wxauth …` and `python app.py`. Must also serve where the configuration is broken."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import NoReturn

import click

from .settings import KEY_LENGTH, names_an_app

SANDBOX = (
    "exec granian --interface wsgi --host 127.0.0.1 --port ${PORT:-8000} --workers 1"
    " --blocking-threads 96 --http 1 --no-ws --workers-kill-timeout 10 --log-config wxauth/granian.json app:app"
)


@click.group()
def main() -> None:
    """A login service for WeChat mini programs."""


@main.command()
def keygen() -> None:
    """Print a new key for WXAUTH_SECRET_KEYS."""
    click.echo(secrets.token_urlsafe(KEY_LENGTH))


def start(root: Path) -> NoReturn:
    """Become the server: as the Procfile says where a mini program is configured, else the sandbox on loopback."""
    if names_an_app(os.environ) and not os.environ.get("WXAUTH_SANDBOX"):
        command = (root / "Procfile").read_text().removeprefix("web: ").strip()
    else:
        os.environ["WXAUTH_SANDBOX"] = "1"
        command = SANDBOX
        click.echo(f"The sandbox: a fake WeChat, no Redis. Open http://127.0.0.1:{os.environ.get('PORT') or 8000}/")
    os.chdir(root)
    # The servers' scripts lie beside the interpreter, also where nobody has activated its environment.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.execv("/bin/sh", ["sh", "-c", command])  # noqa: S606 - the command is our own file's, not a caller's
