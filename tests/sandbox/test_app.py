"""The sandbox over HTTP: the documented commands work, and each scripted outcome is answered with its problem."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from wxauth.sandbox.fake_wechat import MOCK_CODE, OUTCOMES
from wxauth.settings import Settings
from wxauth.web.app import create_app
from wxauth.web.services import EXTENSION, Services


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


def test_page_contains_three_curl_commands_with_its_own_address(client: FlaskClient) -> None:
    lines = [line for line in client.get("/", base_url="http://127.0.0.1:8000").text.splitlines() if "curl" in line]
    addresses = [match[0] for line in lines if (match := re.search(r"http://\S+", line))]
    assert addresses == [f"http://127.0.0.1:8000/{path}" for path in ("sandbox/wx.login", "login", "session")]


def test_page_is_html(client: FlaskClient) -> None:
    assert client.get("/").mimetype == "text/html"


def test_the_three_commands_of_the_page_log_in(client: FlaskClient) -> None:
    assert session_of(client, wx_login(client, user="alice"))["openid"].startswith("oSANDBOX")


@pytest.mark.parametrize("sent", [{}, {"json": {}}, {"json": {"user": "visitor"}}], ids=["none", "empty", "named"])
def test_wx_login_without_a_user_logs_the_visitor_in(client: FlaskClient, sent: dict[str, Any]) -> None:
    """The body is optional."""
    code = client.post("/sandbox/wx.login", **sent).get_json()["code"]
    assert session_of(client, code)["openid"] == session_of(client, MOCK_CODE)["openid"]


def test_two_names_are_two_users(client: FlaskClient) -> None:
    alice, bob = (session_of(client, wx_login(client, user=user)) for user in ("alice", "bob"))
    assert alice["openid"] != bob["openid"]


def test_two_sandboxes_give_a_user_the_same_openid() -> None:
    """A user keeps the openid after a restart."""
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
def test_an_invalid_request_is_answered_with_a_problem(
    client: FlaskClient, sent: dict[str, Any], status: int
) -> None:
    response = client.post("/sandbox/wx.login", **sent)
    assert (response.status_code, response.mimetype) == (status, "application/problem+json")


def test_an_unknown_outcome_is_a_problem_that_lists_the_known_ones(client: FlaskClient) -> None:
    detail = client.post("/sandbox/wx.login", json={"outcome": "x"}).get_json()["detail"]
    assert [outcome for outcome in OUTCOMES if outcome not in detail] == []


def test_a_chunked_body_is_read(client: FlaskClient) -> None:
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


def test_a_profile_can_be_decrypted_by_its_user_only(client: FlaskClient) -> None:
    alice, bob = (log_in(client, wx_login(client, user=user)).get_json()["token"] for user in ("alice", "bob"))
    given = profile_of(client, user="alice")
    assert decrypted(client, alice, given).get_json()["nickName"] == "alice"
    assert decrypted(client, bob, given).status_code == 409


def test_wx_get_user_profile_without_a_user_is_about_the_visitor(client: FlaskClient) -> None:
    assert '"nickName":"visitor"' in client.post("/sandbox/wx.getUserProfile").get_json()["rawData"]


def test_a_profile_is_stale_after_two_new_session_keys(client: FlaskClient) -> None:
    """The service keeps the newest session_key and the previous one."""
    given = profile_of(client, user="alice")
    for _ in range(3):
        code = client.post("/sandbox/wx.login", json={"user": "alice", "new_key": True}).get_json()["code"]
        token = log_in(client, code).get_json()["token"]
    assert decrypted(client, token, given).get_json()["code"] == "session_key_stale"


PROBLEMS = {
    "40029": (400, "code_invalid", "login"),
    "40163": (400, "code_used", "login"),
    "40164": (503, "wechat_misconfigured", "none"),
    "40226": (403, "user_blocked", "none"),
    "45011": (429, "rate_limited", "retry"),
    "-1": (503, "wechat_busy", "retry"),
    "stall": (503, "wechat_unreachable", "retry"),
    "garbage": (503, "wechat_unreachable", "retry"),
}


def test_the_table_of_problems_has_every_outcome() -> None:
    assert set(PROBLEMS) == set(OUTCOMES)


@pytest.mark.parametrize(("outcome", "expected"), PROBLEMS.items(), ids=PROBLEMS)
def test_login_with_a_scripted_code_returns_its_problem(
    client: FlaskClient, outcome: str, expected: tuple[int, str, str]
) -> None:
    response = log_in(client, wx_login(client, outcome=outcome))
    problem = response.get_json()
    assert (response.status_code, problem["code"], problem["action"]) == expected


def test_login_with_a_used_code_returns_code_used(client: FlaskClient) -> None:
    code = wx_login(client)
    log_in(client, code)
    assert log_in(client, code).get_json()["code"] == "code_used"


def test_the_mock_code_of_devtools_can_be_used_again(client: FlaskClient) -> None:
    """DevTools sends it if the project has no AppID."""
    assert [log_in(client, MOCK_CODE).status_code for _ in range(3)] == [200, 200, 200]


def notes(client: FlaskClient, response: TestResponse) -> list[dict[str, Any]]:
    trace = client.get(f"/sandbox/trace/{response.headers['X-WXAuth-Request']}").get_json()
    found: list[dict[str, Any]] = trace["notes"]
    return found


def bearer(client: FlaskClient) -> dict[str, str]:
    return {"Authorization": f"Bearer {log_in(client, wx_login(client)).get_json()['token']}"}


def test_the_trace_of_a_login_has_redis_then_wechat_then_redis(client: FlaskClient) -> None:
    """The rate limit is checked before the code is used."""
    partners = [note["with"] for note in notes(client, log_in(client, wx_login(client)))]
    assert [partner for partner, before in zip(partners, ["", *partners], strict=False) if partner != before] == [
        "redis",
        "wechat",
        "redis",
    ]


def test_the_trace_is_found_by_the_request_id_of_a_problem(client: FlaskClient) -> None:
    problem = log_in(client, wx_login(client, outcome="40226")).get_json()
    (note,) = (
        note
        for note in client.get(f"/sandbox/trace/{problem['request_id']}").get_json()["notes"]
        if note["with"] == "wechat"
    )
    assert '"errcode": 40226' in note["answer"]["body"]


def test_the_trace_of_an_unknown_request_is_empty(client: FlaskClient) -> None:
    assert client.get("/sandbox/trace/0123456789abcdef").get_json() == {"notes": []}


def test_the_trace_contains_no_secret(client: FlaskClient) -> None:
    """No AppSecret, no session_key and no token, neither in the trace nor in the content of Redis."""
    response = log_in(client, wx_login(client, user="alice"))
    token = response.get_json()["token"]
    held: Services = client.application.extensions[EXTENSION]
    session_key = held.store.resolve(token).session_key or ""
    (secret,) = held.settings.apps.values()
    shown = json.dumps([notes(client, response), client.get("/sandbox/redis").get_json()])
    assert "oSANDBOX" in shown
    hidden = [session_key, secret.reveal(), token]
    assert all(hidden)
    assert [it for it in hidden if it in shown or it.encode().hex() in shown] == []


def test_redis_has_a_counter_and_a_hash_of_the_user_after_a_login(client: FlaskClient) -> None:
    """Each key has a time limit."""
    log_in(client, wx_login(client))
    found = client.get("/sandbox/redis").get_json()
    assert sorted((key["key"][:5], key["type"]) for key in found["holds"]["keys"]) == [
        ("wxa:l", "string"),
        ("wxa:{", "hash"),
    ]
    assert [key for key in found["holds"]["keys"] if key["ttl"] <= 0] == []


def test_a_stopped_redis_is_a_503_and_the_session_survives(client: FlaskClient) -> None:
    headers = bearer(client)
    away = client.delete("/sandbox/redis").get_json()
    problem = client.get("/session", headers=headers)
    back = client.put("/sandbox/redis").get_json()
    assert (away["holds"], away["back_in"] > 0, back["back_in"]) == (None, True, 0)
    assert (problem.get_json()["code"], client.get("/session", headers=headers).status_code) == (
        "store_unavailable",
        200,
    )


def test_an_emptied_redis_holds_nothing_and_ends_the_session(client: FlaskClient) -> None:
    headers = bearer(client)
    assert client.delete("/sandbox/redis/keys").get_json()["holds"] == {"total": 0, "keys": []}
    assert client.get("/session", headers=headers).get_json()["code"] == "token_invalid"


def test_a_stopped_redis_cannot_be_emptied(client: FlaskClient) -> None:
    """The data is there when it starts again."""
    headers = bearer(client)
    client.delete("/sandbox/redis")
    code = client.delete("/sandbox/redis/keys").get_json()["code"]
    client.put("/sandbox/redis")
    assert (code, client.get("/session", headers=headers).status_code) == ("store_unavailable", 200)


def test_the_rate_of_logins_can_be_lowered_and_reset(client: FlaskClient) -> None:
    assert client.put("/sandbox/login_rate", json={"per_minute": 1}).status_code == 204
    limited = [log_in(client, wx_login(client)).status_code for _ in range(2)]
    assert client.delete("/sandbox/login_rate").status_code == 204
    assert (limited, log_in(client, wx_login(client)).status_code) == ([200, 429], 200)


@pytest.mark.parametrize("number", [0, 1001, "1", True, None])
def test_an_invalid_rate_of_logins_is_a_problem(client: FlaskClient, number: object) -> None:
    response = client.put("/sandbox/login_rate", json={"per_minute": number})
    assert response.get_json()["code"] == "bad_request"


def test_a_user_can_be_banned_and_allowed_again(client: FlaskClient) -> None:
    """Only this user."""
    headers = bearer(client)
    statuses = []
    for act in (client.put, client.delete):
        assert act("/sandbox/ban").status_code == 204
        statuses.append([log_in(client, wx_login(client, user=user)).status_code for user in ("visitor", "bob")])
    assert client.get("/session", headers=headers).get_json()["code"] == "token_invalid"
    assert statuses == [[403, 200], [200, 200]]


def test_expire_ends_the_session(client: FlaskClient) -> None:
    """As the idle timeout does."""
    headers = bearer(client)
    assert client.post("/sandbox/expire", headers=headers).status_code == 204
    assert client.get("/session", headers=headers).get_json()["code"] == "token_invalid"


def device_codes(client: FlaskClient) -> dict[str, Any]:
    codes: dict[str, Any] = client.post("/device_authorization", data={"client_id": "shop.example"}).get_json()
    return codes


def poll(client: FlaskClient, device_code: str) -> dict[str, Any]:
    grant_type = "urn:ietf:params:oauth:grant-type:device_code"
    form = {"grant_type": grant_type, "device_code": device_code, "client_id": "shop.example"}
    answer: dict[str, Any] = client.post("/token", data=form).get_json()
    return answer


def test_expire_ends_a_device_code(client: FlaskClient) -> None:
    """As its five minutes do. Another code is not touched."""
    expired, other = device_codes(client), device_codes(client)
    assert client.post(f"/sandbox/expire/{expired['user_code']}").status_code == 204
    assert poll(client, expired["device_code"])["error"] == "expired_token"
    phone = client.get(f"/device/{expired['user_code']}", headers=bearer(client))
    assert (phone.status_code, poll(client, other["device_code"])["error"]) == (404, "authorization_pending")


def test_expire_of_an_unknown_device_code_adds_nothing_to_redis(client: FlaskClient) -> None:
    assert client.post("/sandbox/expire/BCDF-GHJK").status_code == 204
    assert client.get("/sandbox/redis").get_json()["holds"]["keys"] == []


def test_expire_of_a_text_that_is_no_user_code_is_a_404(client: FlaskClient) -> None:
    assert client.post("/sandbox/expire/no-code").get_json()["code"] == "not_found"


def test_the_trace_of_a_code_image_has_its_size_in_place_of_its_bytes(client: FlaskClient) -> None:
    """And no access token."""
    image = client.get(f"/device/{device_codes(client)['user_code']}.png")
    (note,) = (note for note in notes(client, image) if "getwxacodeunlimit" in str(note))
    assert note["answer"]["body"] == f"({len(image.data)} bytes)"
    assert note["request"]["line"] == "POST /wxa/getwxacodeunlimit?access_token=••••••••"


def test_max_sessions_holds_until_it_is_deleted(client: FlaskClient) -> None:
    """Then the configured number holds again."""
    assert client.put("/sandbox/max_sessions", json={"max_sessions": 1}).status_code == 204
    replaced, last = bearer(client), bearer(client)
    assert client.get("/session", headers=replaced).get_json()["code"] == "session_replaced"
    assert client.delete("/sandbox/max_sessions").status_code == 204
    bearer(client)
    assert client.get("/session", headers=last).status_code == 200


@pytest.mark.parametrize("number", [None, 0, 1001, -1, 1.5, True, "1", [1]])
def test_max_sessions_must_be_a_number_of_the_allowed_range(client: FlaskClient, number: Any) -> None:
    response = client.put("/sandbox/max_sessions", json={"max_sessions": number})
    assert (response.status_code, response.get_json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize(("headers", "code"), [({}, "token_missing"), ({"Authorization": "x"}, "token_invalid")])
def test_expire_without_a_valid_token_is_rejected(client: FlaskClient, headers: dict[str, str], code: str) -> None:
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
def test_every_answer_has_the_sandbox_header(client: FlaskClient, method: str, path: str) -> None:
    """Successes and problems."""
    assert client.open(path, method=method).headers["X-WXAuth-Mode"] == "sandbox"


def test_the_sandbox_is_ready_without_external_services(client: FlaskClient) -> None:
    assert client.get("/readyz").get_json() == {"redis": "ok", "wechat": "ok"}
