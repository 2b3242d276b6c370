"""The life of a session_key, as WeChat says: checked, reset, kept; on both kinds of Redis."""

from __future__ import annotations

from typing import cast

import pytest
import redis

from tests.conftest import APP_SECRET, APPID, RING_KEY
from wxauth.clock import Clock
from wxauth.errors import SessionKeyStale
from wxauth.keys import KeyRing
from wxauth.models import Secret, User
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.sessions.store import SessionPolicy, SessionStore, WxSession
from wxauth.sessions.user_api import UserApi
from wxauth.storage.client import RedisClient
from wxauth.wechat.access_tokens import AccessTokens
from wxauth.wechat.client import WeChatClient
from wxauth.wechat.transport import Transport

OTHER_KEY = "ring-key-that-nobody-may-see-0002"


class House:
    """A store and a WeChat that both know alice."""

    def __init__(self, redis_client: RedisClient, clock: Clock, policy: SessionPolicy) -> None:
        self._door, self._clock, self._limits = redis_client, clock, policy
        apps = {APPID: Secret(APP_SECRET)}
        self.fake = FakeWeChat(apps, clock)
        self._wechat = WeChatClient(apps, Transport("http://127.0.0.1:1", self.fake), 4, max_concurrent=1)

    def store(self, *keys: str) -> SessionStore:
        return SessionStore(self._door, self._ring(*keys), self._limits, self._clock)

    def user_api(self, *keys: str) -> UserApi:
        tokens = AccessTokens(self._door, self._ring(*keys), self._wechat, self._clock)
        return UserApi(self._wechat, tokens, self.store(*keys))

    def log_in(self, *keys: str) -> WxSession:
        identity = self._wechat.exchange(APPID, self.fake.wx_login("alice"))
        return self.store(*keys).create(identity)[1]

    def key_of(self, user: User, *keys: str) -> str | None:
        known = self.store(*keys).session_keys(user)
        return known.newest.reveal() if known else None

    def _ring(self, *keys: str) -> KeyRing:
        return KeyRing([Secret(key) for key in keys or (RING_KEY,)])


@pytest.fixture
def house(redis_client: RedisClient, clock: Clock, policy: SessionPolicy) -> House:
    return House(redis_client, clock, policy)


def ttls(raw_redis: redis.Redis) -> list[int]:
    """Of the users' hashes."""
    return [int(raw_redis.ttl(key)) for key in cast(list[bytes], raw_redis.keys("wxa:{*}"))]


def test_the_key_of_a_login_is_wechats(house: House) -> None:
    """Nothing is raised."""
    house.user_api().check_session_key(house.log_in().user)


def test_a_key_that_wechat_has_replaced_is_stale(house: House) -> None:
    """As a login elsewhere would; the next login here brings the new one."""
    user = house.log_in().user
    house.fake.replace_session_key(APPID, user.openid)
    with pytest.raises(SessionKeyStale):
        house.user_api().check_session_key(user)
    house.log_in()
    house.user_api().check_session_key(user)


@pytest.mark.parametrize("ask", ["check_session_key", "reset_session_key"])
def test_who_has_logged_out_has_no_key(house: House, ask: str) -> None:
    """WeChat is not asked."""
    session = house.log_in()
    house.store().revoke(session)
    with pytest.raises(SessionKeyStale):
        getattr(house.user_api(), ask)(session.user)


def test_a_reset_key_is_kept(house: House, raw_redis: redis.Redis) -> None:
    """It is WeChat's from then on; those before it, for whose sake it was reset, are nowhere any more."""
    user = house.log_in().user
    house.fake.replace_session_key(APPID, user.openid)
    session = house.log_in()
    before, lives = (
        session.session_key,
        [int(raw_redis.ttl(key)) for key in cast(list[bytes], raw_redis.keys("wxa:{*}"))],
    )
    house.user_api().reset_session_key(session.user)
    keys = house.store().session_keys(session.user)
    assert keys is not None
    assert keys.newest.reveal() == session.session_key != before
    assert keys.previous is None
    house.user_api().check_session_key(session.user)
    assert [abs(now - then) <= 1 for now, then in zip(ttls(raw_redis), lives, strict=True)] == [True]


def test_a_reset_key_is_gone_also_where_nobody_is_logged_in_any_more(house: House, clock: Clock) -> None:
    """The session idles out long before the user's hash; the leaked key is not to come back as the previous one."""
    session = house.log_in()
    clock.advance(604801)
    with pytest.raises(SessionKeyStale):
        house.user_api().reset_session_key(session.user)
    house.log_in()
    keys = house.store().session_keys(session.user)
    assert keys is not None
    assert keys.previous is None


def test_a_stale_key_is_not_reset(house: House) -> None:
    """Only who knows the key may replace it, and ours is kept as it was."""
    session = house.log_in()
    before = session.session_key
    house.fake.replace_session_key(APPID, session.user.openid)
    with pytest.raises(SessionKeyStale):
        house.user_api().reset_session_key(session.user)
    assert session.session_key == before


def test_a_reset_reaches_what_lies_under_every_key_of_the_ring(house: House) -> None:
    """During a rotation a user may have sessions under both; neither keeps the old one."""
    user = house.log_in(RING_KEY).user
    house.log_in(OTHER_KEY, RING_KEY)
    house.user_api(OTHER_KEY, RING_KEY).reset_session_key(user)
    assert house.key_of(user, RING_KEY) == house.key_of(user, OTHER_KEY) is not None
    house.user_api(RING_KEY).check_session_key(user)


def test_a_key_is_kept_for_nobody_who_has_logged_out(house: House, raw_redis: redis.Redis) -> None:
    """A logout that comes first leaves nothing to be written to."""
    session = house.log_in()
    house.store().revoke(session)
    house.store().replace_session_key(session.user, Secret("AAAAAAAAAAAAAAAAAAAAAA=="))
    assert house.store().session_keys(session.user) is None
    assert cast(list[bytes], raw_redis.keys("wxa:{*}")) == []
