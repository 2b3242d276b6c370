"""Logins by scan and by ticket, and Redis clients that lose a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

from wxauth.errors import StoreUnavailable, TokenInvalid
from wxauth.sessions.device_codes import DeviceCodes
from wxauth.sessions.store import SessionStore, WxSession
from wxauth.sessions.tickets import Tickets
from wxauth.storage.client import RedisClient

CONSOLE = "console"
NETWORK = "192.0.2.0/24"


def ask(codes: DeviceCodes, appid: str, client_id: str = CONSOLE) -> tuple[str, str]:
    """Return a new device_code and its user_code."""
    code, user_code = codes.request(client_id, appid, NETWORK)
    return code.reveal(), user_code


def log_in_by_scan(codes: DeviceCodes, phone: WxSession, client_id: str = CONSOLE) -> tuple[str, WxSession]:
    """Ask for a code, approve it on the phone, and poll. Return the token and its session."""
    code, user_code = ask(codes, phone.appid, client_id)
    codes.answer(user_code, phone, approve=True)
    token, session = codes.poll(code, client_id)
    return token.reveal(), session


def log_in_by_ticket(tickets: Tickets, phone: WxSession, device: str | None = None) -> tuple[str, WxSession]:
    token, session = tickets.redeem(tickets.issue(phone).reveal(), device)
    return token.reveal(), session


def outcome(act: Callable[[], object]) -> str:
    """Return the name of the error that `act` raises, or "ok"."""
    try:
        act()
    except Exception as error:
        return type(error).__name__
    return "ok"


def error_of(store: SessionStore, token: str) -> str:
    """Return the name of the error that a check of the token raises, or "ok"."""
    try:
        store.resolve(token, touch=False)
    except TokenInvalid as error:
        return type(error).__name__
    return "ok"


class RunsTwice(RedisClient):
    """Runs each script twice, and counts it as a retry: the connection was lost before the first reply."""

    def run(self, *arguments: Any, **options: Any) -> Any:
        super().run(*arguments, **options)
        self.retries += 1
        return super().run(*arguments, **options)


class LosesReplies(RedisClient):
    """Runs the scripts, and loses the reply of the script number `lost`, counted from 0, for good."""

    def __init__(self, raw: redis.Redis, lost: int) -> None:
        super().__init__(lambda: raw)
        self._left = lost

    def run(self, *arguments: Any, **options: Any) -> Any:
        found = super().run(*arguments, **options)
        self._left -= 1
        if self._left == -1:
            raise StoreUnavailable("unreachable")
        return found
