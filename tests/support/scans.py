"""Logins by scan and by ticket, and Redis clients that lose a connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import redis
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import APPID, Phone
from tests.support.clients import CLIENT_SECRET, SECOND, basic, settings_with_clients
from wxauth.errors import StoreUnavailable, TokenInvalid
from wxauth.models import Secret
from wxauth.sessions.device_codes import DeviceCodes
from wxauth.sessions.store import SessionStore, WxSession
from wxauth.sessions.tickets import Tickets
from wxauth.settings import Client, Settings
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


PUBLIC_URL = "https://login.example.com"
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
#: A client for scans alone, and a public one; each once for all apps, once for the second.
DESK, DESK_SECOND = "desk", "desk-second"
SITE, SITE_SECOND = "site", "site-second"


def scan_settings(redis_port: int = 1, **more: Any) -> Settings:
    """Return settings with two apps, clients of all kinds and WXAUTH_PUBLIC_URL, without the session cache."""
    settings = settings_with_clients(redis_port)
    second = frozenset({SECOND})
    desks = {
        DESK: Client(Secret(CLIENT_SECRET), None, DESK, scan_only=True),
        DESK_SECOND: Client(Secret(CLIENT_SECRET), second, DESK_SECOND, scan_only=True),
    }
    named = {id: replace(client, id=id) for id, client in settings.clients.items()}
    sites = {
        SITE: Client(None, None, SITE, scan_only=True),
        SITE_SECOND: Client(None, second, SITE_SECOND, scan_only=True),
    }
    fields: dict[str, Any] = {"public_url": PUBLIC_URL, "cache_size": 0, "public_clients": sites, **more}
    return replace(settings, clients=named | desks, **fields)


class Website:
    """A website that logs users in by scan. It authenticates as a client, or sends its public id."""

    def __init__(self, client: FlaskClient, id: str = DESK, secret: str = CLIENT_SECRET) -> None:
        self.client = client
        self.id = id
        self.secret = secret

    def post(self, path: str, address: str = "192.0.2.77", **form: str) -> TestResponse:
        headers = {"Authorization": basic(self.id, self.secret)} if self.secret else {}
        fields = form if self.secret else {"client_id": self.id, **form}
        return self.client.post(path, data=fields, headers=headers, environ_overrides={"REMOTE_ADDR": address})

    def ask(self, appid: str = APPID, **more: str) -> dict[str, Any]:
        response = self.post("/device_authorization", appid=appid, **more)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.get_json()
        return found

    def poll(self, device_code: str) -> TestResponse:
        return self.post("/token", grant_type=GRANT_TYPE, device_code=device_code)

    def log_in(self, phone: Phone) -> str:
        """Log the user of the phone in by scan. Return the token."""
        asked = self.ask()
        answer = phone.post(f"/device/{asked['user_code']}", {"approve": True})
        assert answer.status_code == 204, answer.text
        token: str = self.poll(asked["device_code"]).get_json()["access_token"]
        return token


def oauth(response: TestResponse) -> tuple[int, str]:
    """Return status and error of an answer in the form of RFC 6749, 5.2."""
    assert response.mimetype == "application/json", response.mimetype
    body: dict[str, Any] = response.get_json()
    assert body.keys() <= {"error", "error_description"}, body
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    return response.status_code, body["error"]


def page_of(phone: Phone, device: str | None = None) -> str:
    """Return the token of a page in a `<web-view>` of the phone."""
    ticket = phone.post("/ticket").get_json()["ticket"]
    body = {"ticket": ticket} | ({"device": device} if device else {})
    token: str = phone.client.post("/login", json=body).get_json()["token"]
    return token
