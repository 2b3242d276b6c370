"""The shipped files of each proxy while a backend is down or does not answer, and nginx with a cache."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
import requests

from tests.support.proxies import KINDS, Application, Proxy
from tests.support.rogue import Rogue
from tests.support.servers import RedisServer, free_port, wait_until
from tests.support.service import Service, WeChatServer, await_end, environment

#: Its own 503 has no problem.
BARE_ERRORS = {"traefik"}
#: The status while the application is down, if it is not 502.
DOWN = {"haproxy": 503, "envoy": 503, "apache": 503}
UNAVAILABLE = {"status": 503, "code": "store_unavailable", "action": "retry"}


@pytest.fixture(scope="module")
def wechat_server() -> Iterator[WeChatServer]:
    with WeChatServer() as server:
        yield server


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def service(redis: RedisServer, wechat_server: WeChatServer) -> Iterator[Service]:
    # Windows of an hour: a test seldom runs across the end of one.
    more = {"WXAUTH_TRUSTED_PROXIES": "1", "WXAUTH_LOGIN_RATE": "4/hour", "WEB_CONCURRENCY": "1"}
    with Service(environment(redis.url, wechat_server.url, **more)) as running:
        yield running


@pytest.fixture
def application() -> Iterator[Application]:
    with Application() as running:
        yield running


def log_in(url: str, wechat_server: WeChatServer, user: str = "alice", **headers: str) -> requests.Response:
    return requests.post(f"{url}/login", json={"code": wechat_server.fake.wx_login(user)}, headers=headers, timeout=9)


def bearer(answer: requests.Response) -> dict[str, str]:
    return {"Authorization": f"Bearer {answer.json()['token']}"}


def is_unavailable(proxy: Proxy, application: Application, headers: dict[str, str], *, bare: bool = False) -> bool:
    """Whether each request gets a 503 in time, with the problem unless `bare`, and none reaches the application."""
    application.seen.clear()
    began = time.monotonic()
    answers = [
        requests.get(f"{proxy.url}/orders", headers=headers, timeout=9),
        requests.post(f"{proxy.url}/orders", data=b"x" * 30000, headers=headers, timeout=9),
    ]
    for answer in answers:
        assert answer.headers["Retry-After"] == "1"
        assert answer.headers["Cache-Control"] == "no-store"
        if bare:
            assert "problem" not in answer.headers["Content-Type"]
        else:
            assert_problem(answer)
    assert time.monotonic() - began < 2 * 4
    return {answer.status_code for answer in answers} == {503} and application.seen == []


def assert_problem(answer: requests.Response) -> None:
    problem = answer.json()
    assert {name: problem[name] for name in UNAVAILABLE} == UNAVAILABLE
    assert set(problem) == {"type", "title", "status", "detail", "code", "action", "request_id"}
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("kind", KINDS)
def test_with_the_service_down_each_request_gets_503(
    kind: str, service: Service, application: Application, wechat_server: WeChatServer
) -> None:
    """Also logins. The token is valid again once the service is back."""
    with Proxy(kind, service.port, application.port) as proxy:
        headers = bearer(log_in(proxy.url, wechat_server))
        assert requests.get(proxy.url, headers=headers, timeout=5).status_code == 200
        service.stop()
        assert is_unavailable(proxy, application, headers, bare=kind in BARE_ERRORS)
        for path in ("/login", "/session"):
            answer = requests.post(f"{proxy.url}{path}", json={"code": "a"}, headers=headers, timeout=5)
            if kind in BARE_ERRORS:
                assert (answer.status_code, answer.text) == (502, "Bad Gateway")
                continue
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
            assert answer.headers["Retry-After"] == "1"
        service.start()
        wait_until(service.answers, "the service")
        assert requests.get(proxy.url, headers=headers, timeout=5).status_code == 200


@pytest.mark.parametrize("kind", KINDS)
def test_with_redis_down_each_request_gets_503(
    kind: str, redis: RedisServer, service: Service, application: Application, wechat_server: WeChatServer
) -> None:
    """A forged token still gets 401."""
    with Proxy(kind, service.port, application.port) as proxy:
        headers = bearer(log_in(proxy.url, wechat_server))
        redis.stop()
        assert is_unavailable(proxy, application, headers)
        assert log_in(proxy.url, wechat_server).status_code == 503
        forged = {"Authorization": "Bearer nonsense"}
        assert requests.get(proxy.url, headers=forged, timeout=5).status_code == 401


@pytest.mark.parametrize("kind", KINDS)
def test_with_a_service_that_does_not_answer_each_request_gets_503(kind: str, application: Application) -> None:
    """After two seconds."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Proxy(kind, silent.getsockname()[1], application.port) as proxy,
    ):
        assert is_unavailable(proxy, application, {"Authorization": "Bearer a"}, bare=kind in BARE_ERRORS)


