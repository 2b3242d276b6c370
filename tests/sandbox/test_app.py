"""The sandbox over HTTP: what a newcomer types works, each scripted outcome is its problem, and all of it says so."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from wxauth.errors import ConfigurationError
from wxauth.sandbox import create_app
from wxauth.sandbox.fake_wechat import MOCK_CODE, OUTCOMES
from wxauth.settings import Settings
from wxauth.web.extension import EXTENSION, Services


@pytest.fixture
def client() -> FlaskClient:
    environ = {"WXAUTH_SANDBOX": "1", "WXAUTH_WECHAT_TIMEOUT": "0.5"}
    return create_app(Settings.from_env(environ)).test_client()


def wx_login(client: FlaskClient, **body: str) -> str:
    code: str = client.post("/sandbox/wx.login", json=body).get_json()["code"]
    return code


def log_in(client: FlaskClient, code: str) -> TestResponse:
    return client.post("/login", json={"code": code})


def session_of(client: FlaskClient, code: str) -> dict[str, Any]:
    token = log_in(client, code).get_json()["token"]
    session: dict[str, Any] = client.get("/session", headers={"Authorization": f"Bearer {token}"}).get_json()
    return session


def test_page_shows_what_to_type(client: FlaskClient) -> None:
    """The page has three curl lines, each to the address that it was asked at."""
    lines = [line for line in client.get("/", base_url="http://127.0.0.1:8000").text.splitlines() if "curl" in line]
    addresses = [match[0] for line in lines if (match := re.search(r"http://\S+", line))]
    assert addresses == [f"http://127.0.0.1:8000/{path}" for path in ("sandbox/wx.login", "login", "session")]


def test_page_is_html(client: FlaskClient) -> None:
    """The page is for a browser."""
    assert client.get("/").mimetype == "text/html"


def test_three_steps_log_in(client: FlaskClient) -> None:
    """A code, a token and a session: the page's three lines, one after the other."""
    assert session_of(client, wx_login(client, user="alice"))["openid"].startswith("oSANDBOX")


@pytest.mark.parametrize("sent", [{}, {"json": {}}, {"json": {"user": "visitor"}}], ids=["none", "empty", "named"])
def test_login_without_a_name_is_the_visitors(client: FlaskClient, sent: dict[str, Any]) -> None:
    """wx.login needs no body; whoever says no name is the visitor."""
    code = client.post("/sandbox/wx.login", **sent).get_json()["code"]
    assert session_of(client, code)["openid"] == session_of(client, MOCK_CODE)["openid"]


def test_name_makes_the_user(client: FlaskClient) -> None:
    """Different names are different users."""
    alice, bob = (session_of(client, wx_login(client, user=user)) for user in ("alice", "bob"))
    assert alice["openid"] != bob["openid"]


def test_sandboxes_agree_on_openids() -> None:
    """A user keeps the openid over a restart."""
    clients = [create_app(Settings.from_env({"WXAUTH_SANDBOX": "1"})).test_client() for _ in range(2)]
    first, second = (session_of(client, wx_login(client, user="alice"))["openid"] for client in clients)
    assert first == second


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param({"json": {"outcome": "40013"}}, 400, id="unknown-outcome"),
        pytest.param({"json": {"outcome": ""}}, 400, id="empty-outcome"),
        pytest.param({"json": {"outcome": 40029}}, 400, id="outcome-number"),
        pytest.param({"json": {"user": ""}}, 400, id="empty-user"),
        pytest.param({"json": {"user": "u" * 65}}, 400, id="long-user"),
        pytest.param({"json": {"user": ["alice"]}}, 400, id="user-list"),
        pytest.param({"json": ["alice"]}, 400, id="list"),
        pytest.param({"json": {"new_key": 1}}, 400, id="new-key-number"),
        pytest.param({"data": "user=alice"}, 415, id="not-json"),
    ],
)
def test_odd_request_is_a_problem(client: FlaskClient, sent: dict[str, Any], status: int) -> None:
    """A body that is not understood gets a problem, and no code."""
    response = client.post("/sandbox/wx.login", **sent)
    assert (response.status_code, response.mimetype) == (status, "application/problem+json")


def test_problem_names_the_outcomes(client: FlaskClient) -> None:
    """Whoever asks for an unknown outcome is told the known ones."""
    detail = client.post("/sandbox/wx.login", json={"outcome": "x"}).get_json()["detail"]
    assert [outcome for outcome in OUTCOMES if outcome not in detail] == []


