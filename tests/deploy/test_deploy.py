"""The shipped nginx.conf and Caddyfile against whoever lies about who they are: real proxies, a real service."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import requests
import yaml

from tests.clients import BACKEND, CLIENT_SECRET, basic
from tests.conftest import APPID, RING_KEY
from tests.proxies import Application, Headers, Proxy
from tests.servers import RedisServer
from tests.service import ROOT, Service, WeChatServer, environment
from wxauth.keys import KeyRing
from wxauth.models import Identity, Secret, User
from wxauth.sessions.store import SessionPolicy, SessionStore
from wxauth.storage.client import RedisClient

JSON = {"Content-Type": "application/json"}
UNDERSCORES = "underscores_in_headers"
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def wechat_server() -> Iterator[WeChatServer]:
    with WeChatServer() as server:
        yield server


@pytest.fixture(scope="module")
def service(redis_server: RedisServer, wechat_server: WeChatServer) -> Iterator[Service]:
    more = {"WXAUTH_TRUSTED_PROXIES": "1", "WXAUTH_CLIENTS": f"{BACKEND}:{CLIENT_SECRET}", "WEB_CONCURRENCY": "1"}
    with Service(environment(redis_server.url, wechat_server.url, **more)) as running:
        yield running


@pytest.fixture(scope="module")
def application() -> Iterator[Application]:
    with Application() as running:
        yield running


@pytest.fixture(scope="module", params=["nginx", "nginx that lets underscores in", "caddy"])
def proxy(request: pytest.FixtureRequest, service: Service, application: Application) -> Iterator[Proxy]:
    kind, _, underscores = request.param.partition(" ")

    def changed(text: str) -> str:
        return text.replace(f"{UNDERSCORES} off;", f"{UNDERSCORES} on;") if underscores else text

    with Proxy(kind, service.port, application.port, changed) as running:
        yield running


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[SessionStore]:
    """Where the service keeps its sessions: tokens out of here are good there."""
    with redis_server.client() as client:
        yield SessionStore(RedisClient(lambda: client), KeyRing([Secret(RING_KEY)]), SessionPolicy(3600, 3600, 10))


@pytest.fixture(params=["uALICE", None], ids=["unionid", "no unionid"])
def identity(request: pytest.FixtureRequest) -> Identity:
    return Identity(User(APPID, "oALICE"), Secret("k"), request.param)


@pytest.fixture
def token(store: SessionStore, identity: Identity) -> str:
    return store.create(identity)[0].reveal()


def is_told(told: Headers, identity: Identity) -> bool:
    """Exactly our three headers, each once; nginx leaves an empty one out."""
    values = {"x-wx-appid": APPID, "x-wx-openid": identity.user.openid, "x-wx-unionid": identity.unionid or ""}
    found = sorted((name.lower(), value) for name, value in told)
    return found in (sorted(values.items()), sorted((name, value) for name, value in values.items() if value))


SPOOFS: dict[str, str] = {
    "none": "",
    "as it is": "X-WX-OpenID: evil\nX-WX-AppID: evil\nX-WX-UnionID: evil\n",
    "other case": "x-wx-OPENID: evil\nX-Wx-Unionid: evil\n",
    "twice": "X-WX-OpenID: evil\nX-WX-OpenID: evil\nX-WX-UnionID: a\nX-WX-UnionID: b\n",
    "empty": "X-WX-OpenID:\nX-WX-AppID:\nX-WX-UnionID:\n",
    "underscores": "X_WX_OpenID: evil\nX_WX_AppID: evil\nX_WX_UnionID: evil\n",
    "some underscores": "X-WX_OpenID: evil\nX_WX-OpenID: evil\nx-wx_unionid: evil\nX_WX-appid: evil\n",
    **{f"with {char}": f"X{char}WX{char}OpenID: evil\nX-WX{char}UnionID: evil\n" for char in ".!#$%&'*+^`|~"},
    "named in Connection": "Connection: X-WX-OpenID, X-WX-AppID, x-wx-unionid\n",
    "named in a second Connection": "Connection: close\nConnection: X-WX-OpenID\n",
    "named in an upgrade": "Connection: Upgrade, X-WX-OpenID\nUpgrade: websocket\n",
    "named in half an upgrade": "Connection: Upgrade, X-WX-OpenID\n",
    "named, and there": "Connection: X-WX-OpenID\nX-WX-OpenID: evil\n",
    "Authorization named": "Connection: Authorization\n",
    "folded": "X-Other: a\n X-WX-OpenID: evil\n",
    "a space before the colon": "X-WX-OpenID : evil\n",
    "a bare CR": "X-Other: a\rX-WX-OpenID: evil\n",
    "a control character": "X-Other: a\x0bX-WX-OpenID: evil\n",
    "forwarded": "X-Forwarded-Uri: /healthz\nX-Original-URL: /healthz\nX-Forwarded-Method: OPTIONS\n",
    "another user": "X-Forwarded-User: evil\nRemote-User: evil\n",
}


@pytest.mark.parametrize("spoof", SPOOFS.values(), ids=SPOOFS.keys())
def test_the_application_is_told_who_it_is_whatever_the_caller_says(
    proxy: Proxy, application: Application, identity: Identity, token: str, spoof: str
) -> None:
    """Exactly our identity headers and no token; or, of a request that is no HTTP, nothing at all."""
    application.seen.clear()
    bye = "" if "Connection" in spoof else "Connection: close\n"
    status, _ = proxy.say(f"GET / HTTP/1.0\nHost: a\nAuthorization: Bearer {token}\n{spoof}{bye}\n")
    if status == 400 or "\x0b" in spoof:
        # What is no HTTP for wxauth, though it is for nginx, ends in its 503.
        assert (status, application.seen) in [(400, []), (503, [])]
        return
    assert status == 200
    assert is_told(application.identity(), identity)
    names = {name.lower() for name, _ in application.seen[-1][1]}
    assert "authorization" not in names
    assert len(application.seen) == 1


@pytest.mark.parametrize("spoof", SPOOFS.values(), ids=SPOOFS.keys())
def test_without_a_token_nothing_reaches_the_application(proxy: Proxy, application: Application, spoof: str) -> None:
    """Whatever else is claimed."""
    application.seen.clear()
    bye = "" if "Connection" in spoof else "Connection: close\n"
    assert proxy.say(f"GET / HTTP/1.0\nHost: a\n{spoof}{bye}\n")[0] in ((400, 503) if "\x0b" in spoof else (400, 401))
    assert application.seen == []


def test_a_trailer_is_no_header(proxy: Proxy, application: Application, identity: Identity, token: str) -> None:
    """What comes behind a chunked body does not join what came before it."""
    head = f"POST / HTTP/1.1\nHost: a\nAuthorization: {token}\nTransfer-Encoding: chunked\nConnection: close\n"
    assert proxy.say(f"{head}Trailer: X-WX-OpenID\n\n1\na\n0\nX-WX-OpenID: evil\n\n")[0] == 200
    assert is_told(application.identity(), identity)


@pytest.mark.parametrize("second", ["Bearer {}", "Bearer nonsense", "Basic YTpi"])
def test_two_credentials_are_none(proxy: Proxy, application: Application, token: str, second: str) -> None:
    """Even two good ones, in either order."""
    application.seen.clear()
    lines = [f"Authorization: Bearer {token}\n", f"Authorization: {second.format(token)}\n"]
    for one, other in (lines, lines[::-1]):
        assert proxy.say(f"GET / HTTP/1.1\nHost: a\n{one}{other}Connection: close\n\n")[0] in (400, 401)
    assert application.seen == []


@pytest.mark.parametrize("elsewhere", ["/?access_token={}", "/?token={}", "/{}"])
def test_a_token_elsewhere_opens_nothing(proxy: Proxy, application: Application, token: str, elsewhere: str) -> None:
    """Not in the address, nor in a cookie."""
    application.seen.clear()
    address = proxy.url + elsewhere.format(token)
    assert requests.get(address, cookies={"token": token}, timeout=5).status_code == 401
    assert application.seen == []


METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_checked(proxy: Proxy, application: Application, token: str, method: str) -> None:
    """With its body, which only the application gets."""
    application.seen.clear()
    address = f"{proxy.url}/orders?a=b"
    assert requests.request(method, address, data=b"x" * 30000, timeout=5).status_code == 401
    assert application.seen == []
    good = {"Authorization": token}
    assert requests.request(method, address, data=b"x" * 30000, headers=good, timeout=5).status_code == 200
    assert application.seen[0][0] == f"{method} /orders?a=b HTTP/1.1"


@pytest.mark.parametrize("authorization", ["", "Bearer nonsense"])
def test_a_refusal_is_the_services_own(proxy: Proxy, service: Service, authorization: str) -> None:
    """Its problem, its challenge, never to be kept."""
    headers = {"Authorization": authorization} if authorization else {}
    theirs, ours = (requests.get(f"{url}/verify", headers=headers, timeout=5) for url in (proxy.url, service.url))
    assert theirs.status_code == 401
    assert theirs.json() | {"request_id": ""} == ours.json() | {"request_id": ""}
    for name in ("WWW-Authenticate", "Content-Type", "Cache-Control", "X-Content-Type-Options"):
        assert theirs.headers[name] == ours.headers[name]


@pytest.mark.parametrize("status", [204, 302, 401, 403, 404, 500, 502, 503])
def test_the_applications_own_answers_are_not_touched(
    proxy: Proxy, identity: Identity, token: str, status: int
) -> None:
    """Neither its refusals nor its failures are taken for ours."""
    address, headers = f"{proxy.url}/status/{status}", {"Authorization": token}
    response = requests.get(address, headers=headers, timeout=5, allow_redirects=False)
    assert response.status_code == status
    assert response.text == ("" if status == 204 else f"hello {identity.user.openid}")
    assert "WWW-Authenticate" not in response.headers
    assert "Retry-After" not in response.headers


def test_the_mini_program_logs_in_and_out(
    proxy: Proxy, wechat_server: WeChatServer, application: Application
) -> None:
    """Its routes reach the service; after the logout the application is closed to it."""
    application.seen.clear()
    answer = requests.post(f"{proxy.url}/login", json={"code": wechat_server.fake.wx_login()}, timeout=5)
    headers = {"Authorization": f"Bearer {answer.json()['token']}"}
    id = requests.get(f"{proxy.url}/session", headers=headers, timeout=5).json()["id"]
    assert requests.get(f"{proxy.url}/sessions", headers=headers, timeout=5).json()["sessions"][-1]["id"] == id
    assert application.seen == []
    assert requests.get(f"{proxy.url}/", headers=headers, timeout=5).status_code == 200
    assert requests.delete(f"{proxy.url}/sessions/{id}", headers=headers, timeout=5).status_code == 204
    assert requests.get(f"{proxy.url}/", headers=headers, timeout=5).status_code == 401


def test_the_services_refusals_pass_as_they_are(proxy: Proxy) -> None:
    """Problems of its own, with their codes."""
    refused = requests.post(f"{proxy.url}/login", data="code=a", headers={"Content-Type": "text/plain"}, timeout=5)
    assert refused.json()["code"] == "unsupported_media_type"
    assert requests.post(f"{proxy.url}/userdata/decrypt", json={}, timeout=5).json()["code"] == "token_missing"
    assert requests.get(f"{proxy.url}/wechat/push?signature=a", timeout=5).json()["code"] == "not_found"


@pytest.mark.parametrize("form", ["with a length", "chunked"])
@pytest.mark.parametrize("size", [16385, 4_000_000])
def test_a_body_that_is_too_large_for_the_service_is_refused_as_that(
    proxy: Proxy, service: Service, form: str, size: int
) -> None:
    """Each time the problem is the service's own, though most of the body is still on its way."""
    code = b'{"code": "' + b"a" * (size - 12) + b'"}'
    ours = requests.post(f"{service.url}/login", data=code, headers=JSON, timeout=5).json()
    for _ in range(5):
        body = code if form == "with a length" else iter([code[:9000], code[9000:]])
        theirs = requests.post(f"{proxy.url}/login", data=body, headers=JSON, timeout=5)
        assert (theirs.status_code, theirs.json() | {"request_id": ""}) == (413, ours | {"request_id": ""})
        for name, value in {"Content-Type": "application/problem+json", "Cache-Control": "no-store"}.items():
            assert theirs.headers[name] == value


