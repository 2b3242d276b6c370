"""`/userdata` and `wx_session.decrypt`: what the session_key opens, while two phones replace that key."""

from __future__ import annotations

import hashlib
import json
import secrets
from functools import partial
from typing import Any

import hypothesis.strategies as st
import pytest
from flask import Flask, request
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from werkzeug.test import TestResponse

from tests.conftest import APP_SECRET, APPID, Phone
from tests.support import vectors
from tests.test_properties import Service
from wxauth import WxAuth, login_required, wx_session
from wxauth.clock import Clock
from wxauth.errors import StoreUnavailable
from wxauth.models import Identity, Secret
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.sessions.store import FAILURE_WINDOW, MAX_FAILURES, SessionStore
from wxauth.settings import Settings
from wxauth.web.app import create_app
from wxauth.web.services import EXTENSION, Services
from wxauth.wechat.open_data import PREVIOUS_KEY_LIFE

STALE = (409, "session_key_stale", "login")


def post(client: FlaskClient, path: str, token: str, body: object) -> TestResponse:
    return client.post(f"/userdata/{path}", json=body, headers={"Authorization": f"Bearer {token}"})


def decrypt(phone: Phone, data: dict[str, str]) -> TestResponse:
    body = {name: data[name] for name in ("encryptedData", "iv")}
    return post(phone.client, "decrypt", phone.token, body)


def verify(phone: Phone, data: dict[str, str]) -> TestResponse:
    body = {name: data[name] for name in ("rawData", "signature")}
    return post(phone.client, "verify", phone.token, body)


def problem(response: TestResponse) -> tuple[int, str, str]:
    body = response.get_json()
    return response.status_code, body["code"], body["action"]


def log_in(phone: Phone, *, new_key: bool = False) -> dict[str, str]:
    """Log in. Return this user's data from WeChat under the new session_key."""
    code = phone.wechat.wx_login(phone.user, new_key=new_key)
    response = phone.client.post("/login", json={"code": code})
    phone.token = response.get_json()["token"]
    return phone.wechat.wx_get_user_profile(APPID, phone.user)


#: The members of the official data, in its order.
NAMES = ["openId", "nickName", "gender", "language", "city", "province", "country", "avatarUrl", "unionId"]


# --- The official examples


@pytest.fixture
def official(store: SessionStore, clock: Clock) -> FlaskClient:
    """The service of the mini program in WeChat's documentation, on the day of the example."""
    clock.advance(vectors.SEALED_AT - clock())
    apps = {vectors.SEALED_FOR.appid: Secret(APP_SECRET)}
    return create_app(Settings(apps, (Secret("k" * 32),), Secret("redis://127.0.0.1:1/0")), store=store).test_client()


