"""Any header, body, query and path over HTTP: only a live token is accepted, and no request causes a 500."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import fakeredis
import hypothesis.strategies as st
import pytest
import requests
from hypothesis import assume, given, settings
from werkzeug.datastructures import Headers
from werkzeug.test import TestResponse

from tests.conftest import APP_SECRET, APPID, RING_KEY, Phone
from tests.support.error_classes import answered
from wxauth.models import Secret
from wxauth.sandbox.fake_wechat import MOCK_CODE, FakeWeChat
from wxauth.settings import Client, Settings
from wxauth.storage.client import RedisClient
from wxauth.web.app import create_app
from wxauth.web.services import session_store, wechat_client
from wxauth.wechat.transport import Transport

DOCUMENTED = {(error.code, error.status, error.action) for error in answered()}
MEMBERS = {"type", "title", "status", "detail", "code", "action", "request_id"}

#: Any header value that a WSGI server passes on: latin-1 text without CR, LF and NUL.
values = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=60)
names = st.from_regex(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,30}", fullmatch=True)

#: Headers that other proxies, frameworks and services use for decisions.
TELLING = [
    "X-Forwarded-For X-Forwarded-Uri X-Forwarded-Method X-Forwarded-Host X-Forwarded-User X-Forwarded-Proto",
    "X-Original-URL X-Original-URI X-Rewrite-URL X-HTTP-Method-Override X-Method-Override X-Real-IP Via Cookie",
    "X-WX-OpenID X-WX-AppID X-WX-UnionID X_WX_OpenID X-Auth-Request-User Remote-User Proxy-Authorization Connection",
    "X-Authorization Authorization_ Authentication User-Agent Referer Origin Accept Range Content-Type",
    "Content-Encoding If-None-Match If-Modified-Since Expect Upgrade TE Cache-Control Pragma X-Request-ID Forwarded",
]
telling = st.sampled_from([name for line in TELLING for name in line.split()])

bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
logins = st.fixed_dictionaries({"code": bodies}, optional={"appid": bodies | st.just(APPID), "device": bodies})
content_types = st.sampled_from(
    ["application/json", "application/json; charset=utf-16", "text/plain", "application/x-www-form-urlencoded", ""]
)
queries = st.text(st.characters(codec="ascii", exclude_categories=["Cc"], exclude_characters="#"), max_size=80)


class RecordingWeChat(FakeWeChat):
    """A fake WeChat that keeps the queries it gets."""

    def __init__(self) -> None:
        super().__init__({APPID: Secret(APP_SECRET)})
        self.asked: list[dict[str, list[str]]] = []

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        self.asked.append(parse_qs(str(urlsplit(request.url or "").query), keep_blank_values=True))
        return super().send(request, *args, **kwargs)


class Service:
    """The service, its fakes, and a phone that is logged in."""

    def __init__(self) -> None:
        chosen = Settings(
            {APPID: Secret(APP_SECRET)},
            (Secret(RING_KEY),),
            Secret("redis://127.0.0.1:1/0"),
            clients={"shop": Client(Secret("shop-secret"), None)},
            login_rate="1000000/minute",
            client_rate="1000000/minute",
            cache_size=0,
        )
        self.redis = fakeredis.FakeRedis(protocol=2)
        self.wechat = RecordingWeChat()
        self.app = create_app(
            chosen,
            wechat=wechat_client(chosen, Transport(chosen.wechat_url, self.wechat)),
            store=session_store(chosen, RedisClient(lambda: self.redis)),
        )
        self.phone = Phone(self.app.test_client(), self.wechat).log_in()
        self.identity = self.identity_of(self.phone.get("/session"))

    def open(self, method: str, path: str, headers: list[tuple[str, str]], **more: Any) -> TestResponse:
        answer = self.app.test_client().open(path, method=method, headers=Headers(headers), **more)
        check_rules(answer)
        return answer

    def stored(self) -> dict[bytes, object]:
        keys: Any = self.redis.keys()
        # Without the rate limits: each login is counted.
        return {key: self.redis.dump(key) for key in keys if not key.startswith(b"wxa:l:")}

    @staticmethod
    def identity_of(answer: TestResponse) -> dict[str, object]:
        found: dict[str, object] = answer.get_json()
        return {name: value for name, value in found.items() if name != "expires_in"}


def check_rules(answer: TestResponse) -> None:
    """Check the rules that every answer keeps."""
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Set-Cookie" not in answer.headers
    if answer.status_code in (200, 204):
        return
    problem = json.loads(answer.get_data() or b"{}") if answer.request.method != "HEAD" else None
    assert answer.content_type == "application/problem+json"
    assert answer.status_code != 500
    if problem is not None:
        assert set(problem) == MEMBERS
        assert (problem["code"], problem["status"], problem["action"]) in DOCUMENTED
        assert problem["status"] == answer.status_code
    assert ("WWW-Authenticate" in answer.headers) == (answer.status_code == 401)
    assert ("Retry-After" in answer.headers) == (answer.status_code in (429, 503))


@pytest.fixture(scope="module")
def service() -> Service:
    return Service()


bounded = settings(deadline=None, max_examples=150)


def spoilt(token: str) -> st.SearchStrategy[str]:
    """Return a live token with text before, in or after it."""
    cut = st.builds(lambda at, piece: token[:at] + piece + token[at:], st.integers(0, len(token)), values)
    change = st.builds(lambda at, piece: token[:at] + piece + token[at + 1 :], st.integers(0, len(token) - 1), values)
    prefix = st.sampled_from(
        ["Bearer ", "bearer  ", "BEARER ", "Bearer", "Bearer\t", "Basic ", "Token ", "Bearer, ", ""]
    )
    return st.builds(str.__add__, prefix, cut | change | st.just(token) | st.just(token.swapcase()))


@bounded
@given(data=st.data())
def test_authorization_accepts_only_the_live_token(service: Service, data: st.DataObject) -> None:
    """Bare or after the word Bearer. Any other text is 401."""
    text = data.draw(values | spoilt(service.phone.token))
    live = re.fullmatch(rf"([Bb][Ee][Aa][Rr][Ee][Rr] +)?{re.escape(service.phone.token)}", text)
    answer = service.open("GET", "/session", [("Authorization", text)])
    assert answer.status_code == (200 if live else 401)


@bounded
@given(others=st.lists(st.tuples(names | telling, values), max_size=6))
def test_other_headers_beside_a_live_token_do_not_change_the_identity(
    service: Service, others: list[tuple[str, str]]
) -> None:
    others = [(name, value) for name, value in others if is_unrelated(name)]
    token = ("Authorization", f"Bearer {service.phone.token}")
    answer = service.open("GET", "/session", [*others, token])
    assert answer.status_code == 200
    assert service.identity_of(answer) == service.identity


@bounded
@given(others=st.lists(st.tuples(names | telling, values), max_size=6), data=st.data())
def test_other_headers_without_authorization_return_401(
    service: Service, others: list[tuple[str, str]], data: st.DataObject
) -> None:
    """Even if they hold the live token."""
    token = service.phone.token
    others = [(name, data.draw(st.sampled_from([value, token, f"Bearer {token}"]))) for name, value in others]
    others = [(name, value) for name, value in others if is_unrelated(name)]
    assert service.open("GET", "/session", others).status_code == 401


@bounded
@given(host=values, length=values | st.integers().map(str), coding=values)
def test_host_and_length_headers_do_not_change_the_identity(
    service: Service, host: str, length: str, coding: str
) -> None:
    """They can make a request invalid (400)."""
    token = [("Authorization", service.phone.token)]
    for name, value in {"HTTP_HOST": host, "CONTENT_LENGTH": length, "HTTP_TRANSFER_ENCODING": coding}.items():
        answer = service.open("GET", "/session", token, environ_overrides={name: value})
        assert answer.status_code in (200, 400)
        assert answer.status_code == 400 or service.identity_of(answer) == service.identity


def is_unrelated(name: str) -> bool:
    """Return whether neither the service nor the HTTP server reads the header."""
    read = {"AUTHORIZATION", "HOST", "CONTENT_LENGTH", "TRANSFER_ENCODING"}
    return name.upper().replace("-", "_") not in read


@bounded
@given(body=bodies | logins)
def test_login_with_any_json_returns_a_problem(service: Service, body: Any) -> None:
    """A code that WeChat did not issue stores nothing."""
    assume(not (isinstance(body, dict) and body.get("code") == MOCK_CODE))
    before = service.stored()
    answer = service.open("POST", "/login", [("Content-Type", "application/json")], data=json.dumps(body).encode())
    assert (answer.status_code, answer.get_json()["code"]) in {(400, "bad_request"), (400, "code_invalid")}
    assert service.stored() == before


@bounded
@given(data=st.binary(max_size=300) | st.binary(min_size=16 * 1024 - 2, max_size=16 * 1024 + 2), kind=content_types)
def test_login_with_any_bytes_returns_a_problem(service: Service, data: bytes, kind: str) -> None:
    """Any content type and any length. Nothing is stored."""
    before = service.stored()
    answer = service.open("POST", "/login", [("Content-Type", kind)], data=data)
    assert answer.status_code in (400, 413, 415)
    assert service.stored() == before


@bounded
@given(code=st.text(max_size=140))
def test_login_sends_any_code_as_one_parameter(service: Service, code: str) -> None:
    """Or it refuses the code without asking WeChat."""
    assume(code != MOCK_CODE)
    service.wechat.asked.clear()
    service.open("POST", "/login", [("Content-Type", "application/json")], data=json.dumps({"code": code}).encode())
    ours = {"appid": [APPID], "secret": [APP_SECRET], "grant_type": ["authorization_code"]}
    assert service.wechat.asked in ([], [{**ours, "js_code": [code]}])


@bounded
@given(query=queries)
def test_query_does_not_change_the_identity(service: Service, query: str) -> None:
    """A query that may hold a token is 400."""
    answer = service.open("GET", "/session", [("Authorization", service.phone.token)], query_string=query)
    if answer.status_code != 400:
        assert service.identity_of(answer) == service.identity


@bounded
@given(query=queries | st.sampled_from(["access_token={}", "keep=current&x={}", "keep={}"]))
def test_query_without_authorization_returns_401_or_400(service: Service, query: str) -> None:
    """And it ends no session."""
    before = service.stored()
    for method, path in [("GET", "/session"), ("DELETE", "/session"), ("DELETE", "/sessions")]:
        answer = service.open(method, path, [], query_string=query.replace("{}", service.phone.token))
        assert answer.status_code in (400, 401)
    assert service.stored() == before


@bounded
@given(query=queries | queries.map("keep={}".format))
def test_logout_everywhere_with_a_bad_query_ends_nothing(service: Service, query: str) -> None:
    """It returns 204 or 400. After 400 the session is still alive."""
    phone = Phone(service.app.test_client(), service.wechat, "bob").log_in()
    answer = service.open("DELETE", "/sessions", list(phone.headers.items()), query_string=query)
    assert answer.status_code in (204, 400)
    ended = answer.status_code == 204 and answer.request.args.get("keep") != "current"
    assert phone.get("/session").status_code == (401 if ended else 200)


@bounded
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"]) | names,
    path=st.text(st.characters(codec="utf-8"), max_size=40)
    | st.text(max_size=30).map("sessions/{}".format)
    | st.sampled_from(["login", "login/", "session", "sessions/", "healthz", "readyz", "openapi.yaml", "/session"]),
)
def test_any_method_and_path_without_a_token_returns_a_problem_or_an_open_page(
    service: Service, method: str, path: str
) -> None:
    """It never redirects."""
    answer = service.open(method.upper(), f"/{quote(path)}", [])
    assert answer.status_code in (200, 400, 401, 404, 405, 415)
    assert answer.status_code != 200 or path in ("healthz", "readyz", "openapi.yaml")
