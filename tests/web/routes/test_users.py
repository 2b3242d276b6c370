"""`/users`: what the operator's backends see of a user, and how they put one out; on both kinds of Redis."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from tests.clients import LIMITED, SECOND, ask, basic, problem, settings_with_clients
from tests.conftest import APPID, Phone
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
    """Where the backends find the user."""
    return f"/users/{APPID}/{phone.get('/session').get_json()['openid']}"


def test_a_users_sessions_are_listed(phone: Phone, user: str) -> None:
    """As the user's own list, but that none is the caller's."""
    mine = phone.get("/sessions").get_json()["sessions"]
    theirs = ask(phone.client, "GET", f"{user}/sessions").get_json()["sessions"]
    assert theirs == [{**row, "current": False} for row in mine]
    assert theirs[0]["device"] == "iPhone"


def test_who_never_logged_in_has_no_sessions(client: FlaskClient) -> None:
    """An empty list: nobody can tell that from a user who has logged out."""
    assert ask(client, "GET", f"/users/{APPID}/oNOBODY/sessions").get_json() == {"sessions": []}


def test_a_user_is_logged_out_everywhere(phone: Phone, wechat: FakeWeChat, user: str) -> None:
    """All sessions of this one, none of another."""
    other = Phone(phone.client, wechat, "bob").log_in(appid=APPID)
    second = Phone(phone.client, wechat).log_in(appid=APPID)
    assert ask(phone.client, "DELETE", f"{user}/sessions").status_code == 204
    assert [who.get("/session").status_code for who in (phone, second, other)] == [401, 401, 200]


def test_a_ban_ends_all_and_lets_nobody_in_again(phone: Phone, user: str) -> None:
    """Until it is lifted; both can be said twice."""
    assert [ask(phone.client, "PUT", f"{user}/ban").status_code for _ in range(2)] == [204, 204]
    assert phone.get("/session").status_code == 401
    assert problem(phone.try_to_log_in(appid=APPID)) == (403, "user_banned")
    assert [ask(phone.client, "DELETE", f"{user}/ban").status_code for _ in range(2)] == [204, 204]
    phone.log_in(appid=APPID)


def test_a_ban_holds_in_its_app_alone(phone: Phone, user: str, store: SessionStore) -> None:
    """A user is the pair of appid and openid."""
    ask(phone.client, "PUT", f"{user}/ban")
    assert phone.try_to_log_in(appid=SECOND).status_code == 200
    store.unban(User(SECOND, user.rpartition("/")[2]))
    assert problem(phone.try_to_log_in(appid=APPID)) == (403, "user_banned")


@pytest.mark.parametrize(("method", "what"), [("GET", "sessions"), ("DELETE", "sessions"), ("PUT", "ban")])
def test_users_of_another_app_are_not_found_by_a_limited_client(
    phone: Phone, user: str, method: str, what: str
) -> None:
    """As if there were no such user; nothing happens to it."""
    assert problem(ask(phone.client, method, f"{user}/{what}", basic(LIMITED))) == (404, "not_found")
    assert phone.get("/session").status_code == 200


def test_a_limited_client_lifts_no_ban_of_another_app(phone: Phone, user: str) -> None:
    """404, and the user stays out."""
    ask(phone.client, "PUT", f"{user}/ban")
    assert problem(ask(phone.client, "DELETE", f"{user}/ban", basic(LIMITED))) == (404, "not_found")
    assert problem(phone.try_to_log_in(appid=APPID)) == (403, "user_banned")


@pytest.mark.parametrize(
    "user", ["wxunknown/oX", f"{APPID}/o.X", f"{APPID}/{'o' * 129}", f"{APPID}/%00", f"{APPID}/o%2fX"]
)
def test_who_can_be_no_user_is_not_found(client: FlaskClient, user: str) -> None:
    """An app that is not configured here, or no openid."""
    for method, what in (("GET", "sessions"), ("DELETE", "sessions"), ("PUT", "ban"), ("DELETE", "ban")):
        assert problem(ask(client, method, f"/users/{user}/{what}")) == (404, "not_found")
