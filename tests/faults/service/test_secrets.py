"""I7: no planted secret is in a log, an answer, a `repr`, an argument or a file of Redis, in any spelling."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import requests

from tests.conftest import APP_SECRET, APPID, RING_KEY
from tests.faults.conftest import Run
from tests.faults.support.driver import Load, Person
from tests.faults.support.history import Call
from tests.faults.support.leaks import arguments, hits, random_part
from tests.faults.support.relay import Relay
from tests.faults.support.rig import ObservedService
from tests.support.scans import GRANT_TYPE
from tests.support.servers import RedisServer
from tests.support.service import Service, WeChatServer, environment
from wxauth.errors import StoreUnavailable
from wxauth.settings import Settings
from wxauth.web.services import redis_client, session_store

PASSWORD = "redis/password+that no one?may=see"
CLIENT_SECRET = "client-secret-that-must-stay-secret"
DURABLE = ("--requirepass", PASSWORD, "--appendonly", "yes", "--save", "3600 1", "--loglevel", "debug")
GRANTED = ["device_code", "ticket", "token by scan", "token of a page"]
OUTCOMES = ("40029", "40163", "40226", "45011", "-1", "garbage", "stall")


class Trail:
    """Send requests and collect the answers, without the token that each request carried."""

    def __init__(self, service: Service, wechat: WeChatServer) -> None:
        self._service = service
        self.wechat = wechat
        self.answers = b""
        self.codes: list[str] = []
        self.numbers: list[str] = []
        #: What a scan and a ticket gave: may be in one answer only.
        self.granted: dict[str, str] = {}

    def ask(self, method: str, path: str, token: str = "", **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = requests.request(method, self._service.url + path, headers=headers, timeout=10, **more)
        self.answers += repr(answer.headers).encode() + answer.content.replace(token.encode() or b"\0", b"")
        return answer

    def log_in(self, user: str, outcome: str | None = None) -> str:
        code = self.wechat.fake.wx_login(user, outcome)
        self.codes.append(code)
        answer = self.ask("POST", "/login", json={"code": code})
        token = str(answer.json().get("token", ""))
        self.answers = self.answers.replace(token.encode() or b"\0", b"")
        return token

    def keep(self, name: str, answer: requests.Response, member: str) -> str:
        """Note a secret that this answer gave. It may be in no other."""
        secret = str(answer.json()[member])
        self.granted[f"{name} {len(self.granted)}"] = secret
        self.answers = self.answers.replace(secret.encode(), b"")
        return secret

    def log_in_by_scan(self, phone: str, *, approve: bool = True) -> None:
        """Leave an open code too, and one that is answered and not polled."""
        basic, form = ("desk", CLIENT_SECRET), {"grant_type": GRANT_TYPE}
        for steps in range(3):
            asked = self.ask("POST", "/device_authorization", auth=basic)
            code, path = self.keep("device_code", asked, "device_code"), f"/device/{asked.json()['user_code']}"
            self.ask("GET", path, phone)
            self.ask("GET", f"{path}.png")
            if steps:
                self.ask("POST", path, phone, json={"approve": approve})
            polled = self.ask("POST", "/token", auth=basic, data={**form, "device_code": code})
            if steps == 1:
                self.ask("POST", "/token", auth=basic, data={**form, "device_code": code})
            if polled.ok:
                self.keep("token by scan", polled, "access_token")

    def log_in_by_ticket(self, phone: str) -> None:
        """Use one ticket twice, and leave one open."""
        for times in (2, 0):
            ticket = self.keep("ticket", self.ask("POST", "/ticket", phone), "ticket")
            pages = [self.ask("POST", "/login", json={"ticket": ticket}) for _ in range(times)]
            for page in pages[:1]:
                self.keep("token of a page", page, "token")

    def tap_phone_button(self, user: str, token: str) -> None:
        code = self.wechat.fake.tap_phone_button(user, APPID)
        self.codes.append(code)
        answer = self.ask("POST", "/phone", token, json={"code": code})
        self.numbers += [answer.json()["phoneNumber"]] if answer.ok else []


def walk(trail: Trail) -> list[str]:
    """Call every route with every outcome of a login, and with bad requests. Return the tokens."""
    first, second = trail.log_in("planted"), trail.log_in("planted")
    for outcome in OUTCOMES:
        trail.log_in("planted", outcome)
    for path in ("/session", "/sessions", "/readyz", "/healthz", "/openapi.yaml", f"/nowhere/{first}"):
        trail.ask("GET", path, first)
    trail.ask("GET", f"/session?access_token={first}")
    trail.ask("GET", "/session", first[:-1])
    trail.ask("POST", "/login", json={"code": f"x&secret={first}"})
    trail.ask("POST", "/introspect", auth=("backend", CLIENT_SECRET), data={"token": first})
    for secret in (CLIENT_SECRET, CLIENT_SECRET[1:]):
        fields = {"client_id": "backend", "client_secret": secret}
        trail.ask("POST", "/introspect", data={"token": first, **fields})
    trail.tap_phone_button("planted", first)
    trail.tap_phone_button("another user", first)
    given = trail.wechat.fake.wx_get_user_profile(APPID, "planted")
    trail.ask("POST", "/userdata/decrypt", first, json={name: given[name] for name in ("encryptedData", "iv")})
    trail.ask("POST", "/userdata/verify", first, json={name: given[name] for name in ("rawData", "signature")})
    trail.log_in_by_scan(first)
    trail.log_in_by_scan(first, approve=False)
    trail.log_in_by_ticket(first)
    trail.ask("DELETE", "/session", second)
    return [first, second]


def break_everything(trail: Trail, redis: Relay, wechat: Relay, tokens: list[str]) -> None:
    """Cut Redis and WeChat off in turn, then spoil the replies of Redis."""
    for relay in (redis, wechat):
        relay.refuse()
        relay.cut()
        trail.ask("GET", "/session", tokens[0])
        trail.log_in("planted")
        relay.accept()
    redis.odds = {"flip": 0.5, "swap": 0.5}
    for _ in range(10):
        trail.ask("GET", "/session", tokens[0])
        trail.log_in("planted")
    redis.odds = {}


def left_behind(service: Service, redis: RedisServer) -> Iterator[tuple[str, bytes]]:
    yield "the log", service.output().encode()
    for path in redis.folder.rglob("*"):
        if path.is_file():
            yield f"redis' {path.name}", path.read_bytes()
    for arguments_of_one in arguments(service.process.pid):
        yield "a process' arguments", arguments_of_one


def of_the_users(calls: list[Call], people: list[Person], trail: Trail, tokens: list[str]) -> dict[str, str]:
    """Return what may only be in an answer to that user."""
    given = [call.token_id for call in calls if call.operation == "login" and call.token_id]
    found = {f"token {number}": token for number, token in enumerate([*tokens, *given])}
    found |= trail.granted
    found |= {f"bits of {name}": random_part(token) for name, token in found.items()}
    found |= {f"code {number}": code for number, code in enumerate(trail.codes)}
    found |= {f"phone number {number}": phone for number, phone in enumerate(trail.numbers)}
    return found | {f"openid {number}": person.openid for number, person in enumerate(people)}


def test_service_leaves_no_secret_in_logs_answers_arguments_or_redis(run: Run) -> None:
    """The log level is DEBUG. Every outcome and an outage of both neighbours are tried."""
    with RedisServer(*DURABLE) as redis, WeChatServer() as wechat:
        port = int(wechat.url.rpartition(":")[2])
        with Relay(redis.port, run.seed) as to_redis, Relay(port, run.seed) as to_wechat:
            url = f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{to_redis.port}/0"
            more = {"WXAUTH_LOG_LEVEL": "debug", "WXAUTH_WECHAT_TIMEOUT": "0.5"}
            more["WXAUTH_CLIENTS"] = f"backend:{CLIENT_SECRET},desk!scan:{CLIENT_SECRET}"
            more["WXAUTH_PUBLIC_URL"] = "https://login.example.com"
            wechat_url = f"http://127.0.0.1:{to_wechat.port}"
            with ObservedService(url, wechat, **more, WXAUTH_WECHAT_URL=wechat_url) as service:
                trail = Trail(service, wechat)
                tokens = walk(trail)
                load = Load(service.url, wechat, seed=run.seed, threads=4)
                load.run(run.of(300, 20_000))
                break_everything(trail, to_redis, to_wechat, tokens)
                with redis.client() as admin:
                    admin.execute_command("AUTH", PASSWORD)
                    admin.save()
                ours = {"app secret": APP_SECRET, "ring key": RING_KEY, "redis password": PASSWORD}
                ours["client secret"] = CLIENT_SECRET
                ours["access token"] = wechat.fake.api.newest_access_token(APPID)
                keys = {key for key, _ in wechat.fake._session_keys.values()}
                ours |= {f"session_key {number}": key for number, key in enumerate(keys)}
                theirs = of_the_users(load.calls, load.people, trail, tokens)
                places = list(left_behind(service, redis))
                found = [hit for place, content in places for hit in hits(ours | theirs, place, content)]
                found += hits(ours, "an answer", trail.answers)
                searched = f"{len(ours | theirs)} secrets in {len(places) + 1} places"
                run.figure("I7", f"found, {searched}", len(found), 0)
                assert {"redis' dump.rdb", "the log"} <= {place for place, _ in places}
                assert len(tokens[0]) > 90
                assert len(trail.numbers) == 1
                assert sorted({name.rpartition(" ")[0] for name in trail.granted}) == GRANTED
                assert found == []


def test_repr_of_settings_store_and_errors_shows_no_secret() -> None:
    more = {"WXAUTH_CLIENTS": f"backend:{CLIENT_SECRET}"}
    settings = Settings.from_env(
        environment(f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:1/0", "http://127.0.0.1:1", **more)
    )
    redis = redis_client(settings)
    with pytest.raises(StoreUnavailable) as caught:
        redis.health()
    shown = "".join(map(repr, (settings, redis, vars(redis), session_store(settings, redis), caught.value)))
    planted = {"app": APP_SECRET, "ring": RING_KEY, "password": PASSWORD, "client": CLIENT_SECRET}
    assert hits(planted, "a repr", shown.encode()) == []


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_search_finds_a_secret_in_each_spelling(before: str) -> None:
    """`before` moves the secret within its base64."""
    secret = "planted/secret+of these=days"
    text = f"{before}{secret}{before}"
    ways = [text, quote(text, safe=""), text.encode().hex(), base64.b64encode(text.encode()).decode()]
    assert all(hits({"it": secret}, "here", way.encode()) for way in ways)
    assert hits({"it": secret}, "here", b"nothing of the kind") == []
