"""Test the applications in `examples/`: each runs as a process beside the service, with the same Redis."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.conftest import APP_SECRET, APPID, RING_KEY
from tests.support.rogue import Line, Place, Rogue, Script, answering, at, dripping, nobody, saying
from tests.support.servers import RedisServer, Server, free_port, program
from tests.support.service import ROOT, Service, WeChatServer, await_end, environment

DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples"
BACKENDS = ("flask_app", "other_backend", "fastapi_app", "express_app")
NODE_MODULES = ROOT / "tests" / "miniprogram" / "node_modules"
CLIENT = "shop:client-secret-that-nobody-may-see"


PROBE = """
from app import app
from flask import request


@app.get("/environ")
def environ():
    return {name: str(value) for name, value in request.environ.items()}
"""


class Example(Server):
    """An example, started by the command in its first lines, on a free port."""

    def __init__(self, command: list[str], environ: dict[str, str], folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        bare = {"PATH": os.environ["PATH"], "PORT": str(self.port)}
        super().__init__(
            [part.replace("{port}", str(self.port)) for part in command], environ=bare | environ, cwd=folder
        )

    def answers(self) -> bool:
        """An example that asks /verify answers 503 if the service does not answer."""
        try:
            return requests.get(f"{self.url}/orders", timeout=5).status_code in (401, 503)
        except requests.RequestException:
            return False


def flask_app(environ: dict[str, str]) -> Example:
    command = [sys.executable, "-m", "flask", "--app", "app", "run", "--port", "{port}"]
    return Example(command, environ | {"PYTHONPATH": str(ROOT)}, EXAMPLES / "flask_app")


def flask_app_on_granian(environ: dict[str, str], folder: Path) -> Example:
    """The Flask example, with a route that shows the WSGI environment of its request."""
    (folder / "probe.py").write_text(PROBE)
    command = [sys.executable, "-m", "granian", "--interface", "wsgi", "--port", "{port}", "probe:app"]
    path = os.pathsep.join(map(str, (EXAMPLES / "flask_app", ROOT)))
    return Example(command, environ | {"PYTHONPATH": path}, folder)


def other_backend(wxauth_url: str, **more: str) -> Example:
    environ = {"WXAUTH_URL": wxauth_url, "WXAUTH_CLIENT": CLIENT, **more}
    return Example([program("node"), "server.mjs"], environ, EXAMPLES / "other_backend")


def fastapi_app(wxauth_url: str, **more: str) -> Example:
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", "{port}"]
    return Example(command, {"WXAUTH_URL": wxauth_url, **more}, EXAMPLES / "fastapi_app")


def express_app(wxauth_url: str, **more: str) -> Example:
    program("tsc", NODE_MODULES / ".bin")  # installed with Express by `make check`
    environ = {"WXAUTH_URL": wxauth_url, "NODE_PATH": str(NODE_MODULES), **more}
    return Example([program("node"), "app.js"], environ, EXAMPLES / "express_app")


@dataclass
class Applications:
    """The service, the examples, and a user of all of them."""

    service: str
    examples: dict[str, str]
    wechat: WeChatServer
    redis: RedisServer
    environ: dict[str, str]

    def log_in(self, user: str = "alice") -> str:
        body = {"code": self.wechat.fake.wx_login(user)}
        token: str = requests.post(f"{self.service}/login", json=body, timeout=5).json()["token"]
        return token

    def urls(self) -> dict[str, str]:
        orders = {name: f"{url}/orders" for name, url in self.examples.items()}
        return {"service": f"{self.service}/session"} | orders

    def statuses(self, token: str) -> dict[str, int]:
        return {name: ask(url, token).status_code for name, url in self.urls().items()}


def ask(url: str, token: str, scheme: str = "Bearer ") -> requests.Response:
    return requests.get(url, headers={"Authorization": f"{scheme}{token}"}, timeout=5)


@contextmanager
def started(**variables: str) -> Iterator[Applications]:
    with ExitStack() as stack:
        redis, wechat = stack.enter_context(RedisServer()), stack.enter_context(WeChatServer())
        environ = environment(redis.url, wechat.url, WXAUTH_CLIENTS=CLIENT, **variables)
        url = stack.enter_context(Service(environ)).url
        examples = {
            "flask": flask_app(environ),
            "node": other_backend(url),
            "fastapi": fastapi_app(url),
            "express": express_app(url),
        }
        urls = {name: stack.enter_context(example).url for name, example in examples.items()}
        yield Applications(url, urls, wechat, redis, environ)


@pytest.fixture(scope="module")
def applications() -> Iterator[Applications]:
    with started() as found:
        yield found


EVERYWHERE = dict.fromkeys(("service", "flask", "node", "fastapi", "express"), 200)
NOWHERE = dict.fromkeys(EVERYWHERE, 401)


def test_login_at_the_service_is_valid_in_all_examples(applications: Applications) -> None:
    """All applications return the same openid as the service."""
    token = applications.log_in()
    assert applications.statuses(token) == EVERYWHERE
    assert len({ask(url, token).json()["openid"] for url in applications.urls().values()}) == 1


@pytest.mark.parametrize("place", ["service", "flask"])
def test_logout_in_one_application_ends_the_session_in_all(place: str, applications: Applications) -> None:
    token = applications.log_in()
    assert applications.statuses(token) == EVERYWHERE
    root = {"service": applications.service, **applications.examples}[place]
    assert requests.delete(f"{root}/session", headers={"Authorization": token}, timeout=5).status_code == 204
    await_end(f"{applications.service}/session", {"Authorization": token})
    assert applications.statuses(token) == NOWHERE


@pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer nonsense", "Basic YTpi", "Bearer a&token=b"])
def test_request_without_a_live_token_returns_401_with_a_challenge(
    authorization: str, applications: Applications
) -> None:
    for url in applications.urls().values():
        answer = requests.get(url, headers={"Authorization": authorization}, timeout=5)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_token_without_a_scheme_is_accepted_by_all(applications: Applications) -> None:
    """Many mini programs send the token without `Bearer`."""
    token = applications.log_in()
    assert {ask(url, token, scheme="").status_code for url in applications.urls().values()} == {200}


@pytest.mark.parametrize("start", [other_backend, fastapi_app, express_app])
def test_example_refuses_a_user_of_another_mini_program(
    start: Callable[..., Example], applications: Applications
) -> None:
    """Openids of another mini program mean nothing to a backend. A login does not help, so the action is none."""
    token = applications.log_in()
    with start(applications.service, WXAUTH_APPID="wxffffffffffffffff") as example:
        answer = ask(f"{example.url}/orders", token)
    body = answer.json()
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert body.get("detail", body) == {"code": "other_appid", "action": "none"}
    with start(applications.service, WXAUTH_APPID=APPID) as example:
        assert ask(f"{example.url}/orders", token).status_code == 200


@pytest.mark.parametrize("start", [other_backend, fastapi_app, express_app])
def test_example_sends_the_token_to_the_service_only(
    start: Callable[..., Example], applications: Applications
) -> None:
    """A proxy of the environment would see each user's token."""
    with Rogue(answering(b"the proxy")) as proxy:
        proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), proxy.url)
        with start(applications.service, **proxies) as example:
            assert ask(f"{example.url}/orders", applications.log_in()).status_code == 200
    assert proxy.requests == []


