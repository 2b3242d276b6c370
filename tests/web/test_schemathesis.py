"""The contract against the running service: requests made from openapi.yaml, and answers that match it.

The seed is fixed and printed. SCHEMATHESIS_SEED and SCHEMATHESIS_EXAMPLES choose another seed and more requests.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests
import schemathesis
from schemathesis.specs.openapi.checks import allow_header_conformance, unsupported_method

from tests.conftest import APPID
from tests.support.clients import BACKEND, CLIENT_SECRET, basic
from tests.support.servers import RedisServer
from tests.support.service import ROOT, Service, WeChatServer, environment

SEED = int(os.environ.get("SCHEMATHESIS_SEED", "20261122"))
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "40"))

#: WeChat's answers to well-formed logins, in turn: its refusals are in the contract too.
OUTCOMES = itertools.cycle([None, None, "40226", None, "45011", None, "garbage"])
PHONE_OUTCOMES = itertools.cycle([None, "45011", None, "garbage"])
TURNS = itertools.cycle([True, False])

#: The statuses that a run must see.
SEEN = {
    "POST /login": {200, 400, 403, 415, 429, 503},
    "GET /session": {200, 401, 405},
    "DELETE /session": {204, 401},
    "GET /sessions": {200, 401},
    "DELETE /sessions": {204, 400, 401},
    "POST /phone": {200, 400, 401, 415, 429, 503},
    "DELETE /sessions/{id}": {204, 401, 404},
    "POST /userdata/decrypt": {200, 400, 401, 409, 415},
    "POST /userdata/verify": {200, 400, 401, 409, 415},
    "GET /wechat/push": {404},
    "POST /wechat/push": {404},
    "GET /healthz": {200, 405},
    "GET /readyz": {200, 405},
    "POST /introspect": {200, 400, 401, 415},
    "POST /revoke": {200, 400, 401, 415},
    "GET /users/{appid}/{openid}/sessions": {200, 401, 404},
    "DELETE /users/{appid}/{openid}/sessions": {204, 401, 404},
    "PUT /users/{appid}/{openid}/ban": {204, 401, 404},
    "DELETE /users/{appid}/{openid}/ban": {204, 401, 404},
    "GET /metrics": {200, 401},
    "POST /users/{appid}/{openid}/signature": {200, 400, 401, 404, 415},
    "POST /ticket": {200, 401},
    "POST /device_authorization": {200},
    "POST /token": {200, 400, 401},
    "GET /device": {200},
    "GET /device/{user_code}": {401, 404},
    "POST /device/{user_code}": {400, 401, 404, 415},
    "GET /device/{user_code}.png": {404},
    "GET /.well-known/oauth-authorization-server": {200},
    "GET /verify": {204, 401},
    "GET /admin": {200, 401},
    "GET /admin/page/{name}": {200, 401, 404},
    "GET /admin/users/{appid}/{openid}": {200, 401, 404},
    "DELETE /admin/users/{appid}/{openid}/sessions": {204, 401, 403, 404},
    "DELETE /admin/users/{appid}/{openid}/sessions/{id}": {401, 403, 404},
    "PUT /admin/users/{appid}/{openid}/ban": {204, 401, 403, 404},
    "DELETE /admin/users/{appid}/{openid}/ban": {204, 401, 403, 404},
    "GET /admin/counters": {200, 401},
    "GET /admin/health": {200, 401},
    "GET /verify/{path}": {200, 401},
}

VERIFY = ("/verify", "/verify/{path}")
#: The routes that ask for a client's credential.
BACKENDS = ("/introspect", "/revoke", "/users", "/admin", "/metrics", "/device_authorization", "/token")
LATER = "a credential"
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"


class Running:
    """The service from its Procfile, over a real Redis. The fixture below starts it once."""

    session = requests.Session()

    def start(self, stack: ExitStack) -> None:
        redis = stack.enter_context(RedisServer())
        self.wechat = stack.enter_context(WeChatServer())
        settings = {
            "WXAUTH_CLIENTS": f"{BACKEND}:{CLIENT_SECRET}",
            "WXAUTH_ADMIN_CLIENTS": BACKEND,
            "WXAUTH_CLIENT_RATE": "1000000/minute",
            "WXAUTH_PUBLIC_URL": "https://login.example.com",
        }
        self.url = stack.enter_context(Service(environment(redis.url, self.wechat.url, **settings))).url
        stack.enter_context(self.session)

    def log_in(self, user: str) -> str:
        """Log in and return the token."""
        answer = self.session.post(f"{self.url}/login", json={"code": self.wechat.fake.wx_login(user)}, timeout=5)
        token: str = answer.json()["token"]
        LOGGED_IN[token] = user
        return token

    def ticket(self, user: str) -> str:
        """Return a ticket of a new session."""
        headers = {"Authorization": self.log_in(user)}
        return str(self.session.post(f"{self.url}/ticket", headers=headers, timeout=5).json()["ticket"])

    def approved_device_code(self, user: str) -> str:
        """Return a device_code that a user has approved."""
        asked = self.session.post(
            f"{self.url}/device_authorization", headers={"Authorization": basic()}, timeout=5
        ).json()
        address, headers = f"{self.url}/device/{asked['user_code']}", {"Authorization": self.log_in(user)}
        self.session.post(address, json={"approve": True}, headers=headers, timeout=5).raise_for_status()
        return str(asked["device_code"])

    def own_id(self, headers: dict[str, str]) -> str:
        """Return the id of the session of the token in `headers`, or "none"."""
        answer = self.session.get(f"{self.url}/session", headers=headers, timeout=5)
        return str(answer.json().get("id", "none"))


RUNNING = Running()
CONFIG = schemathesis.Config.from_dict(
    {
        "seed": SEED,
        "generation": {"max-examples": EXAMPLES},
        # 502 and 503 are in the contract. 500 is a bug.
        "checks": {"not_a_server_error": {"expected-statuses": ["2xx", "4xx", "502", "503"]}},
    }
)
SCHEMA = schemathesis.openapi.from_path(ROOT / "wxauth" / "openapi.yaml", config=CONFIG)
USERS = (f"user {number}" for number in itertools.count())
#: The user of each token.
LOGGED_IN: dict[str, str] = {}

Case = schemathesis.Case[Any]


@SCHEMA.auth(refresh_interval=None)
class Later:
    """Mark where a credential belongs. Some requests are generated before the service runs."""

    def get(self, case: Case, context: schemathesis.AuthContext) -> str:
        return LATER

    def set(self, case: Case, data: str, context: schemathesis.AuthContext) -> None:
        case.headers["Authorization"] = data


def credential(case: Case) -> str:
    """Return a client's credential, or the token of a new user: some requests log out."""
    return basic() if case.path.startswith(BACKENDS) else f"Bearer {RUNNING.log_in(next(USERS))}"


