"""UserApi: check and reset a session_key, on fakeredis and on a real Redis."""

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


class Deployment:
    """A store and a fake WeChat that both know alice."""

    def __init__(self, redis_client: RedisClient, clock: Clock, policy: SessionPolicy) -> None:
        self._redis, self._clock, self._policy = redis_client, clock, policy
        apps = {APPID: Secret(APP_SECRET)}
        self.fake = FakeWeChat(apps, clock)
        self._wechat = WeChatClient(apps, Transport("http://127.0.0.1:1", self.fake), 4, max_concurrent=1)

    def store(self, *keys: str) -> SessionStore:
        return SessionStore(self._redis, self._ring(*keys), self._policy, self._clock)

    def user_api(self, *keys: str) -> UserApi:
        tokens = AccessTokens(self._redis, self._ring(*keys), self._wechat, self._clock)
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
def deployment(redis_client: RedisClient, clock: Clock, policy: SessionPolicy) -> Deployment:
    return Deployment(redis_client, clock, policy)


def ttls(raw_redis: redis.Redis) -> list[int]:
    """The TTLs of the users' hashes."""
    return [int(raw_redis.ttl(key)) for key in cast(list[bytes], raw_redis.keys("wxa:{*}"))]


def test_check_session_key_accepts_the_key_of_the_login(deployment: Deployment) -> None:
    deployment.user_api().check_session_key(deployment.log_in().user)


def test_check_session_key_raises_stale_after_wechat_replaced_the_key(deployment: Deployment) -> None:
    """The next login stores the new key."""
    user = deployment.log_in().user
    deployment.fake.replace_session_key(APPID, user.openid)
    with pytest.raises(SessionKeyStale):
        deployment.user_api().check_session_key(user)
    deployment.log_in()
    deployment.user_api().check_session_key(user)


@pytest.mark.parametrize("ask", ["check_session_key", "reset_session_key"])
def test_user_api_raises_stale_after_logout(deployment: Deployment, ask: str) -> None:
    """WeChat is not asked."""
    session = deployment.log_in()
    deployment.store().revoke(session)
    with pytest.raises(SessionKeyStale):
        getattr(deployment.user_api(), ask)(session.user)


def test_reset_session_key_stores_the_new_key(deployment: Deployment, raw_redis: redis.Redis) -> None:
    """The old key is not kept as the previous key: it may have leaked."""
    user = deployment.log_in().user
    deployment.fake.replace_session_key(APPID, user.openid)
    session = deployment.log_in()
    before, lives = session.session_key, ttls(raw_redis)
    deployment.user_api().reset_session_key(session.user)
    keys = deployment.store().session_keys(session.user)
    assert keys is not None
    assert keys.newest.reveal() == session.session_key != before
    assert keys.previous is None
    deployment.user_api().check_session_key(session.user)
    assert [abs(now - then) <= 1 for now, then in zip(ttls(raw_redis), lives, strict=True)] == [True]


def test_reset_session_key_raises_stale_after_expiry(
    deployment: Deployment, clock: Clock, policy: SessionPolicy
) -> None:
    user = deployment.log_in().user
    clock.advance(policy.idle_ttl + 1)
    with pytest.raises(SessionKeyStale):
        deployment.user_api().reset_session_key(user)


def test_login_after_expiry_does_not_keep_the_old_key(
    deployment: Deployment, clock: Clock, policy: SessionPolicy
) -> None:
    """The operator may have tried to reset it because it leaked."""
    user = deployment.log_in().user
    deployment.fake.replace_session_key(APPID, user.openid)
    clock.advance(policy.idle_ttl + 1)
    deployment.log_in()
    keys = deployment.store().session_keys(user)
    assert keys is not None
    assert keys.previous is None


def test_reset_session_key_raises_stale_for_an_old_key(deployment: Deployment) -> None:
    """The stored key stays as it was."""
    session = deployment.log_in()
    before = session.session_key
    deployment.fake.replace_session_key(APPID, session.user.openid)
    with pytest.raises(SessionKeyStale):
        deployment.user_api().reset_session_key(session.user)
    assert session.session_key == before


def test_reset_session_key_covers_every_ring_key(deployment: Deployment) -> None:
    """During a rotation a user may have sessions of both ring keys."""
    user = deployment.log_in(RING_KEY).user
    deployment.log_in(OTHER_KEY, RING_KEY)
    deployment.user_api(OTHER_KEY, RING_KEY).reset_session_key(user)
    assert deployment.key_of(user, RING_KEY) == deployment.key_of(user, OTHER_KEY) is not None
    deployment.user_api(RING_KEY).check_session_key(user)


def test_replace_session_key_stores_nothing_after_logout(deployment: Deployment, raw_redis: redis.Redis) -> None:
    session = deployment.log_in()
    deployment.store().revoke(session)
    deployment.store().replace_session_key(session.user, Secret("AAAAAAAAAAAAAAAAAAAAAA=="))
    assert deployment.store().session_keys(session.user) is None
    assert cast(list[bytes], raw_redis.keys("wxa:{*}")) == []