@pytest.mark.parametrize("name", ["flask", "fastapi", "express"])
def test_example_passes_the_problem_of_the_service_on(name: str, applications: Applications) -> None:
    """The mini program's client understands the problem also inside FastAPI's `detail`."""
    urls = applications.urls()
    expected, answer = ask(urls["service"], "nonsense"), ask(urls[name], "nonsense")
    problem = answer.json()["detail"] if name == "fastapi" else answer.json()
    assert (problem["code"], problem["action"]) == ("token_invalid", "login")
    assert answer.headers["WWW-Authenticate"] == expected.headers["WWW-Authenticate"]


def test_authorization_that_is_not_ascii_returns_401(applications: Applications) -> None:
    headers = {"Authorization": "Bearer é".encode("latin-1")}
    answers = [requests.get(url, headers=headers, timeout=5) for url in applications.urls().values()]
    assert [answer.status_code for answer in answers] == [401] * 5


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
def test_node_returns_503_if_the_service_gives_no_valid_answer(place: Place) -> None:
    """If the token can't be checked, the answer is neither a success nor a 401."""
    with place() as url, other_backend(url) as node:
        answer = ask(f"{node.url}/orders", "wxa_some-token")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


class Verifier:
    """An example that asks a rogue's /verify. `script` is what the rogue does. The fixture starts both."""

    def __init__(self) -> None:
        self.script: Script = answer_of_verify(b"503 Service Unavailable", b"")
        self.rogue = Rogue(lambda line: self.script(line))
        self.example: Example

    def ask(self, script: Script) -> requests.Response:
        self.script = script
        return ask(f"{self.example.url}/orders", "wxa_some-token")


