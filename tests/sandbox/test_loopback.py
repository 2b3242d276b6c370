"""The sandbox answers this machine only, and no page of another site that reaches it by DNS rebinding."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from wxauth.settings import Settings
from wxauth.web.app import create_app


@pytest.fixture(scope="module")
def client() -> FlaskClient:
    return create_app(Settings.from_env({"WXAUTH_SANDBOX": "1"})).test_client()


PATHS = ["/", "/healthz", "/verify", "/sandbox/redis"]
LOCAL_HOSTS = [
    "localhost",
    "LocalHost:8000",
    "wxauth.localhost:8000",
    "127.0.0.1:8000",
    "127.1.2.3",
    "[::1]",
    "[::1]:8000",
]
OTHER_HOSTS = [
    *("", "example.com", "example.com:8000", "localhost.example.com", "notlocalhost", "192.0.2.1:8000", "0:80"),
    *("[::]", "[2001:db8::1]:8000", "127.0.0.1.example.com", "localhost@example.com", "localhost:x", "::1", "a b"),
]


@pytest.mark.parametrize("host", LOCAL_HOSTS)
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"])
def test_a_loopback_caller_with_a_loopback_host_is_answered(client: FlaskClient, host: str, address: str) -> None:
    answers = [client.get(path, headers={"Host": host}, environ_base={"REMOTE_ADDR": address}) for path in PATHS]
    assert [answer.status_code for answer in answers] == [200, 200, 401, 200]


@pytest.mark.parametrize("host", OTHER_HOSTS)
@pytest.mark.parametrize("path", PATHS)
def test_another_host_gets_400(client: FlaskClient, host: str, path: str) -> None:
    answer = client.get(path, environ_overrides={"HTTP_HOST": host})
    assert (answer.status_code, answer.get_json()["code"]) == (400, "bad_request")
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("address", ["192.0.2.1", "::", "2001:db8::1", "::ffff:192.0.2.1", "10.0.0.1", ""])
@pytest.mark.parametrize("path", PATHS)
def test_a_caller_that_is_not_loopback_gets_400(client: FlaskClient, address: str, path: str) -> None:
    """Whatever X-Forwarded-For says."""
    environ = {"REMOTE_ADDR": address, "HTTP_X_FORWARDED_FOR": "127.0.0.1"}
    assert client.get(path, environ_overrides=environ).status_code == 400


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
@pytest.mark.parametrize("path", PATHS)
def test_a_caller_behind_a_proxy_on_this_machine_gets_400(client: FlaskClient, header: str, path: str) -> None:
    assert client.get(path, headers={header: "203.0.113.7"}).status_code == 400
