"""Device codes and their images: everyone can ask for them, so they must not take the place of logins."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import requests
import segno
from flask.testing import FlaskClient
from limits import parse
from werkzeug.test import TestResponse

from tests.conftest import APPID, Phone
from tests.support.clients import basic, problem, settings_with_clients
from tests.support.servers import wait_until
from wxauth.models import Secret
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.settings import Client, Settings
from wxauth.storage.client import RedisClient
from wxauth.web import rate_limits
from wxauth.web.app import create_app
from wxauth.web.services import session_store, wechat_client
from wxauth.wechat.transport import Transport

THREADS = 64
#: An eighth of the threads that may wait for WeChat.
SLOTS = 6
DESK = "desk"
SITE = "site"
SECRET = "a-client-secret-of-the-desk"


class SlowDrawing(FakeWeChat):
    """Draws an image only after `may_draw` is set."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.apps)
        self.may_draw = threading.Event()
        self.drawn = 0

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        if "getwxacodeunlimit" in (request.url or ""):
            self.drawn += 1
            self.may_draw.wait(10)
        return super().send(request, *args, **kwargs)


@pytest.fixture
def settings() -> Settings:
    clients = {DESK: Client(Secret(SECRET), None, DESK, scan_only=True)}
    sites = {SITE: Client(None, None, SITE, scan_only=True)}
    public: dict[str, Any] = {"public_url": "https://login.example.com", "threads": THREADS, "wechat_timeout": 8.0}
    return dataclasses.replace(settings_with_clients(), clients=clients, public_clients=sites, cache_size=0, **public)


@pytest.fixture
def drawing(settings: Settings) -> Iterator[SlowDrawing]:
    found = SlowDrawing(settings)
    yield found
    found.may_draw.set()


@pytest.fixture
def client(settings: Settings, drawing: SlowDrawing, raw_redis: redis.Redis) -> FlaskClient:
    wechat = wechat_client(settings, Transport(settings.wechat_url, drawing))
    store = session_store(settings, RedisClient(lambda: raw_redis))
    return create_app(settings, wechat=wechat, store=store).test_client()


def image_path(client: FlaskClient) -> str:
    headers = {"Authorization": basic(DESK, SECRET)}
    asked: Any = client.post("/device_authorization", data={"appid": APPID}, headers=headers).get_json()
    return f"/device/{asked['user_code']}.png"


def test_flood_for_images_leaves_the_slots_for_logins(client: FlaskClient, drawing: SlowDrawing) -> None:
    """Each caller waited in a slot for WeChat: one code and 48 connections refused all logins of a worker."""
    path, statuses = image_path(client), list[int]()
    app = client.application
    flood = [
        threading.Thread(target=lambda: statuses.append(app.test_client().get(path).status_code))
        for _ in range(THREADS)
    ]
    for thread in flood:
        thread.start()
    wait_until(lambda: drawing.drawn == 1 and statuses.count(503) == THREADS - SLOTS, "the refusals")
    assert Phone(client, drawing).try_to_log_in(appid=APPID).status_code == 200
    drawing.may_draw.set()
    for thread in flood:
        thread.join()
    assert statuses.count(200) == SLOTS
    assert client.get(path).status_code == 200


def test_images_of_an_address_are_limited_and_kept_ones_are_not_counted(
    client: FlaskClient, drawing: SlowDrawing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "IMAGES", parse("2 per 5 minutes"))
    drawing.may_draw.set()
    first, second, third = (image_path(client) for _ in range(3))
    assert [client.get(path).status_code for path in (first, first, first, second)] == [200, 200, 200, 200]
    answer = client.get(third)
    assert problem(answer) == (429, "rate_limited")
    assert 0 < int(answer.headers["Retry-After"]) <= 300
    assert client.get(third, environ_overrides={"REMOTE_ADDR": "192.0.2.9"}).status_code == 200


def test_qr_code_of_a_link_is_drawn_once(
    settings: Settings, raw_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some hundred requests a second for one code used up the processor."""
    settings = dataclasses.replace(settings, scan_link=True)
    client = create_app(settings, store=session_store(settings, RedisClient(lambda: raw_redis))).test_client()
    drawn, make = list[str](), segno.make

    def counting(link: str, **options: Any) -> Any:
        drawn.append(link)
        return make(link, **options)

    monkeypatch.setattr(segno, "make", counting)
    path = image_path(client)
    assert len({client.get(path).get_data() for _ in range(5)}) == 1
    assert len(drawn) == 1


def ask_as_site(client: FlaskClient, address: str) -> TestResponse:
    form = {"client_id": SITE, "appid": APPID}
    return client.post("/device_authorization", data=form, environ_overrides={"REMOTE_ADDR": address})


def test_codes_of_public_clients_are_limited_for_all_addresses_together(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One caller with a network of IPv6 filled Redis, and then all logins failed."""
    monkeypatch.setattr(rate_limits, "PUBLIC_CODES", parse("3 per 5 minutes"))
    answers = [ask_as_site(client, f"2001:db8:0:{number}::1") for number in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[3].get_json()["error"] == "rate_limited"
    assert answers[3].headers["RateLimit-Policy"] == '"service";q=3;w=300'
    assert image_path(client)