def test_official_user_data_is_decrypted(official: FlaskClient, store: SessionStore) -> None:
    """With the user, the key and the day of WeChat's documentation."""
    token, _ = store.create(Identity(vectors.SEALED_FOR, vectors.SEALED_UNDER))
    body = {"encryptedData": vectors.ENCRYPTED_DATA, "iv": vectors.IV}
    response = post(official, "decrypt", token.reveal(), body)
    assert response.status_code == 200
    # The hash is that of the members in the documentation's order.
    answer = response.get_json()
    watermark = {name: answer["watermark"][name] for name in ("timestamp", "appid")}
    text = json.dumps({name: answer[name] for name in NAMES} | {"watermark": watermark}, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == vectors.PLAINTEXT_SHA256


def test_official_signature_is_verified(official: FlaskClient, store: SessionStore) -> None:
    """Signed data has no date."""
    token, _ = store.create(Identity(vectors.SEALED_FOR, vectors.SIGNED_UNDER))
    body = {"rawData": vectors.RAW_DATA, "signature": vectors.SIGNATURE}
    response = post(official, "verify", token.reveal(), body)
    assert (response.status_code, response.get_json()) == (200, json.loads(vectors.RAW_DATA))


def test_user_data_older_than_ten_minutes_is_stale(official: FlaskClient, store: SessionStore, clock: Clock) -> None:
    clock.advance(601)
    token, _ = store.create(Identity(vectors.SEALED_FOR, vectors.SEALED_UNDER))
    body = {"encryptedData": vectors.ENCRYPTED_DATA, "iv": vectors.IV}
    assert problem(post(official, "decrypt", token.reveal(), body)) == STALE


# --- Phones and their keys


def test_data_of_a_phone_is_decrypted_and_verified(phone: Phone) -> None:
    data = log_in(phone)
    profile = json.loads(data["rawData"])
    opened = decrypt(phone, data).get_json()
    assert opened.pop("watermark")["appid"] == APPID
    assert opened == profile == verify(phone, data).get_json()


def test_data_under_the_newest_and_the_previous_key_is_accepted(phone: Phone) -> None:
    """Two phones of one user replace each other's key."""
    other = Phone(phone.client, phone.wechat, phone.user)
    first, second = log_in(phone), log_in(other, new_key=True)
    assert first["signature"] != second["signature"]
    for data in (first, second):
        for holder in (phone, other):
            assert (decrypt(holder, data).status_code, verify(holder, data).status_code) == (200, 200)


def test_data_under_the_key_before_the_previous_is_stale(phone: Phone) -> None:
    first = log_in(phone)
    for _ in range(2):
        log_in(phone, new_key=True)
    assert problem(decrypt(phone, first)) == problem(verify(phone, first)) == STALE


def test_data_under_the_previous_key_is_stale_after_ten_minutes(phone: Phone, clock: Clock) -> None:
    """Ten minutes after the key was replaced."""
    first, second = log_in(phone), log_in(phone, new_key=True)
    clock.advance(PREVIOUS_KEY_LIFE)
    assert problem(verify(phone, first)) == STALE
    assert verify(phone, second).status_code == 200


def test_data_under_a_key_of_a_login_elsewhere_is_stale_until_the_next_login(phone: Phone) -> None:
    log_in(phone)
    elsewhere = FakeWeChat({APPID: Secret(APP_SECRET)})
    data = elsewhere.wx_get_user_profile(APPID, phone.user)
    assert problem(decrypt(phone, data)) == STALE
    assert decrypt(phone, log_in(phone)).status_code == 200


def test_data_of_another_user_is_stale(phone: Phone) -> None:
    log_in(phone)
    theirs = log_in(Phone(phone.client, phone.wechat, "bob"))
    assert problem(decrypt(phone, theirs)) == problem(verify(phone, theirs)) == STALE


def test_data_is_stale_if_no_session_key_is_kept(phone: Phone, raw_redis: Any) -> None:
    """Redis may have lost it. The session is live, and a login brings a new key."""
    data = log_in(phone)
    (hash,) = raw_redis.keys("wxa:{*")
    assert raw_redis.hdel(hash, "k") == 1
    assert phone.get("/session").status_code == 200
    assert problem(decrypt(phone, data)) == problem(verify(phone, data)) == STALE


def test_all_data_that_does_not_open_gets_the_same_answer(phone: Phone) -> None:
    """The answers differ in the request_id only, so they do not show what is wrong."""
    data = log_in(phone)
    sealed = data["encryptedData"]
    theirs = FakeWeChat({}).wx_get_user_profile(APPID, phone.user)
    other_app = {**data, **phone.wechat.wx_get_user_profile("wxfedcba9876543210", phone.user)}
    cut = {**data, "encryptedData": sealed[: len(sealed) // 64 * 64 - 64]}
    responses = [
        decrypt(phone, spoilt) for spoilt in (theirs, other_app, cut, {**data, "encryptedData": "A" * 86 + "=="})
    ]
    answers = {(r.status, str(r.headers), r.text.replace(r.get_json()["request_id"], "")) for r in responses}
    assert len(answers) == 1


# --- Requests


@pytest.mark.parametrize("path", ["decrypt", "verify"])
def test_userdata_without_a_token_returns_401_before_reading_the_body(client: FlaskClient, path: str) -> None:
    response = client.post(f"/userdata/{path}", data=b"nonsense")
    assert problem(response) == (401, "token_missing", "login")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("decrypt", {}),
        ("decrypt", []),
        ("decrypt", {"encryptedData": "A" * 24}),
        ("decrypt", {"iv": vectors.IV}),
        ("decrypt", {"encryptedData": None, "iv": vectors.IV}),
        ("decrypt", {"encryptedData": 1, "iv": vectors.IV}),
        ("decrypt", {"encryptedData": "AAAA", "iv": vectors.IV}),
        ("decrypt", {"encryptedData": vectors.ENCRYPTED_DATA, "iv": "AAAA"}),
        ("decrypt", {"encryptedData": vectors.ENCRYPTED_DATA, "iv": vectors.IV + "\n"}),
        ("verify", {}),
        ("verify", {"rawData": "{}"}),
        ("verify", {"signature": vectors.SIGNATURE}),
        ("verify", {"rawData": {}, "signature": vectors.SIGNATURE}),
        ("verify", {"rawData": "[]", "signature": vectors.SIGNATURE}),
        ("verify", {"rawData": "{", "signature": vectors.SIGNATURE}),
        ("verify", {"rawData": "{}", "signature": 1}),
        ("decrypt", {"encryptedData": "\ud800", "iv": vectors.IV}),
        ("decrypt", {"encryptedData": vectors.ENCRYPTED_DATA, "iv": "\ud800"}),
        ("verify", {"rawData": '{"a": "\ud800"}', "signature": vectors.SIGNATURE}),
    ],
    ids=ascii,
)
def test_malformed_user_data_returns_bad_request(phone: Phone, path: str, body: object) -> None:
    """A new login would not help, so the action is not `login`."""
    assert problem(post(phone.client, path, phone.log_in().token, body)) == (400, "bad_request", "none")


@pytest.mark.parametrize(
    ("raw_data", "signature"),
    [('{"a": "\\ud800"}', vectors.SIGNATURE), ("{}", "\ud800"), ('{"\\ud800": "a"}', "\ud800")],
    ids=ascii,
)
def test_raw_data_with_a_lone_surrogate_is_stale(phone: Phone, raw_data: str, signature: str) -> None:
    """JSON can express it, UTF-8 cannot."""
    body = {"rawData": raw_data, "signature": signature}
    assert problem(post(phone.client, "verify", phone.log_in().token, body)) == STALE


def test_space_in_place_of_a_plus_is_accepted(phone: Phone) -> None:
    """Some frameworks of mini programs send the data through a form."""
    data = log_in(phone)
    spaced = {name: text.replace("+", " ") for name, text in data.items()}
    assert decrypt(phone, spaced).status_code == 200


def test_nickname_with_unprintable_characters_is_accepted(client: FlaskClient, wechat: FakeWeChat) -> None:
    """Emoji of families contain such characters."""
    phone = Phone(client, wechat, "👨\u200d👩\u200d👧\n\u0000")
    data = log_in(phone)
    assert verify(phone, data).get_json()["nickName"] == phone.user == decrypt(phone, data).get_json()["nickName"]


def test_no_answer_contains_the_session_key(phone: Phone, wechat: FakeWeChat) -> None:
    data = log_in(phone)
    ((key, _),) = wechat._session_keys.values()
    answers = [decrypt(phone, data), verify(phone, data), decrypt(phone, {**data, "iv": vectors.IV})]
    assert [answer.text for answer in answers if key in answer.text or key in str(answer.headers)] == []


def test_userdata_max_age_reaches_the_store(settings: Settings) -> None:
    chosen = Settings(settings.apps, settings.secret_keys, settings.redis_url, userdata_max_age=5)
    WxAuth(shop := Flask("shop"), chosen)
    assert shop.extensions[EXTENSION].store.policy.userdata_max_age == 5


# --- The limit of failed tries


def foreign_data(phone: Phone) -> dict[str, str]:
    """Return data of the same user under a session_key that is not known here."""
    return FakeWeChat({}).wx_get_user_profile(APPID, phone.user)


def fail(phone: Phone, times: int = MAX_FAILURES) -> None:
    """Send data that does not open. Each time that is a failed try."""
    data = foreign_data(phone)
    assert [problem(decrypt(phone, data)) for _ in range(times)] == [STALE] * times


def test_decrypt_after_too_many_failures_returns_rate_limited_without_a_try(phone: Phone) -> None:
    """Genuine data is refused too: with more tries, the response time would show the plaintext byte by byte."""
    data = log_in(phone)
    fail(phone)
    for tried in (data, foreign_data(phone)):
        response = decrypt(phone, tried)
        assert problem(response) == (429, "rate_limited", "retry")
        assert 1 <= int(response.headers["Retry-After"]) <= FAILURE_WINDOW + 1
        assert response.headers["RateLimit-Policy"] == f'"user";q={MAX_FAILURES};w={FAILURE_WINDOW}'


def test_failures_are_counted_for_all_sessions_of_a_user_and_for_no_other(phone: Phone) -> None:
    other, bob = Phone(phone.client, phone.wechat, phone.user), Phone(phone.client, phone.wechat, "bob")
    log_in(phone)
    fail(phone)
    data, theirs = log_in(other), log_in(bob)
    assert (decrypt(other, data).status_code, decrypt(bob, theirs).status_code) == (429, 200)


def test_only_failed_tries_are_counted(phone: Phone, raw_redis: Any) -> None:
    """Neither a success, nor malformed data, nor signed data."""
    data = log_in(phone)
    for _ in range(MAX_FAILURES):
        assert decrypt(phone, data).status_code == 200
        assert decrypt(phone, {**data, "iv": "AAAA"}).status_code == 400
        assert problem(verify(phone, {**data, "signature": "0" * 40})) == STALE
    assert raw_redis.keys("wxa:l:{*") == []
    fail(phone)
    assert verify(phone, data).status_code == 200


def test_failures_expire(phone: Phone, raw_redis: Any) -> None:
    """The window begins with the first of them."""
    data = log_in(phone)
    fail(phone, MAX_FAILURES - 1)
    assert decrypt(phone, data).status_code == 200
    fail(phone, 1)
    assert decrypt(phone, data).status_code == 429
    (key,) = raw_redis.keys("wxa:l:{*")
    assert 0 < raw_redis.ttl(key) <= FAILURE_WINDOW
    raw_redis.delete(key)
    assert decrypt(phone, data).status_code == 200


def test_failure_that_cannot_be_counted_returns_503(
    phone: Phone, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis that takes no writes must not make tries free."""
    log_in(phone)
    redis = app.extensions[EXTENSION].redis

    def read_only(key: str, seconds: int, amount: int = 1) -> int:
        if amount:
            raise StoreUnavailable("read_only")
        return 0

    monkeypatch.setattr(redis, "count", read_only)
    assert problem(decrypt(phone, foreign_data(phone))) == (503, "store_unavailable", "retry")


# --- In an application with the extension


@pytest.fixture
def shop(settings: Settings, store: SessionStore) -> FlaskClient:
    shop = Flask("shop")
    WxAuth(shop, settings, partial(Services, store=store))

    @shop.post("/profile")
    @login_required
    def profile() -> dict[str, Any]:
        form = request.form
        return {
            "opened": wx_session.decrypt(form["encryptedData"], form["iv"]),
            "checked": wx_session.verify(form["rawData"], form["signature"]),
        }

    return shop.test_client()


def test_application_decrypts_and_verifies_with_wx_session(shop: FlaskClient, phone: Phone) -> None:
    data = log_in(phone)
    answer = shop.post("/profile", data=data, headers=phone.headers).get_json()
    assert answer["opened"]["nickName"] == answer["checked"]["nickName"] == phone.user


def test_application_answers_stale_data_with_the_same_problem(shop: FlaskClient, phone: Phone) -> None:
    log_in(phone)
    data = FakeWeChat({}).wx_get_user_profile(APPID, phone.user)
    assert problem(shop.post("/profile", data=data, headers=phone.headers)) == STALE


def test_application_keeps_the_limit_of_failed_tries(shop: FlaskClient, phone: Phone) -> None:
    log_in(phone)
    fail(phone)
    assert shop.post("/profile", data=foreign_data(phone), headers=phone.headers).status_code == 429


# --- Random data


@pytest.fixture(scope="module")
def service() -> Service:
    return Service()


@hypothesis_settings(deadline=None, max_examples=60)
@given(user=st.text(min_size=1, max_size=5), new_key=st.booleans(), data=st.data())
def test_data_of_the_fake_is_accepted_and_refused_after_a_bit_flip(
    service: Service, user: str, new_key: bool, data: st.DataObject
) -> None:
    # Each example is another user, because failed tries are limited.
    phone = Phone(service.app.test_client(), service.wechat, user + secrets.token_hex(4))
    given_data = log_in(phone, new_key=new_key)
    assert (
        decrypt(phone, given_data).get_json()["nickName"]
        == phone.user
        == verify(phone, given_data).get_json()["nickName"]
    )
    for name, ask in [("encryptedData", decrypt), ("rawData", verify), ("signature", verify)]:
        spoilt = {**given_data, name: data.draw(one_bit_changed(given_data[name]))}
        assert ask(phone, spoilt).status_code in (400, 409)


def one_bit_changed(text: str) -> st.SearchStrategy[str]:
    """Change one bit of the UTF-8 text."""

    def changed(place: int) -> str:
        raw = bytearray(text.encode())
        raw[place // 8] ^= 1 << place % 8
        spoilt = raw.decode(errors="replace")
        # A space is accepted in place of a plus, so it would change nothing.
        return spoilt if spoilt.replace(" ", "+") != text else "!" + text

    return st.integers(0, len(text.encode()) * 8 - 1).map(changed)