ODD_ANSWERS = [
    b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 418 Teapot\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 304 Not Modified\r\n\r\n",
    b"HTTP/1.1 204 No",
    b"SSH-2.0-OpenSSH_9.9\r\n",
    b"",
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_odd_answer_to_the_check_lets_no_request_pass(kind: str, application: Application) -> None:
    """Another program listens on the port of the service, for example."""
    odd = [ODD_ANSWERS[0]]
    with Rogue(lambda line: line.send(odd[0])) as rogue, Proxy(kind, rogue.port, application.port) as proxy:
        for odd[0] in ODD_ANSWERS:
            head = "GET /orders HTTP/1.1\nHost: a\nAuthorization: Bearer a\nX-WX-OpenID: evil\nConnection: close\n\n"
            assert proxy.say(head)[0] >= 300
    assert application.seen == []


@pytest.mark.parametrize("status", ["200 OK", "204 No Content"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_success_of_another_program_gives_the_application_no_identity(
    kind: str, application: Application, status: str
) -> None:
    """Such as a web server that answers 200 for each path: most proxies then let the request pass."""
    answer = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
    with Rogue(lambda line: line.send(answer)) as rogue, Proxy(kind, rogue.port, application.port) as proxy:
        proxy.say("GET /orders HTTP/1.1\nHost: a\nAuthorization: Bearer a\nX-WX-OpenID: evil\nConnection: close\n\n")
    values = [value for _, headers in application.seen for name, value in headers if name.lower().startswith("x-wx-")]
    assert values in ([], [""] * 3)


#: What makes the script of a proxy fail.
FAILING = {"haproxy": "core.httpclient()", "apache": "http.request"}


@pytest.mark.parametrize("kind", FAILING)
def test_an_error_in_the_script_lets_no_request_pass(kind: str, service: Service, application: Application) -> None:
    def changed(text: str) -> str:
        return text.replace(FAILING[kind], "no_such_function()")

    with Proxy(kind, service.port, application.port, changed) as proxy:
        assert requests.get(proxy.url, timeout=5).status_code in (500, 503)
    assert application.seen == []


@pytest.mark.parametrize("kind", KINDS)
def test_with_the_application_down_a_request_gets_502(
    kind: str, service: Service, wechat_server: WeChatServer
) -> None:
    """Or 503, but not the problem: the session was checked."""
    with Proxy(kind, service.port, free_port()) as proxy:
        headers = bearer(log_in(proxy.url, wechat_server))
        answer = requests.get(proxy.url, headers=headers, timeout=5)
        assert answer.status_code == DOWN.get(kind, 502)
        assert "store_unavailable" not in answer.text
        assert "Retry-After" not in answer.headers


@pytest.mark.parametrize("kind", KINDS)
def test_a_spoofed_address_does_not_evade_the_rate_limit(
    kind: str, service: Service, application: Application, wechat_server: WeChatServer
) -> None:
    """X-Forwarded-For in any spelling: the service counts the address that the proxy sees."""
    spoofs = [
        {"X-Forwarded-For": "192.0.2.1"},
        {"X_Forwarded_For": "192.0.2.2"},
        {"X-Forwarded_For": "192.0.2.3", "X-Real-IP": "192.0.2.3"},
        {"X-Forwarded-For": "192.0.2.4", "Connection": "X-Forwarded-For"},
        {"Forwarded": "for=192.0.2.5", "X.Forwarded.For": "192.0.2.5"},
        {"X-Forwarded-For": "192.0.2.6"},
    ]
    with Proxy(kind, service.port, application.port) as proxy:
        answers = [log_in(proxy.url, wechat_server, **spoof) for spoof in spoofs]
    if kind == "envoy":
        # It refuses a Connection that names X-Forwarded-For.
        assert answers.pop(3).status_code == 400
    assert [answer.status_code for answer in answers[:5]] == [200, 200, 200, 200, 429]
    assert answers[-1].json()["code"] == "rate_limited"
    assert answers[-1].headers["Retry-After"]


#: Traefik has one time for the whole request, an upload included.
STRICT = [kind for kind in KINDS if kind != "traefik"]


def test_connections_with_a_part_of_a_head_end_after_ten_seconds(application: Application) -> None:
    """With an answer, such as 408, or without."""
    with contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(Proxy(kind, free_port(), application.port)) for kind in STRICT]
        lines = [stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), 13)) for proxy in proxies]
        for line in lines:
            line.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
        for line in lines:
            with contextlib.suppress(ConnectionResetError):
                assert b"200" not in line.makefile("rb").read()
    assert application.seen == []


CACHED = """proxy_cache_path {folder}/cache keys_zone=all:1m;
    proxy_cache all;
    proxy_cache_valid any 10m;
    add_header X-Cache $upstream_cache_status;
"""


@pytest.fixture(params=["as shipped", "the check too"])
def cache(request: pytest.FixtureRequest, service: Service, application: Application) -> Iterator[Proxy]:
    """nginx with a cache for everything. "the check too" removes the line that excludes /verify from the cache."""

    def changed(text: str) -> str:
        text = text if request.param == "as shipped" else text.replace("proxy_cache off;", "")
        return text.replace("server_tokens off;", CACHED)

    with Proxy("nginx", service.port, application.port, changed) as running:
        yield running


def test_a_cached_answer_is_returned_to_its_user_only(
    cache: Proxy, application: Application, wechat_server: WeChatServer
) -> None:
    """Answers of the service are never cached."""
    alice, bob = (bearer(log_in(cache.url, wechat_server, user)) for user in ("alice", "bob"))
    for _ in range(2):
        sessions = [requests.get(f"{cache.url}/session", headers=who, timeout=5).json() for who in (alice, bob)]
        greetings = [requests.get(f"{cache.url}/", headers=who, timeout=5) for who in (alice, bob)]
        assert [greeting.text for greeting in greetings] == [f"hello {session['openid']}" for session in sessions]
        assert sessions[0]["openid"] != sessions[1]["openid"]
    assert [greeting.headers["X-Cache"] for greeting in greetings] == ["HIT", "HIT"]
    assert len(application.seen) == 2


def test_after_a_logout_the_cache_returns_401(cache: Proxy, wechat_server: WeChatServer) -> None:
    """A cached 401 is not returned for a valid token."""
    assert requests.get(cache.url, timeout=5).status_code == 401
    alice = bearer(log_in(cache.url, wechat_server))
    assert requests.get(cache.url, headers=alice, timeout=5).status_code == 200
    assert requests.delete(f"{cache.url}/session", headers=alice, timeout=5).status_code == 204
    await_end(f"{cache.url}/session", alice)
    assert requests.get(cache.url, headers=alice, timeout=5).status_code == 401
