"""Clients for the tests: one that may ask about every app, one limited to an app."""

from __future__ import annotations

import base64
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import APP_SECRET, APPID, RING_KEY
from wxauth.models import Secret
from wxauth.settings import Client, Settings

SECOND = "wxsecond"
BACKEND = "shop"
LIMITED = "second-only"
CLIENT_SECRET = "client-secret-that-must-not-be-shown"


def basic(id: str = BACKEND, secret: str = CLIENT_SECRET) -> str:
    return f"Basic {base64.b64encode(f'{id}:{secret}'.encode()).decode()}"


def settings_with_clients(redis_port: int = 1) -> Settings:
    """Return settings with two apps and both clients."""
    apps = {APPID: Secret(APP_SECRET), SECOND: Secret(APP_SECRET)}
    clients = {
        BACKEND: Client(Secret(CLIENT_SECRET), None),
        LIMITED: Client(Secret(CLIENT_SECRET), frozenset({SECOND})),
    }
    return Settings(apps, (Secret(RING_KEY),), Secret(f"redis://127.0.0.1:{redis_port}/0"), clients=clients)


def post(client: FlaskClient, path: str, token: str, authorization: str | None = None) -> TestResponse:
    return client.post(path, data={"token": token}, headers={"Authorization": authorization or basic()})


def ask(client: FlaskClient, method: str, path: str, authorization: str | None = None) -> TestResponse:
    return client.open(path, method=method, headers={"Authorization": authorization or basic()})


def problem(response: TestResponse) -> tuple[int, str]:
    body: Any = response.get_json()
    return response.status_code, body["code"]
