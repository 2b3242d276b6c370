"""The contract against the running service: requests made from openapi.yaml, and answers that are as it says.

The seed is fixed and printed; another one, and more requests, are chosen with SCHEMATHESIS_SEED and
SCHEMATHESIS_EXAMPLES.
"""

from __future__ import annotations

import base64
import itertools
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests
import schemathesis
from schemathesis.specs.openapi.checks import unsupported_method

from tests.conftest import APPID
from tests.servers import RedisServer
from tests.service import ROOT, Service, WeChatServer, environment

SEED = int(os.environ.get("SCHEMATHESIS_SEED", "20261122"))
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "40"))

#: What the logins of well-formed requests end in, in turn: WeChat's refusals are in the contract, too.
OUTCOMES = itertools.cycle([None, None, "40226", None, "45011", None, "garbage"])
PHONE_OUTCOMES = itertools.cycle([None, "45011", None, "garbage"])
TURNS = itertools.cycle([True, False])

#: What a run must have seen, or it has proved little.
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
    "GET /verify": {204, 401},
}

#: Where a backend shows its own credential.
BACKENDS = ("/introspect", "/revoke", "/users", "/metrics")
LATER = "a credential"


class House:
    """The service from its Procfile, over a real Redis; started once, by the fixture below."""

    session = requests.Session()

    def start(self, stack: ExitStack) -> None:
        redis = stack.enter_context(RedisServer())
        self.wechat = stack.enter_context(WeChatServer())
        limits = {"WXAUTH_CLIENTS": "shop:shop-secret", "WXAUTH_CLIENT_RATE": "1000000/minute"}
        self.url = stack.enter_context(Service(environment(redis.url, self.wechat.url, **limits))).url
        stack.enter_context(self.session)

    def log_in(self, user: str) -> str:
        """A token."""
        answer = self.session.post(f"{self.url}/login", json={"code": self.wechat.fake.wx_login(user)}, timeout=5)
        token: str = answer.json()["token"]
        LOGGED_IN[token] = user
        return token

    def own_id(self, headers: dict[str, str]) -> str:
        """The id of the session whose token is among `headers`, if it is alive."""
        answer = self.session.get(f"{self.url}/session", headers=headers, timeout=5)
        return str(answer.json().get("id", "none"))


HOUSE = House()
CONFIG = schemathesis.Config.from_dict(
    {
        "seed": SEED,
        "generation": {"max-examples": EXAMPLES},
        # 502 and 503 are promises of the contract; 500 is a bug.
        "checks": {"not_a_server_error": {"expected-statuses": ["2xx", "4xx", "502", "503"]}},
    }
)
SCHEMA = schemathesis.openapi.from_path(ROOT / "wxauth" / "openapi.yaml", config=CONFIG)
USERS = (f"user {number}" for number in itertools.count())
#: Who is logged in with which token.
LOGGED_IN: dict[str, str] = {}

Case = schemathesis.Case[Any]


@SCHEMA.auth(refresh_interval=None)
class Later:
    """Where a credential belongs: some requests are made up before the service runs."""

    def get(self, case: Case, context: schemathesis.AuthContext) -> str:
        return LATER

    def set(self, case: Case, data: str, context: schemathesis.AuthContext) -> None:
        case.headers["Authorization"] = data


def credential(case: Case) -> str:
    """A backend's own, or the token of a login of somebody new: some requests log out."""
    client = base64.b64encode(b"shop:shop-secret").decode()
    return f"Basic {client}" if case.path.startswith(BACKENDS) else f"Bearer {HOUSE.log_in(next(USERS))}"


@pytest.fixture(scope="module", autouse=True)
def running() -> Iterator[None]:
    with ExitStack() as stack:
        HOUSE.start(stack)
        yield


@pytest.fixture(scope="module")
def seen() -> defaultdict[str, set[int]]:
    """The statuses that each route answered with."""
    print(f"seed {SEED}, {EXAMPLES} examples for each route")  # noqa: T201 - shown with a failure
    return defaultdict(set)


@SCHEMA.parametrize()
@pytest.mark.parametrize("seed", [SEED])  # without a parameter, pytest gives all operations the same node id
def test_every_answer_is_as_the_contract_says(case: Case, seen: defaultdict[str, set[int]], seed: int) -> None:
    """Schemathesis's checks, all of them, find nothing, whether the request is well-formed or not."""
    if case.headers.get("Authorization") == LATER:
        case.headers["Authorization"] = credential(case)
    if case.meta and case.meta.generation.mode.is_positive:
        make_true(case)
    # /verify answers QUERY too, as it does any method; OpenAPI has a word for that from 3.2 on, and this is 3.1.
    unsayable = [unsupported_method] if (case.method, case.path) == ("QUERY", "/verify") else []
    response = case.call_and_validate(HOUSE.url, HOUSE.session, excluded_checks=unsayable)
    seen[case.operation.label].add(response.status_code)


def make_true(case: Case) -> None:
    """A schema can't say which codes, appids and ids there are, nor what is printable."""
    if case.operation.label == "POST /login" and isinstance(case.body, dict):
        live = {"code": HOUSE.wechat.fake.wx_login(next(USERS), next(OUTCOMES)), "appid": APPID}
        case.body = {name: live.get(name, value) for name, value in case.body.items()}
        if not str(case.body.get("device")).isprintable():
            case.body["device"] = "手机"
    if isinstance(case.body, dict):
        give_what_wechat_gave(case, case.body)
    if case.operation.label == "DELETE /sessions/{id}" and next(TURNS):
        case.path_parameters["id"] = HOUSE.own_id(dict(case.headers))
    if case.path.startswith("/users") and next(TURNS):
        case.path_parameters["appid"] = APPID
    if case.path in ("/introspect", "/revoke") and isinstance(case.body, dict):
        # In a form a list is as many fields, and ten are the most.
        case.body = {name: value for name, value in case.body.items() if isinstance(value, str)}
        if next(TURNS):
            case.body["token"] = HOUSE.log_in(next(USERS))


def give_what_wechat_gave(case: Case, body: dict[str, Any]) -> None:
    """User data and a phone code of the user whose token is sent along, as far as this is known."""
    if case.path.startswith("/userdata/"):
        user = bearer(case) if next(TURNS) else "somebody else"
        given = HOUSE.wechat.fake.wx_get_user_profile(APPID, user or "nobody")
        body |= {name: given[name] for name in body.keys() & given.keys()}
    if case.operation.label == "POST /phone":
        body["code"] = HOUSE.wechat.fake.tap_phone_button(bearer(case) or "nobody", APPID, next(PHONE_OUTCOMES))


def bearer(case: Case) -> str | None:
    """Who is logged in with the token that is sent along."""
    return LOGGED_IN.get(str(case.headers.get("Authorization", "")).removeprefix("Bearer "))


@pytest.mark.parametrize("route", SEEN)
def test_the_run_has_seen_every_kind_of_answer(route: str, seen: defaultdict[str, set[int]]) -> None:
    """Each route was asked in ways that let it answer well and badly."""
    assert SEEN[route] <= seen[route]
