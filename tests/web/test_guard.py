"""`login_required` and `wx_session`, in somebody else's application."""

from __future__ import annotations

import io
import json
import logging
import time
from typing import Any

import pytest
from flask import Flask, abort
from flask.testing import FlaskClient

from tests.conftest import Clock
from wxauth import WxAuth, login_required, wx_session
from wxauth.errors import StoreUnavailable
from wxauth.models import Identity
from wxauth.sessions.store import SessionStore
from wxauth.settings import Settings


@pytest.fixture
def client(settings: Settings, store: SessionStore) -> FlaskClient:
    shop = Flask("shop")
    WxAuth(shop, settings, store=store)

    @shop.get("/orders")
    @login_required
    def orders() -> dict[str, str]:
        return {"openid": wx_session.openid}

    @shop.post("/pay")
    @login_required(fresh=300)
    def pay() -> str:
        return "paid"

    @shop.get("/peek")
    @login_required(touch=False)
    def peek() -> str:
        return wx_session.id

    @shop.get("/refuse")
    @login_required
    def refuse() -> str:
        abort(404)

    @shop.get("/cached")
    @login_required
    def cached() -> Any:
        return "ok", {"Cache-Control": "public", "Vary": "Accept"}

    @shop.get("/broken")
    @login_required
    def broken() -> str:
        logging.getLogger("shop").warning("about_to_break")
        raise StoreUnavailable("timeout")

    @shop.get("/open")
    def unguarded() -> str:
        return wx_session.openid

    return shop.test_client()


@pytest.fixture
def token(store: SessionStore, alice: Identity) -> str:
    return store.create(alice)[0].reveal()


def get(client: FlaskClient, path: str, authorization: str) -> Any:
    return client.get(path, headers={"Authorization": authorization})


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER   {}", "{}"])
def test_a_live_token_opens_the_view(client: FlaskClient, token: str, alice: Identity, form: str) -> None:
    """With the word Bearer in any case, or bare."""
    response = get(client, "/orders", form.format(token))
    assert response.get_json() == {"openid": alice.user.openid}


def test_without_a_token_the_view_is_not_called(client: FlaskClient) -> None:
    """401, and a challenge that names no error."""
    response = client.get("/orders")
    assert response.get_json()["code"] == "token_missing"
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="wxauth"'


@pytest.mark.parametrize(
    "form",
    [
        "Basic {}",
        "Token {}",
        "Bearer {},Bearer {}",
        "{}, {}",
        "Bearer",
        "Bearer ",
        "Bearer {} x",
        "{}x",
        "Bearer Bearer {}",
    ],
)
def test_any_other_credential_is_invalid(client: FlaskClient, token: str, form: str) -> None:
    """Two headers in one, another scheme, something behind the token: none of it passes."""
    response = get(client, "/orders", form.replace("{}", token))
    assert (response.status_code, response.get_json()["code"]) == (401, "token_invalid")


def test_all_invalid_tokens_are_answered_alike(
    client: FlaskClient, store: SessionStore, token: str, alice: Identity, clock: Clock
) -> None:
    """Malformed, forged, revoked and expired differ in the request_id alone."""
    revoked, session = store.create(alice)
    store.revoke(session)
    expired, _ = store.create(alice)
    clock.advance(604801)
    forged = token[:-4] + "AAAA"
    answers = []
    for text in ("malformed", forged, revoked.reveal(), expired.reveal()):
        response = get(client, "/orders", f"Bearer {text}")
        body = response.get_json() | {"request_id": None}
        answers.append((response.status_code, sorted(response.headers), body))
    assert answers == [answers[0]] * 4


@pytest.mark.parametrize("query", ["access_token={}", "token={}", "anything={}", "a=1&x={}"])
def test_a_token_in_the_query_string_is_refused(client: FlaskClient, token: str, query: str) -> None:
    """400, even beside a good header: every log on the way would keep it."""
    response = get(client, f"/orders?{query.format(token)}", f"Bearer {token}")
    assert (response.status_code, response.get_json()["code"]) == (400, "bad_request")


def test_a_fresh_login_may_be_asked_for(client: FlaskClient, token: str, clock: Clock) -> None:
    """Young enough passes; later the challenge says how young it must be (RFC 9470)."""
    headers = {"Authorization": token}
    assert client.post("/pay", headers=headers).status_code == 200
    clock.advance(301)
    response = client.post("/pay", headers=headers)
    assert response.get_json()["code"] == "login_too_old"
    assert response.headers["WWW-Authenticate"].endswith('error="insufficient_user_authentication", max_age="300"')


def test_a_view_may_leave_the_session_untouched(client: FlaskClient, token: str, clock: Clock) -> None:
    """`touch=False` looks and does not prolong."""
    clock.advance(500000)
    get(client, "/peek", token)
    clock.advance(200000)
    assert get(client, "/peek", token).status_code == 401


def test_an_answer_for_one_user_is_not_kept_for_another(client: FlaskClient, token: str) -> None:
    """`no-store` and `Vary: Authorization`, whatever the view says."""
    response = get(client, "/orders", token)
    assert (response.headers["Cache-Control"], response.headers["Vary"]) == ("no-store", "Authorization")


@pytest.mark.parametrize("path", ["/refuse", "/orders"])
def test_an_answer_other_than_the_views_is_not_kept_either(client: FlaskClient, token: str, path: str) -> None:
    """`no-store` and `Vary` also where the view raises, or is not called at all."""
    response = get(client, path, token if path == "/refuse" else "nobody's")
    assert (response.headers["Cache-Control"], response.headers["Vary"]) == ("no-store", "Authorization")


def test_a_view_may_say_more_about_caches(client: FlaskClient, token: str) -> None:
    """What it says of other headers stands; that it may be kept does not."""
    response = get(client, "/cached", token)
    assert (response.headers["Cache-Control"], response.vary.as_set()) == ("no-store", {"accept", "authorization"})


def test_a_problem_names_the_request_of_the_log(client: FlaskClient, token: str, lines: io.StringIO) -> None:
    """Whoever reports the request_id of a problem can be helped with the lines."""
    problem = get(client, "/broken", token).get_json()
    assert {json.loads(line)["request_id"] for line in lines.getvalue().splitlines()} == {problem["request_id"]}
    assert "about_to_break" in lines.getvalue()


def test_an_outage_may_begin_within_the_view(
    client: FlaskClient, token: str, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `wx_session` has to ask Redis for fails as the guard itself would."""

    def unavailable(user: object) -> None:
        raise StoreUnavailable("timeout")

    client.application.get("/key")(login_required(lambda: str(wx_session.session_key)))
    monkeypatch.setattr(store, "session_keys", unavailable)
    response = get(client, "/key", token)
    assert (response.status_code, response.get_json()["code"]) == (503, "store_unavailable")


def test_there_is_no_session_without_a_guard(client: FlaskClient) -> None:
    """Whoever forgets the decorator hears of it, and shows nobody's data."""
    client.application.testing = True
    with pytest.raises(RuntimeError, match="login_required"):
        client.get("/open")


def test_a_session_ends_with_its_request(client: FlaskClient, token: str) -> None:
    """Also where the next request has the same context of the application, as in many a test."""
    client.application.testing = True
    with client.application.app_context():
        assert get(client, "/orders", token).status_code == 200
        with pytest.raises(RuntimeError, match="login_required"):
            client.get("/open")


def test_created_at_is_a_unix_time(store: SessionStore, token: str) -> None:
    """In whole seconds, of this very moment."""
    assert 0 <= time.time() - store.resolve(token).created_at < 60