def answer_of_verify(status: bytes, body: bytes, *headers: bytes) -> Script:
    lines = (b"HTTP/1.1 " + status, *headers, b"Connection: close", b"Content-Length: %d" % len(body))
    return saying(b"\r\n".join(lines) + b"\r\n\r\n" + body)


@pytest.fixture(scope="module", params=[fastapi_app, express_app])
def verifier(request: pytest.FixtureRequest) -> Iterator[Verifier]:
    found = Verifier()
    with found.rogue:  # ends too if the example's packages are missing and the test is skipped
        found.example = request.param(found.rogue.url)
        with found.example:
            yield found


PROBLEM = b"Content-Type: application/problem+json"
REPLACED = b'{"code": "session_replaced", "action": "ask", "detail": "The user logged in elsewhere"}'
VERIFY_UNKNOWN = {
    "nothing": saying(b""),
    "200": answer_of_verify(b"200 OK", b"{}", b"X-WX-OpenID: o1"),
    "204-with-two-openids": answer_of_verify(b"204 No Content", b"", b"X-WX-OpenID: o1", b"X-WX-OpenID: o2"),
    "204-without-openid": answer_of_verify(b"204 No Content", b"", b"X-WX-AppID: wx1"),
    "401-of-a-proxy": answer_of_verify(b"401 Unauthorized", b"<html>", b"Content-Type: text/html"),
    "401-problem-of-html": answer_of_verify(b"401 Unauthorized", b"<html>", PROBLEM),
    "401-problem-of-nothing": answer_of_verify(b"401 Unauthorized", b"", PROBLEM),
    "401-problem-of-null": answer_of_verify(b"401 Unauthorized", b"null", PROBLEM),
    "401-problem-not-utf-8": answer_of_verify(b"401 Unauthorized", REPLACED.replace(b"user", b"us\xffer"), PROBLEM),
    "401-problem-without-action": answer_of_verify(b"401 Unauthorized", b'{"code": "session_replaced"}', PROBLEM),
    "401-challenge-not-ascii": answer_of_verify(
        b"401 Unauthorized", REPLACED, PROBLEM, "WWW-Authenticate: Bearer 你".encode()
    ),
    "404-problem": answer_of_verify(b"404 Not Found", b'{"code": "not_found"}', PROBLEM),
    "redirect": answer_of_verify(b"302 Found", b"", b"Location: /elsewhere"),
    "silent": Line.hold,
    "body-never-ends": saying(b"HTTP/1.1 401 Unauthorized\r\n%b\r\nContent-Length: 9\r\n\r\n" % PROBLEM, Line.hold),
}


@pytest.mark.parametrize("script", VERIFY_UNKNOWN.values(), ids=VERIFY_UNKNOWN)
def test_verify_without_a_valid_answer_returns_503(script: Script, verifier: Verifier) -> None:
    answer = verifier.ask(script)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"403 Forbidden"])
