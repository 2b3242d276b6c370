"""`/users`: a backend lists and ends the sessions of a user, and bans a user. On both kinds of Redis."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from tests.conftest import APPID, Phone
from tests.support.clients import LIMITED, SECOND, ask, basic, problem, settings_with_clients
from wxauth.models import User
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.sessions.store import SessionStore
from wxauth.settings import Settings


@pytest.fixture
def settings() -> Settings:
    return settings_with_clients()


@pytest.fixture
def phone(client: FlaskClient, wechat: FakeWeChat) -> Phone:
    return Phone(client, wechat).log_in(appid=APPID, device="iPhone")


@pytest.fixture
def user(phone: Phone) -> str:
    """The path of the user."""
    return f"/users/{APPID}/{phone.get('/session').get_json()['openid']}"


def test_sessions_of_a_user_are_listed(phone: Phone, user: str) -> None:
    """Like the user's own list, but no session is the current one."""
    mine = phone.get("/sessions").get_json()["sessions"]
    theirs = ask(phone.client, "GET", f"{user}/sessions").get_json()["sessions"]
    assert theirs == [{**row, "current": False} for row in mine]
    assert theirs[0]["device"] == "iPhone"


def test_unknown_user_has_an_empty_list(client: FlaskClient) -> None:
    """A user who logged out has the same list."""
    assert ask(client, "GET", f"/users/{APPID}/oNOBODY/sessions").get_json() == {"sessions": []}


def test_delete_sessions_ends_all_sessions_of_this_user_only(phone: Phone, wechat: FakeWeChat, user: str) -> None:
    other = Phone(phone.client, wechat, "bob").log_in(appid=APPID)
    second = Phone(phone.client, wechat).log_in(appid=APPID)
    assert ask(phone.client, "DELETE", f"{user}/sessions").status_code == 204
    assert [who.get("/session").status_code for who in (phone, second, other)] == [401, 401, 200]


def test_ban_ends_all_sessions_and_refuses_logins_until_unban(phone: Phone, user: str) -> None:
    """Both can be repeated."""
    assert [ask(phone.client, "PUT", f"{user}/ban").status_code for _ in range(2)] == [204, 204]
    assert problem(phone.get("/session")) == (403, "user_banned")
    assert problem(phone.try_to_log_in(appid=APPID)) == (403, "user_banned")
    assert [ask(phone.client, "DELETE", f"{user}/ban").status_code for _ in range(2)] == [204, 204]
    phone.log_in(appid=APPID)


def test_ban_holds_in_its_app_only(phone: Phone, user: str, store: SessionStore) -> None:
    ask(phone.client, "PUT", f"{user}/ban")
    assert phone.try_to_log_in(appid=SECOND).status_code == 200
    store.unban(User(SECOND, user.rpartition("/")[2]))
    assert problem(phone.try_to_log_in(appid=APPID)) == (403, "user_banned")


@pytest.mark.parametrize(("method", "what"), [("GET", "sessions"), ("DELETE", "sessions"), ("PUT", "ban")])
def test_limited_client_gets_404_for_users_of_another_app(phone: Phone, user: str, method: str, what: str) -> None:
    """Nothing happens to the user."""
    assert problem(ask(phone.client, method, f"{user}/{what}", basic(LIMITED))) == (404, "not_found")
    assert phone.get("/session").status_code == 200


def test_limited_client_cannot_unban_in_another_app(phone: Phone, user: str) -> None:
    ask(phone.client, "PUT", f"{user}/ban")
    assert problem(ask(phone.client, "DELETE", f"{user}/ban", basic(LIMITED))) == (404, "not_found")
    assert problem(phone.try_to_log_in(appid=APPID)) == (403, "user_banned")


@pytest.mark.parametrize(
    "user", ["wxunknown/oX", f"{APPID}/o.X", f"{APPID}/{'o' * 129}", f"{APPID}/%00", f"{APPID}/o%2fX"]
)
def test_unknown_app_or_malformed_openid_returns_404(client: FlaskClient, user: str) -> None:
    for method, what in (("GET", "sessions"), ("DELETE", "sessions"), ("PUT", "ban"), ("DELETE", "ban")):
        assert problem(ask(client, method, f"/users/{user}/{what}")) == (404, "not_found")
