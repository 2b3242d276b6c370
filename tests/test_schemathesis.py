"""The contract against the service: requests made from openapi.yaml, and answers that are as it says.

The seed is fixed and printed; another one, and more requests, are chosen with SCHEMATHESIS_SEED and
SCHEMATHESIS_EXAMPLES.
"""

from __future__ import annotations

import base64
import itertools
import os
from collections import defaultdict
from typing import Any, ClassVar

import pytest
import schemathesis
from schemathesis.specs.openapi.checks import unsupported_method

from tests.conftest import APPID, Phone
from tests.test_properties import House

SEED = int(os.environ.get("SCHEMATHESIS_SEED", "20261122"))
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "40"))

#: What the logins of well-formed requests end in, in turn: WeChat's refusals are in the contract, too.
OUTCOMES = itertools.cycle([None, None, "40226", None, "45011", None, "garbage"])
PHONE_OUTCOMES = itertools.cycle([None, "45011", None, "garbage"])
TURNS = itertools.cycle([True, False])

#: Where a backend shows its own credential.
BACKENDS = ("/introspect", "/revoke", "/users", "/metrics")

#: What a run must have seen, or it has proved little.
SEEN = {
    "POST /login": {200, 400, 403, 415, 429, 503},
    "GET /session": {200, 401, 405},
    "DELETE /session": {204, 401},
    "GET /sessions": {200, 401},
    "DELETE /sessions": {204, 400, 401},
    "POST /phone": {200, 400, 401, 415, 429, 503},
    "DELETE /sessions/{id}": {204, 401, 404},
    "GET /healthz": {200, 405},
    "GET /readyz": {200, 405},
    "POST /introspect": {200, 400, 401, 415},
    "POST /revoke": {200, 400, 401, 415},
    "GET /users/{appid}/{openid}/sessions": {401, 404},
    "GET /verify": {204, 401},
}


HOUSE = House()
CONFIG = schemathesis.Config.from_dict(
    {
        "seed": SEED,
        "generation": {"max-examples": EXAMPLES},
        # 502 and 503 are promises of the contract; 500 is a bug.
        "checks": {"not_a_server_error": {"expected-statuses": ["2xx", "4xx", "502", "503"]}},
    }
)
SCHEMA = schemathesis.openapi.from_wsgi("/openapi.yaml", HOUSE.app, config=CONFIG)
USERS = (f"user {number}" for number in itertools.count())

Case = schemathesis.Case[Any]


@SCHEMA.auth(refresh_interval=None)
class LiveToken:
    """A login of somebody new for each request: some requests log out."""

    #: Who is behind each header that was sent.
    users: ClassVar[dict[str, str]] = {}

    def get(self, case: Case, context: schemathesis.AuthContext) -> str:
        phone = Phone(HOUSE.app.test_client(), HOUSE.wechat, next(USERS)).log_in()
        self.users[f"Bearer {phone.token}"] = phone.user
        return phone.token

    def set(self, case: Case, data: str, context: schemathesis.AuthContext) -> None:
        client = base64.b64encode(b"shop:shop-secret").decode()
        case.headers["Authorization"] = f"Basic {client}" if case.path.startswith(BACKENDS) else f"Bearer {data}"


@pytest.fixture(scope="module")
def seen() -> defaultdict[str, set[int]]:
    """The statuses that each route answered with."""
    print(f"seed {SEED}, {EXAMPLES} examples for each route")  # noqa: T201 - shown with a failure
    return defaultdict(set)


@SCHEMA.parametrize()
def test_every_answer_is_as_the_contract_says(case: Case, seen: defaultdict[str, set[int]]) -> None:
    """Schemathesis's checks, all of them, find nothing, whether the request is well-formed or not."""
    if case.meta and case.meta.generation.mode.is_positive:
        make_true(case)
    # /verify answers whatever method there is, also those that OpenAPI has no name for.
    response = case.call_and_validate(excluded_checks=[unsupported_method] if case.path == "/verify" else [])
    seen[case.operation.label].add(response.status_code)


def make_true(case: Case) -> None:
    """A schema can't say which codes, appids and ids there are, nor what is printable."""
    if case.operation.label == "POST /login" and isinstance(case.body, dict):
        live = {"code": HOUSE.wechat.wx_login(next(USERS), next(OUTCOMES)), "appid": APPID}
        case.body = {name: live.get(name, value) for name, value in case.body.items()}
        if not str(case.body.get("device")).isprintable():
            case.body["device"] = "手机"
    if case.operation.label == "POST /phone" and isinstance(case.body, dict):
        case.body["code"] = tapped_by_the_bearer(case)
    if case.operation.label == "DELETE /sessions/{id}" and next(TURNS):
        own = HOUSE.app.test_client().get("/session", headers=dict(case.headers)).get_json()
        case.path_parameters["id"] = own.get("id", "none")


def tapped_by_the_bearer(case: Case) -> str:
    """A phone code of the user whose token is sent along, as far as this is known."""
    return HOUSE.wechat.tap_phone_button(
        LiveToken.users.get(case.headers.get("Authorization", ""), ""), APPID, next(PHONE_OUTCOMES)
    )


@pytest.mark.parametrize("route", SEEN)
def test_the_run_has_seen_every_kind_of_answer(route: str, seen: defaultdict[str, set[int]]) -> None:
    """Each route was asked in ways that let it answer well and badly."""
    assert SEEN[route] <= seen[route]