@pytest.mark.parametrize("form", ["with a length", "chunked"])
def test_a_body_that_just_fits_reaches_the_service(proxy: Proxy, form: str) -> None:
    """It is refused there, for another reason."""
    code = b'{"code": "' + b"a" * (16384 - 12) + b'"}'
    body = code if form == "with a length" else iter([code[:9000], code[9000:]])
    answer = requests.post(f"{proxy.url}/login", data=body, headers=JSON, timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


HIDDEN = [
    "GET /verify",
    "POST /introspect",
    "POST /revoke",
    "GET /users/a/b/sessions",
    "PUT /users/a/b/ban",
    "GET /metrics",
    "GET /healthz",
    "GET /readyz",
    "GET //metrics",
    "GET /%6detrics",
    "GET /login/../metrics",
    "GET /sessions/../metrics",
    "GET /sessions/%2e%2e/metrics",
    "GET /sessions/..%2fmetrics",
    "GET /sessions/x/../../metrics",
    "GET /session%0a",
    "GET /metrics#/../login",
    "GET /metrics?/login",
    "GET http://a/metrics",
    "GET /.wxauth",
]


@pytest.mark.parametrize("request_line", HIDDEN)
def test_what_is_for_the_operator_is_not_to_be_had_from_outside(
    proxy: Proxy, application: Application, token: str, request_line: str
) -> None:
    """A client's credential opens nothing here; with a token the address is the application's."""
    head = f"{request_line} HTTP/1.1\nHost: a\nConnection: close\nContent-Length: 0\n"
    assert proxy.say(f"{head}Authorization: {basic()}\n\n")[0] in (400, 401, 404)
    application.seen.clear()
    status, text = proxy.say(f"{head}Authorization: {token}\n\n")
    assert status in (400, 404) or application.seen
    assert not re.search("x-wx-openid|wxauth_checks|granian", text, re.IGNORECASE) or status == 404


def test_the_traefik_file_holds_together() -> None:
    """It can't be run here, and says so; but whatever it names is there, and the routes are those of the others."""
    text = (DEPLOY / "traefik.yml").read_text()
    http = yaml.safe_load(text)["http"]
    assert "NOT RUN" in text
    for router in http["routers"].values():
        assert router["service"] in http["services"]
        assert set(router.get("middlewares", [])) <= http["middlewares"].keys()
    routes = re.findall(
        r"\^/(\(login[^ `\"]+?\))(?:\$|\\z)", "\n".join(path.read_text() for path in DEPLOY.iterdir())
    )
    assert len(routes) == 3
    assert len(set(routes)) == 1