@pytest.fixture(scope="module", autouse=True)
def running() -> Iterator[None]:
    with ExitStack() as stack:
        RUNNING.start(stack)
        yield


@pytest.fixture(scope="module")
def seen() -> defaultdict[str, set[int]]:
    """The statuses of the answers of each route."""
    print(f"seed {SEED}, {EXAMPLES} examples for each route")  # noqa: T201 - shown with a failure
    return defaultdict(set)


@SCHEMA.parametrize()
@pytest.mark.parametrize("seed", [SEED])  # without a parameter, pytest gives all operations the same node id
def test_every_answer_matches_the_contract(case: Case, seen: defaultdict[str, set[int]], seed: int) -> None:
    """All checks of Schemathesis pass, for well-formed and malformed requests."""
    if case.headers.get("Authorization") == LATER:
        case.headers["Authorization"] = credential(case)
    if case.meta and case.meta.generation.mode.is_positive:
        make_valid(case)
    # The server itself answers a malformed length, with a 400 that has no problem.
    case.headers.pop("Content-Length", None)
    # /verify answers every method, QUERY too. OpenAPI 3.1 cannot describe QUERY, 3.2 can. And the route of the phone
    # takes "A.png" for a user_code.
    is_described = (case.method != "QUERY" or case.path not in VERIFY) and not case.path.endswith(".png")
    not_described = [] if is_described else [unsupported_method, allow_header_conformance]
    response = case.call_and_validate(RUNNING.url, RUNNING.session, excluded_checks=not_described)
    seen[case.operation.label].add(response.status_code)


def make_valid(case: Case) -> None:
    """Put existing codes, appids and ids into the request: a schema cannot name them."""
    if case.operation.label == "POST /login" and isinstance(case.body, dict):
        live = {
            "code": RUNNING.wechat.fake.wx_login(next(USERS), next(OUTCOMES)),
            "ticket": RUNNING.ticket(next(USERS)),
            "appid": APPID,
        }
        case.body = {name: live.get(name, value) for name, value in case.body.items()}
    if isinstance(case.body, dict):
        add_data_of_wechat(case, case.body)
    if case.operation.label == "DELETE /sessions/{id}" and next(TURNS):
        case.path_parameters["id"] = RUNNING.own_id(dict(case.headers))
    if case.path.startswith(("/users", "/admin/users")) and next(TURNS):
        case.path_parameters["appid"] = APPID
    if case.path in ("/device_authorization", "/token"):
        case.body = form_of_website(case)
    if case.path in ("/introspect", "/revoke") and isinstance(case.body, dict):
        # A list becomes as many form fields, and at most ten are accepted.
        # The client is in Authorization: another id in the form would contradict it.
        fields = case.body.keys() - {"client_id", "client_secret"}
        case.body = {name: value for name, value in case.body.items() if name in fields and isinstance(value, str)}
        if next(TURNS):
            case.body["token"] = RUNNING.log_in(next(USERS))


def form_of_website(case: Case) -> dict[str, Any]:
    """Return the fields of the body with values that exist. The client is in Authorization."""
    device_code = RUNNING.approved_device_code(next(USERS)) if case.path == "/token" else ""
    live = {"appid": APPID, "grant_type": GRANT_TYPE, "device_code": device_code}
    return {name: live[name] for name in case.body if name in live} if isinstance(case.body, dict) else {}


def add_data_of_wechat(case: Case, body: dict[str, Any]) -> None:
    """Put the user data and a phone code of the token's user into the body."""
    if case.path.startswith("/userdata/"):
        user = bearer(case) if next(TURNS) else "another user"
        given = RUNNING.wechat.fake.wx_get_user_profile(APPID, user or "unknown")
        body |= {name: given[name] for name in body.keys() & given.keys()}
    if case.path.endswith("/signature"):
        RUNNING.log_in(user := next(USERS))
        case.path_parameters |= {"appid": APPID, "openid": RUNNING.wechat.fake.openid_of(APPID, user)}
    if case.operation.label == "POST /phone":
        body["code"] = RUNNING.wechat.fake.tap_phone_button(bearer(case) or "unknown", APPID, next(PHONE_OUTCOMES))


def bearer(case: Case) -> str | None:
    """Return the user of the token in the request."""
    return LOGGED_IN.get(str(case.headers.get("Authorization", "")).removeprefix("Bearer "))


@pytest.mark.parametrize("route", SEEN)
def test_the_run_saw_every_status_of_the_route(route: str, seen: defaultdict[str, set[int]]) -> None:
    """A run without these answers proves little."""
    assert SEEN[route] <= seen[route]