def test_verify_with_a_reason_passes_it_on(status: bytes, verifier: Verifier) -> None:
    """The client must know why the session ended, or it logs in silently and ends the user's other session."""
    challenge = b'WWW-Authenticate: Bearer error="invalid_token"'
    answer = verifier.ask(answer_of_verify(status, REPLACED, PROBLEM, challenge))
    body = answer.json()
    assert json.loads(REPLACED) in (body, body["detail"])
    assert answer.status_code == int(status[:3])
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


def test_node_with_a_wrong_credential_returns_503_and_does_not_show_it(applications: Applications) -> None:
    """Only the operator can fix a wrong credential, so the user is not logged out."""
    with other_backend(applications.service, WXAUTH_CLIENT="shop:wrong") as node:
        answer = ask(f"{node.url}/orders", applications.log_in())
    assert (answer.status_code, "wrong" in answer.text) == (503, False)


def test_all_applications_return_503_while_redis_is_down() -> None:
    """The answers have Retry-After, and no client logs out."""
    with started(WEB_CONCURRENCY="1") as applications:
        token = applications.log_in()
        applications.redis.stop()
        answers = [ask(url, token) for url in applications.urls().values()]
    assert [(answer.status_code, "Retry-After" in answer.headers) for answer in answers] == [(503, True)] * 5


@pytest.mark.parametrize("debug", ["0", "1"])
def test_flask_app_starts_in_both_modes(applications: Applications, debug: str) -> None:
    """The reloader of the debug mode starts the application a second time, with the environment of the first."""
    with flask_app(applications.environ | {"FLASK_DEBUG": debug}) as flask:
        assert ask(f"{flask.url}/orders", applications.log_in()).status_code == 200


def test_flask_app_on_granian_shows_no_secret_in_the_wsgi_environment(
    applications: Applications, tmp_path: Path
) -> None:
    """Granian copies `os.environ` into it."""
    with flask_app_on_granian(applications.environ | {"PLAIN": "a plain variable"}, tmp_path) as flask:
        shown = requests.get(f"{flask.url}/environ", timeout=5).text
        assert ask(f"{flask.url}/orders", applications.log_in()).status_code == 200
    secrets = [APP_SECRET, RING_KEY, CLIENT.partition(":")[2], applications.redis.url]
    assert "a plain variable" in shown
    assert [secret for secret in secrets if secret in shown] == []


def test_no_example_contains_a_secret() -> None:
    """Users copy these files."""
    texts = [path.read_text() for folder in BACKENDS for path in (EXAMPLES / folder).iterdir() if path.is_file()]
    assert len(texts) == len(BACKENDS)
    assert not any(word in text for text in texts for word in (APP_SECRET, RING_KEY, "session_key", "WECHAT_SECRET"))


def test_examples_are_short_and_import_little() -> None:
    """The Flask example has at most 25 lines, the others at most 50. The Node example needs no package."""
    lines = (EXAMPLES / "flask_app" / "app.py").read_text().splitlines()
    assert len([line for line in lines if line]) <= 25
    node = (EXAMPLES / "other_backend" / "server.mjs").read_text()
    assert [line for line in node.splitlines() if line.startswith("import")] == [
        "import { createServer } from 'node:http'"
    ]
    others = [EXAMPLES / "fastapi_app" / "app.py", EXAMPLES / "express_app" / "app.js"]
    assert [path.name for path in others if len(path.read_text().splitlines()) > 50] == []


@pytest.mark.parametrize("name", ["other-backends.md", "other-backends.zh-CN.md"])
def test_page_about_backends_links_to_each_example(name: str) -> None:
    linked = set(re.findall(r"\]\(([^)#:]+)\)", (DOCS / name).read_text(encoding="utf-8")))
    assert {f"../examples/{folder}" for folder in BACKENDS} <= linked