def test_body_without_a_length_is_read(client: FlaskClient) -> None:
    """A chunked body is a body: what it asks for is not passed over."""
    response = client.post(
        "/sandbox/wx.login",
        input_stream=io.BytesIO(b'{"outcome": "x"}'),
        headers={"Transfer-Encoding": "chunked", "Content-Type": "application/json"},
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert response.status_code == 400


def decrypted(client: FlaskClient, token: str, given: dict[str, str]) -> TestResponse:
    body = {name: given[name] for name in ("encryptedData", "iv")}
    return client.post("/userdata/decrypt", json=body, headers={"Authorization": f"Bearer {token}"})


def profile_of(client: FlaskClient, **body: str) -> dict[str, str]:
    given: dict[str, str] = client.post("/sandbox/wx.getUserProfile", json=body).get_json()
    return given


def test_profile_can_be_tried_out(client: FlaskClient) -> None:
    """What the phone is given opens for whoever is logged in, and for nobody else."""
    alice, bob = (log_in(client, wx_login(client, user=user)).get_json()["token"] for user in ("alice", "bob"))
    given = profile_of(client, user="alice")
    assert decrypted(client, alice, given).get_json()["nickName"] == "alice"
    assert decrypted(client, bob, given).status_code == 409


def test_profile_without_a_name_is_the_visitors(client: FlaskClient) -> None:
    """As with wx.login."""
    assert '"nickName":"visitor"' in client.post("/sandbox/wx.getUserProfile").get_json()["rawData"]


def test_key_can_be_made_stale(client: FlaskClient) -> None:
    """After two logins with new keys, what was sealed before them opens no more."""
    given = profile_of(client, user="alice")
    for _ in range(3):
        code = client.post("/sandbox/wx.login", json={"user": "alice", "new_key": True}).get_json()["code"]
        token = log_in(client, code).get_json()["token"]
    assert decrypted(client, token, given).get_json()["code"] == "session_key_stale"


PROBLEMS = {
    "40029": (400, "code_invalid", "login"),
    "40163": (400, "code_used", "login"),
    "40226": (403, "user_blocked", "none"),
    "45011": (429, "rate_limited", "retry"),
    "-1": (503, "wechat_busy", "retry"),
    "stall": (503, "wechat_unreachable", "retry"),
    "garbage": (503, "wechat_unreachable", "retry"),
}


def test_every_outcome_has_its_problem() -> None:
    """The table below leaves no outcome out."""
    assert set(PROBLEMS) == set(OUTCOMES)


@pytest.mark.parametrize(("outcome", "expected"), PROBLEMS.items(), ids=PROBLEMS)
def test_outcome_is_its_problem(client: FlaskClient, outcome: str, expected: tuple[int, str, str]) -> None:
    """A scripted code makes the login fail as WeChat would have made it."""
    response = log_in(client, wx_login(client, outcome=outcome))
    problem = response.get_json()
    assert (response.status_code, problem["code"], problem["action"]) == expected


def test_code_is_single_use(client: FlaskClient) -> None:
    """A code that logged in is used."""
    code = wx_login(client)
    log_in(client, code)
    assert log_in(client, code).get_json()["code"] == "code_used"


def test_mock_code_logs_in_any_number_of_times(client: FlaskClient) -> None:
    """What DevTools sends without an AppID works here, again and again."""
    assert [log_in(client, MOCK_CODE).status_code for _ in range(3)] == [200, 200, 200]


def notes(client: FlaskClient, response: TestResponse) -> list[dict[str, Any]]:
    trace = client.get(f"/sandbox/trace/{response.headers['X-WXAuth-Request']}").get_json()
    found: list[dict[str, Any]] = trace["notes"]
    return found


def bearer(client: FlaskClient) -> dict[str, str]:
    return {"Authorization": f"Bearer {log_in(client, wx_login(client)).get_json()['token']}"}


def test_trace_tells_whom_a_login_asked(client: FlaskClient) -> None:
    """Redis before the code is spent, WeChat, and Redis again."""
    partners = [note["with"] for note in notes(client, log_in(client, wx_login(client)))]
    assert [partner for partner, before in zip(partners, ["", *partners], strict=False) if partner != before] == [
        "redis",
        "wechat",
        "redis",
    ]


def test_trace_is_found_by_the_id_of_a_problem(client: FlaskClient) -> None:
    """Whoever has a problem's request_id can see what went on."""
    problem = log_in(client, wx_login(client, outcome="40226")).get_json()
    (note,) = (
        note
        for note in client.get(f"/sandbox/trace/{problem['request_id']}").get_json()["notes"]
        if note["with"] == "wechat"
    )
    assert '"errcode": 40226' in note["answer"]["body"]


def test_trace_of_an_unknown_request_is_empty(client: FlaskClient) -> None:
    """It is forgotten, or never had anybody to ask."""
    assert client.get("/sandbox/trace/0123456789abcdef").get_json() == {"notes": []}


def test_trace_holds_no_secret(client: FlaskClient) -> None:
    """No AppSecret, no session_key, no token; and none of that is to be seen in Redis."""
    response = log_in(client, wx_login(client, user="alice"))
    token = response.get_json()["token"]
    held: Services = client.application.extensions[EXTENSION]
    session_key = held.store.resolve(token).session_key or ""
    (secret,) = held.settings.apps.values()
    told = json.dumps([notes(client, response), client.get("/sandbox/redis").get_json()])
    assert "oSANDBOX" in told
    hidden = [session_key, secret.reveal(), token]
    assert all(hidden)
    assert [it for it in hidden if it in told or it.encode().hex() in told] == []


def test_redis_can_be_looked_into(client: FlaskClient) -> None:
    """A login leaves a counter, a record and its user's hash, each with a time limit."""
    log_in(client, wx_login(client))
    found = client.get("/sandbox/redis").get_json()
    assert sorted(key["key"].split(":")[-2] for key in found["holds"]["keys"]) == ["l", "s", "u"]
    assert [key for key in found["holds"]["keys"] if key["ttl"] <= 0] == []


def test_unplugged_redis_is_a_503_and_no_logout(client: FlaskClient) -> None:
    """The session can't be asked about while Redis is away, and is alive when it is back."""
    headers = bearer(client)
    away = client.delete("/sandbox/redis").get_json()
    problem = client.get("/session", headers=headers)
    back = client.put("/sandbox/redis").get_json()
    assert (away["holds"], away["back_in"] > 0, back["back_in"]) == (None, True, 0)
    assert (problem.get_json()["code"], client.get("/session", headers=headers).status_code) == (
        "store_unavailable",
        200,
    )


def test_a_session_can_be_let_expire(client: FlaskClient) -> None:
    """What a week of silence does, at once."""
    headers = bearer(client)
    assert client.post("/sandbox/expire", headers=headers).status_code == 204
    assert client.get("/session", headers=headers).get_json()["code"] == "token_invalid"


@pytest.mark.parametrize(("headers", "code"), [({}, "token_missing"), ({"Authorization": "x"}, "token_invalid")])
def test_no_session_expires_without_its_token(client: FlaskClient, headers: dict[str, str], code: str) -> None:
    """The sandbox, too, asks who is there."""
    assert client.post("/sandbox/expire", headers=headers).get_json()["code"] == code


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/sandbox/redis"),
        ("GET", "/sandbox/page/app.js"),
        ("POST", "/sandbox/wx.login"),
        ("GET", "/sandbox/wx.login"),
        ("POST", "/sandbox/wx.getUserProfile"),
        ("POST", "/login"),
        ("GET", "/session"),
        ("DELETE", "/sessions"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/openapi.yaml"),
        ("GET", "/no/such/thing"),
    ],
)
def test_every_answer_says_sandbox(client: FlaskClient, method: str, path: str) -> None:
    """Nobody can take the sandbox for the service: successes and problems alike carry its mark."""
    assert client.open(path, method=method).headers["X-WXAuth-Mode"] == "sandbox"


def test_sandbox_is_ready_by_itself(client: FlaskClient) -> None:
    """The sandbox needs nobody else."""
    assert client.get("/readyz").get_json() == {"redis": "ok", "wechat": "ok"}


@pytest.mark.parametrize("name", ["WECHAT_SECRET", "WXAUTH_APPS"])
def test_sandbox_beside_a_real_secret_is_a_fault(name: str) -> None:
    """The sandbox never starts where a real mini program is configured."""
    with pytest.raises(ConfigurationError, match="WXAUTH_SANDBOX"):
        Settings.from_env({"WXAUTH_SANDBOX": "1", name: "wx0123456789abcdef:a-secret"})
