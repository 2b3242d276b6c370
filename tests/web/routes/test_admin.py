"""The operator's page without a browser: who may use it, what its routes answer, and what other sites cannot do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import APPID, Phone
from tests.support.clients import (
    BACKEND,
    CLIENT_SECRET,
    LIMITED,
    SECOND,
    basic,
    problem,
    settings_with_clients,
)
from tests.support.servers import free_port
from wxauth.models import Secret
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.settings import Client, Settings
from wxauth.storage.reasons import CHINESE_HINTS, HINTS
from wxauth.web.app import create_app
from wxauth.web.routes.admin import FILES

ADMIN = "console"
PAGE_HEADER = {"X-WXAuth-Admin": "1"}


def settings_with_admin(redis_port: int = 1, **more: Any) -> Settings:
    """Return settings with two apps and three clients. ADMIN and LIMITED may use the page."""
    settings = settings_with_clients(redis_port)
    secret = Secret(CLIENT_SECRET)
    clients = {
        ADMIN: Client(secret, None, ADMIN),
        LIMITED: Client(secret, frozenset({SECOND}), LIMITED),
        BACKEND: Client(secret, None, BACKEND),
        "website": Client(secret, None, "website", scan_only=True),
    }
    changes: dict[str, Any] = {"clients": clients, "admin_clients": frozenset({ADMIN, LIMITED}), "cache_size": 0}
    return dataclasses.replace(settings, **changes | more)


@pytest.fixture
def settings() -> Settings:
    return settings_with_admin()


@pytest.fixture
def phone(client: FlaskClient, wechat: FakeWeChat) -> Phone:
    return Phone(client, wechat).log_in(appid=APPID, device="iPhone")


@pytest.fixture
def user(phone: Phone) -> str:
    """The path of the user, below /admin and below /."""
    return f"/users/{APPID}/{phone.get('/session').get_json()['openid']}"


def send(
    client: FlaskClient, method: str, path: str, id: str = ADMIN, headers: dict[str, str] | None = None
) -> TestResponse:
    """Send a request as the page does, or with other `headers` than its own."""
    own = PAGE_HEADER if headers is None else headers
    return client.open(path, method=method, headers={"Authorization": basic(id), **own})


def show(client: FlaskClient, user: str) -> Any:
    return send(client, "GET", f"/admin{user}").get_json()


ROUTES = {
    "page": ("GET", "/admin"),
    "file": ("GET", "/admin/page/admin.js"),
    "counters": ("GET", "/admin/counters"),
    "health": ("GET", "/admin/health"),
    "user": ("GET", f"/admin/users/{APPID}/o"),
    "end one": ("DELETE", f"/admin/users/{APPID}/o/sessions/x"),
    "end all": ("DELETE", f"/admin/users/{APPID}/o/sessions"),
    "ban": ("PUT", f"/admin/users/{APPID}/o/ban"),
    "unban": ("DELETE", f"/admin/users/{APPID}/o/ban"),
}
every_route = pytest.mark.parametrize(("method", "path"), ROUTES.values(), ids=ROUTES.keys())
CHANGES = {name: route for name, route in ROUTES.items() if route[0] != "GET"}

# --- Who may use it


def test_table_of_routes_is_complete(client: FlaskClient) -> None:
    rules = [rule for rule in client.application.url_map.iter_rules() if rule.rule.startswith("/admin")]
    assert sum(len((rule.methods or set()) - {"HEAD"}) for rule in rules) == len(ROUTES)


@every_route
def test_without_the_variable_every_route_is_a_404(method: str, path: str) -> None:
    client = create_app(settings_with_admin(admin_clients=frozenset())).test_client()
    assert problem(send(client, method, path)) == (404, "not_found")
    assert problem(client.open(path, method=method)) == (404, "not_found")


@every_route
@pytest.mark.parametrize(
    "authorization", [None, basic(ADMIN, "a-wrong-secret-of-the-console"), basic("unknown"), "x"]
)
def test_wrong_credential_returns_401_with_a_basic_challenge(
    client: FlaskClient, method: str, path: str, authorization: str | None
) -> None:
    headers = PAGE_HEADER | ({"Authorization": authorization} if authorization else {})
    response = client.open(path, method=method, headers=headers)
    assert problem(response) == (401, "client_unauthorized")
    assert response.headers["WWW-Authenticate"] == 'Basic realm="wxauth"'


@every_route
@pytest.mark.parametrize("id", [BACKEND, "website"])
def test_client_that_is_no_admin_returns_insufficient_scope(
    client: FlaskClient, method: str, path: str, id: str
) -> None:
    assert problem(send(client, method, path, id)) == (403, "insufficient_scope")


@every_route
def test_token_of_a_user_opens_no_route(phone: Phone, method: str, path: str) -> None:
    response = phone.client.open(path, method=method, headers=PAGE_HEADER | phone.headers)
    assert problem(response) == (401, "client_unauthorized")


def test_requests_beyond_the_limit_return_429(client: FlaskClient, store: Any) -> None:
    """Guesses at a secret are slowed down."""
    app = create_app(settings_with_admin(client_rate="3/minute"), store=store)
    guess = {"Authorization": basic(ADMIN, "a-guess-at-the-secret")}
    statuses = [app.test_client().get("/admin", headers=guess).status_code for _ in range(5)]
    assert statuses == [401, 401, 401, 429, 429]


# --- The page


@every_route
def test_every_answer_has_the_strict_policy(client: FlaskClient, method: str, path: str) -> None:
    """No inline script or style, no frame, no form, no other origin."""
    for response in (send(client, method, path), client.open(path, method=method)):
        assert response.headers["Content-Security-Policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
            " frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        )
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert not [name for name, _ in response.headers if name.startswith("Access-Control")]


def test_page_names_only_files_that_are_served(client: FlaskClient) -> None:
    page = send(client, "GET", "/admin")
    assert page.mimetype == "text/html"
    for name in set(FILES) - {"index.html"}:
        response = send(client, "GET", f"/admin/page/{name}")
        assert response.mimetype in ("text/css", "text/javascript")
    named = {part.partition('"')[0] for part in page.text.split('"admin/page/')[1:]}
    assert named == {"admin.js", "style.css"}


@pytest.mark.parametrize("name", ["doctor.py", "__init__.py", "no.js", "..", "..%2fapp.py", "%2e%2e%2fapp.py"])
def test_another_file_is_a_404(client: FlaskClient, name: str) -> None:
    assert problem(send(client, "GET", f"/admin/page/{name}")) == (404, "not_found")


@pytest.mark.parametrize("name", FILES)
def test_files_have_no_inline_script_and_no_markup_from_text(name: str) -> None:
    text = FILES[name].read_text()
    forbidden = (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "style=",
        "http:",
        "https:",
    )
    assert [word for word in forbidden if word in text] == []


# --- A user


def test_user_is_shown_with_sessions_and_without_secrets(phone: Phone, user: str) -> None:
    """The members are exactly these: no token, and no session_key."""
    (entry,) = phone.get("/sessions").get_json()["sessions"]
    session = {"id": entry["id"], "device": "iPhone", "kind": "login", "created_at": entry["created_at"]}
    assert show(phone.client, user) == {"banned": False, "sessions": [session]}


def test_session_by_ticket_without_a_label_is_shown_as_such(phone: Phone, user: str) -> None:
    ticket = phone.client.post("/ticket", headers=phone.headers).get_json()["ticket"]
    phone.client.post("/login", json={"ticket": ticket})
    assert [it["kind"] for it in show(phone.client, user)["sessions"]] == ["login", "ticket"]


def test_unknown_user_has_no_sessions(client: FlaskClient) -> None:
    assert show(client, f"/users/{APPID}/oNOBODY") == {"banned": False, "sessions": []}


def test_ending_one_session_leaves_the_others(phone: Phone, wechat: FakeWeChat, user: str) -> None:
    other = Phone(phone.client, wechat).log_in(appid=APPID, device="iPad")
    first, second = show(phone.client, user)["sessions"]
    assert send(phone.client, "DELETE", f"/admin{user}/sessions/{first['id']}").status_code == 204
    assert problem(phone.get("/session")) == (401, "session_revoked")
    assert other.get("/session").status_code == 200
    assert show(phone.client, user)["sessions"] == [second]


def test_ending_an_unknown_session_or_one_of_another_user_is_a_404(
    phone: Phone, wechat: FakeWeChat, user: str
) -> None:
    bob = Phone(phone.client, wechat, "bob").log_in(appid=APPID)
    for id in (bob.get("/session").get_json()["id"], "unknown"):
        assert problem(send(phone.client, "DELETE", f"/admin{user}/sessions/{id}")) == (404, "not_found")
    assert bob.get("/session").status_code == 200


def test_ending_all_sessions_logs_the_user_out(phone: Phone, user: str) -> None:
    assert send(phone.client, "DELETE", f"/admin{user}/sessions").status_code == 204
    assert problem(phone.get("/session")) == (401, "session_revoked")
    assert show(phone.client, user) == {"banned": False, "sessions": []}


def test_ban_is_shown_and_refuses_logins_until_unban(phone: Phone, user: str) -> None:
    assert send(phone.client, "PUT", f"/admin{user}/ban").status_code == 204
    assert show(phone.client, user) == {"banned": True, "sessions": []}
    assert problem(phone.try_to_log_in(appid=APPID)) == (403, "user_banned")
    assert send(phone.client, "DELETE", f"/admin{user}/ban").status_code == 204
    assert show(phone.client, user)["banned"] is False
    phone.log_in(appid=APPID)


def test_limited_admin_gets_404_for_users_of_another_app(phone: Phone, user: str) -> None:
    for method, path in (("GET", user), ("PUT", f"{user}/ban"), ("DELETE", f"{user}/sessions")):
        assert problem(send(phone.client, method, f"/admin{path}", LIMITED)) == (404, "not_found")
    assert phone.get("/session").status_code == 200


# --- Counters and health


def total(client: FlaskClient, name: str, **labels: str) -> int:
    rows = send(client, "GET", "/admin/counters").get_json()["counters"][name]
    return sum(row["value"] for row in rows if row["labels"] == labels)


def test_counters_count_logins_and_checks(phone: Phone) -> None:
    logins, checks = (
        total(phone.client, "logins", outcome="ok"),
        total(phone.client, "checks", result="ok", source="redis"),
    )
    phone.log_in(appid=APPID)
    phone.get("/session")
    assert total(phone.client, "logins", outcome="ok") == logins + 1
    assert total(phone.client, "checks", result="ok", source="redis") > checks


def test_apps_are_those_that_the_client_may_see(client: FlaskClient) -> None:
    assert send(client, "GET", "/admin/counters").get_json()["apps"] == [APPID, SECOND]
    assert send(client, "GET", "/admin/counters", LIMITED).get_json()["apps"] == [SECOND]


def checks(client: FlaskClient, id: str = ADMIN) -> dict[str, Any]:
    results = send(client, "GET", "/admin/health", id).get_json()["checks"]
    return {it["check"]: it for it in results}


def test_health_has_the_checks_of_doctor(client: FlaskClient) -> None:
    found = checks(client)
    assert {"redis", "redis.tls", "redis.latency", "clock", "wechat"} <= found.keys()
    assert (found["redis"]["status"], found["wechat"]["status"]) == ("ok", "ok")


def test_health_of_a_limited_client_names_only_its_app(client: FlaskClient) -> None:
    results = send(client, "GET", "/admin/health", LIMITED).get_json()["checks"]
    assert [it["value"] for it in results if it["check"] == "wechat"] == [40029]
    assert APPID not in str(results)


def test_health_without_redis_has_a_hint_in_both_languages() -> None:
    """It is a 200: the page shows it."""
    client = create_app(settings_with_admin(free_port(), wechat_url="http://127.0.0.1:1")).test_client()
    found = checks(client)
    assert found["redis"]["status"] == "failure"
    assert HINTS["unreachable"] in found["redis"]["english"]
    assert CHINESE_HINTS["unreachable"] in found["redis"]["chinese"]
    assert found["wechat"]["status"] == "failure"


def test_outage_returns_503_for_a_user_and_for_each_change() -> None:
    client = create_app(settings_with_admin(free_port())).test_client()
    for method, path in (ROUTES["user"], *CHANGES.values()):
        assert problem(send(client, method, path)) == (503, "store_unavailable")


def test_each_hint_has_a_chinese_text() -> None:
    assert all(any("\u4e00" <= letter <= "\u9fff" for letter in CHINESE_HINTS.get(reason, "")) for reason in HINTS)


# --- Other sites

#: Headers that a browser sends for a page of another site, with the header of the page that it cannot send.
FOREIGN = {
    "cross-site": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
    "same-site": {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    "form": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Origin": "https://evil.example"},
    "origin": {"Origin": "https://evil.example"},
    "opaque origin": {"Origin": "null"},
    "origin with the host inside": {"Origin": "http://localhost.evil.example"},
    "another port": {"Origin": "http://localhost:8080"},
}
OWN = {
    "a backend": {},
    "same-origin": {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
    "behind a proxy that changes Host": {"Sec-Fetch-Site": "same-origin", "Origin": "https://login.example.com"},
    "without Sec-Fetch-Site": {"Origin": "http://localhost"},
    "typed by the user": {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
}
foreign = pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN.keys())
own = pytest.mark.parametrize("headers", OWN.values(), ids=OWN.keys())


@foreign
@pytest.mark.parametrize(("method", "path"), CHANGES.values(), ids=CHANGES.keys())
def test_change_from_another_site_is_refused(
    client: FlaskClient, method: str, path: str, headers: dict[str, str]
) -> None:
    assert problem(send(client, method, path, headers=PAGE_HEADER | headers)) == (403, "insufficient_scope")


@pytest.mark.parametrize("value", [None, "", "0"])
@pytest.mark.parametrize(("method", "path"), CHANGES.values(), ids=CHANGES.keys())
def test_change_without_the_header_of_the_page_is_refused(
    client: FlaskClient, method: str, path: str, value: str | None
) -> None:
    headers = {} if value is None else {"X-WXAuth-Admin": value}
    assert problem(send(client, method, path, headers=headers)) == (403, "insufficient_scope")


def test_refused_changes_change_nothing(phone: Phone, user: str) -> None:
    for headers in FOREIGN.values():
        for path in (f"/admin{user}", user):
            ask_all = [("DELETE", f"{path}/sessions"), ("PUT", f"{path}/ban")]
            responses = [send(phone.client, *it, headers=PAGE_HEADER | headers) for it in ask_all]
            assert {problem(response) for response in responses} == {(403, "insufficient_scope")}
    assert phone.get("/session").status_code == 200
    assert show(phone.client, user)["banned"] is False


@own
def test_page_may_change_things(phone: Phone, user: str, headers: dict[str, str]) -> None:
    assert send(phone.client, "DELETE", f"/admin{user}/ban", headers=PAGE_HEADER | headers).status_code == 204


@foreign
@pytest.mark.parametrize("path", ["/introspect", "/revoke"])
def test_form_of_another_site_is_refused_at_the_routes_for_backends(
    phone: Phone, path: str, headers: dict[str, str]
) -> None:
    """A browser that knows the credential of a backend adds it to a form of any site."""
    response = phone.client.post(
        path, data={"token": phone.token}, headers={"Authorization": basic(BACKEND), **headers}
    )
    assert problem(response) == (403, "insufficient_scope")
    assert phone.get("/session").status_code == 200


@own
def test_backend_may_revoke(phone: Phone, headers: dict[str, str]) -> None:
    response = phone.client.post(
        "/revoke", data={"token": phone.token}, headers={"Authorization": basic(BACKEND), **headers}
    )
    assert response.status_code == 200
    assert phone.get("/session").status_code == 401


@pytest.mark.parametrize("path", ["/metrics", f"/users/{APPID}/o/sessions", "/admin/counters"])
def test_reads_of_a_page_of_another_site_are_refused(client: FlaskClient, path: str) -> None:
    """It could not read the answer, but the time of the answer."""
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert problem(send(client, "GET", path, headers=headers)) == (403, "insufficient_scope")


def test_link_on_another_site_leads_to_the_page(client: FlaskClient) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert send(client, "GET", "/admin", headers=headers).status_code == 200


def test_credential_in_the_form_is_not_the_browsers(phone: Phone) -> None:
    """A browser does not know it, so the page that sends it may."""
    fields = {"token": phone.token, "client_id": BACKEND, "client_secret": CLIENT_SECRET}
    response = phone.client.post("/introspect", data=fields, headers=FOREIGN["cross-site"])
    assert response.get_json()["active"]


@pytest.mark.parametrize("path", ["/device_authorization", "/token"])
def test_routes_for_pages_of_other_origins_do_not_ask_for_the_site(path: str, store: Any) -> None:
    settings = settings_with_admin(
        public_url="https://login.example.com", cors_origins=frozenset({"https://evil.example"})
    )
    client = create_app(settings, store=store).test_client()
    form = {"appid": APPID, "grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": "x"}
    response = client.post(path, data=form, headers={"Authorization": basic("website"), **FOREIGN["form"]})
    assert response.get_json().get("error", "invalid_grant") == "invalid_grant"
    assert response.headers["Access-Control-Allow-Origin"] == "https://evil.example"


def test_preflight_for_the_page_is_not_granted(store: Any) -> None:
    """So no other origin can send X-WXAuth-Admin, even one of WXAUTH_CORS_ORIGINS."""
    settings = settings_with_admin(cors_origins=frozenset({"https://shop.example"}))
    headers = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "x-wxauth-admin",
    }
    response = create_app(settings, store=store).test_client().options(ROUTES["ban"][1], headers=headers)
    assert response.status_code == 405
    assert not [name for name, _ in response.headers if name.startswith("Access-Control")]


# --- The variable


CLIENTS = f"{ADMIN}:{CLIENT_SECRET},{LIMITED}@{SECOND}:{CLIENT_SECRET},website!scan:{CLIENT_SECRET}"


@pytest.mark.parametrize("ids", ["console", "console,second-only", " console , second-only "])
def test_admins_are_ids_of_clients(ids: str) -> None:
    settings = Settings.read({"WXAUTH_SANDBOX": "1", "WXAUTH_CLIENTS": CLIENTS, "WXAUTH_ADMIN_CLIENTS": ids})
    assert settings[1] == {}
    assert settings[0].admin_clients == {id.strip() for id in ids.split(",")}


@pytest.mark.parametrize(
    "ids", ["unknown", "console,unknown", "website", f"{ADMIN}:{CLIENT_SECRET}", "second-only@x"]
)
def test_admin_that_is_no_client_or_only_for_scans_is_a_configuration_error(ids: str) -> None:
    _, errors = Settings.read({"WXAUTH_SANDBOX": "1", "WXAUTH_CLIENTS": CLIENTS, "WXAUTH_ADMIN_CLIENTS": ids})
    assert list(errors) == ["WXAUTH_ADMIN_CLIENTS"]
    assert CLIENT_SECRET not in str(errors)


def test_error_in_the_clients_is_not_reported_twice() -> None:
    _, errors = Settings.read({"WXAUTH_SANDBOX": "1", "WXAUTH_CLIENTS": "x", "WXAUTH_ADMIN_CLIENTS": ADMIN})
    assert list(errors) == ["WXAUTH_CLIENTS"]


def test_sandbox_has_the_page_where_it_is_configured() -> None:
    environ = {"WXAUTH_SANDBOX": "1", "WXAUTH_CLIENTS": CLIENTS, "WXAUTH_ADMIN_CLIENTS": ADMIN}
    client = create_app(Settings.from_env(environ)).test_client()
    assert send(client, "GET", "/admin").status_code == 200
    assert [it["check"] for it in send(client, "GET", "/admin/health").get_json()["checks"]] == ["sandbox"]
