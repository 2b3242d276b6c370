"""The applications in `examples/`, each as its own process beside the service: one Redis, one answer everywhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.conftest import APP_SECRET, APPID, RING_KEY
from tests.rogue import Place, answering, at, dripping, nobody, saying
from tests.servers import RedisServer, Server, free_port, program
from tests.service import ROOT, Service, WeChatServer, environment

EXAMPLES = ROOT / "examples"
CLIENT = "shop:client-secret-that-nobody-may-see"


class Example(Server):
    """An example as its own first lines say to start it, on a port of its own."""

    def __init__(self, command: list[str], environ: dict[str, str], folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        bare = {"PATH": os.environ["PATH"], "PORT": str(self.port)}
        super().__init__(
            [part.replace("{port}", str(self.port)) for part in command], environ=bare | environ, cwd=folder
        )

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/orders", timeout=1).status_code == 401
        except requests.RequestException:
            return False


def flask_app(environ: dict[str, str]) -> Example:
    command = [sys.executable, "-m", "flask", "--app", "app", "run", "--port", "{port}"]
    return Example(command, environ | {"PYTHONPATH": str(ROOT)}, EXAMPLES / "flask_app")


def other_backend(wxauth_url: str, **more: str) -> Example:
    environ = {"WXAUTH_URL": wxauth_url, "WXAUTH_CLIENT": CLIENT, **more}
    return Example([program("node"), "server.mjs"], environ, EXAMPLES / "other_backend")


@dataclass
class House:
    """What runs beside each other, and a user who goes from one to the other."""

    service: str
    flask: str
    node: str
    wechat: WeChatServer
    redis: RedisServer

    def log_in(self, user: str = "alice") -> str:
        body = {"code": self.wechat.fake.wx_login(user)}
        token: str = requests.post(f"{self.service}/login", json=body, timeout=5).json()["token"]
        return token

    def doors(self) -> dict[str, str]:
        return {"service": f"{self.service}/session", "flask": f"{self.flask}/orders", "node": f"{self.node}/orders"}

    def statuses(self, token: str) -> dict[str, int]:
        return {name: ask(url, token).status_code for name, url in self.doors().items()}


def ask(url: str, token: str, scheme: str = "Bearer ") -> requests.Response:
    return requests.get(url, headers={"Authorization": f"{scheme}{token}"}, timeout=5)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with ExitStack() as stack:
        redis, wechat = stack.enter_context(RedisServer()), stack.enter_context(WeChatServer())
        environ = environment(redis.url, wechat.url, WXAUTH_CLIENTS=CLIENT)
        service = stack.enter_context(Service(environ))
        flask = stack.enter_context(flask_app(environ))
        node = stack.enter_context(other_backend(service.url))
        yield House(service.url, flask.url, node.url, wechat, redis)


EVERYWHERE = dict.fromkeys(("service", "flask", "node"), 200)
NOWHERE = dict.fromkeys(EVERYWHERE, 401)


def test_a_login_holds_everywhere(house: House) -> None:
    """Who has logged in at the service is known to both applications, by the same openid."""
    token = house.log_in()
    assert house.statuses(token) == EVERYWHERE
    assert len({ask(url, token).json()["openid"] for url in house.doors().values()}) == 1


@pytest.mark.parametrize("door", ["service", "flask"])
def test_a_logout_in_one_is_a_logout_in_the_other(door: str, house: House) -> None:
    """Wherever the user logs out, nobody takes the token from then on."""
    token = house.log_in()
    assert house.statuses(token) == EVERYWHERE
    root = {"service": house.service, "flask": house.flask}[door]
    assert requests.delete(f"{root}/session", headers={"Authorization": token}, timeout=5).status_code == 204
    assert house.statuses(token) == NOWHERE


@pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer nonsense", "Basic YTpi", "Bearer a&token=b"])
def test_nobody_else_is_let_in(authorization: str, house: House) -> None:
    """Without the token of a live session every door answers 401, with a challenge."""
    for url in house.doors().values():
        answer = requests.get(url, headers={"Authorization": authorization}, timeout=5)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_bare_token_is_taken_everywhere(house: House) -> None:
    """Much mini-program code sends the token without a scheme."""
    token = house.log_in()
    assert {ask(url, token, scheme="").status_code for url in house.doors().values()} == {200}


def test_another_app_s_user_is_nobody(house: House) -> None:
    """A backend that serves one mini program takes no other's users: their openids mean nothing to it."""
    with other_backend(house.service, WXAUTH_APPID="wxffffffffffffffff") as node:
        assert ask(f"{node.url}/orders", house.log_in()).status_code == 401
    with other_backend(house.service, WXAUTH_APPID=APPID) as node:
        assert ask(f"{node.url}/orders", house.log_in()).status_code == 200


ACTIVE = b'{"active": true, "sub": "o1", "client_id": "wx1"}'
UNKNOWN = {
    "nobody": nobody,
    "500": at(saying(b"HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n%b" % (len(ACTIVE), ACTIVE))),
    "redirect": at(saying(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")),
    "no-json": at(answering(b"<html>active</html>")),
    "no-object": at(answering(b"null")),
    "no-boolean": at(answering(b'{"active": "yes", "sub": "o1"}')),
    "no-subject": at(answering(b'{"active": true}')),
    "never-ends": at(dripping(b"HTTP/1.1 200 OK\r\n\r\n")),
}


@pytest.mark.parametrize("place", UNKNOWN.values(), ids=UNKNOWN)
def test_node_fails_closed(place: Place) -> None:
    """Where it can't be found out whose token it is, the answer is 503: never a pass, and never a logout."""
    with place() as url, other_backend(url) as node:
        answer = ask(f"{node.url}/orders", "wxa_some-token")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


def test_node_shows_its_credential_to_the_service_alone(house: House) -> None:
    """A wrong credential is the operator's matter: 503, and the user is not logged out for it."""
    with other_backend(house.service, WXAUTH_CLIENT="shop:wrong") as node:
        answer = ask(f"{node.url}/orders", house.log_in())
    assert (answer.status_code, "wrong" in answer.text) == (503, False)


def test_no_redis_is_no_logout() -> None:
    """While Redis is down all three answer 503 with Retry-After, which logs nobody out."""
    with WeChatServer() as wechat, RedisServer() as redis:
        environ = environment(redis.url, wechat.url, WXAUTH_CLIENTS=CLIENT, WEB_CONCURRENCY="1")
        with Service(environ) as service, flask_app(environ) as flask, other_backend(service.url) as node:
            house = House(service.url, flask.url, node.url, wechat, redis)
            token = house.log_in()
            redis.stop()
            answers = [ask(url, token) for url in house.doors().values()]
    assert [(answer.status_code, "Retry-After" in answer.headers) for answer in answers] == [(503, True)] * 3


def test_no_example_holds_a_secret() -> None:
    """What is copied from here holds no secret and no word about WeChat's."""
    texts = [path.read_text() for path in EXAMPLES.rglob("*") if path.suffix in (".py", ".mjs")]
    assert len(texts) == 2
    assert not any(word in text for text in texts for word in (APP_SECRET, RING_KEY, "session_key", "WECHAT_SECRET"))


def test_the_examples_are_short() -> None:
    """The Flask application is about twenty lines; the other one asks for no package."""
    lines = (EXAMPLES / "flask_app" / "app.py").read_text().splitlines()
    assert len([line for line in lines if line]) <= 25
    node = (EXAMPLES / "other_backend" / "server.mjs").read_text()
    assert [line for line in node.splitlines() if line.startswith("import")] == [
        "import { createServer } from 'node:http'"
    ]
