"""The service as the Procfile starts it, with a real server and several workers."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.conftest import APP_SECRET, APPID, RING_KEY, SESSION_KEY
from tests.support.servers import RedisServer, wait_until
from tests.support.service import ROOT, Service, WeChatServer, await_end, environment

PASSWORD = "redis-password-that-must-stay-secret"


@pytest.fixture(scope="module")
def redis_with_password() -> Iterator[RedisServer]:
    with RedisServer("--requirepass", PASSWORD, "--save", "3600", "1") as server:
        yield server


@pytest.fixture(scope="module")
def wechat_server() -> Iterator[WeChatServer]:
    with WeChatServer() as server:
        yield server


@pytest.fixture(scope="module")
def service(redis_with_password: RedisServer, wechat_server: WeChatServer) -> Iterator[Service]:
    redis_url = f"redis://:{PASSWORD}@127.0.0.1:{redis_with_password.port}/0"
    environ = environment(redis_url, wechat_server.url, WEB_CONCURRENCY="2", WXAUTH_LOG_LEVEL="debug")
    with Service(environ) as running:
        wait_until(lambda: running.output().count("Started worker") == 2, "two workers")
        yield running


def log_in(service: Service, wechat_server: WeChatServer) -> str:
    answer = requests.post(f"{service.url}/login", json={"code": wechat_server.fake.wx_login("alice")}, timeout=5)
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["token"]
    return token


def check(service: Service, token: str) -> requests.Response:
    """Use a new connection, so that any worker may answer."""
    return requests.get(f"{service.url}/session", headers={"Authorization": f"Bearer {token}"}, timeout=5)


def test_a_healthy_start_logs_no_warning(service: Service) -> None:
    assert [line for line in service.output().splitlines()[:8] if '"level": "warning"' in line] == []


def test_every_worker_accepts_a_token(service: Service, wechat_server: WeChatServer) -> None:
    token = log_in(service, wechat_server)
    assert {check(service, token).status_code for _ in range(20)} == {200}


def test_every_worker_rejects_a_token_after_logout(service: Service, wechat_server: WeChatServer) -> None:
    token = log_in(service, wechat_server)
    requests.delete(f"{service.url}/session", headers={"Authorization": token}, timeout=5)
    await_end(f"{service.url}/session", {"Authorization": token})
    assert {check(service, token).status_code for _ in range(20)} == {401}


def test_a_code_with_special_characters_is_one_parameter_of_the_exchange(
    service: Service, wechat_server: WeChatServer
) -> None:
    requests.post(f"{service.url}/login", json={"code": "x&secret=y"}, timeout=5)
    assert wechat_server.asked[-1].count("&") == 3
    assert "x%26secret%3Dy" in wechat_server.asked[-1]


def test_no_header_contains_a_version(service: Service) -> None:
    """And there is no cookie."""
    headers = requests.get(f"{service.url}/healthz", timeout=5).headers
    assert not any(character.isdigit() for character in headers.get("Server", ""))
    assert "Set-Cookie" not in headers


def test_two_authorization_headers_are_rejected(service: Service, wechat_server: WeChatServer) -> None:
    """Also two valid ones."""
    token = log_in(service, wechat_server)
    header = f"Authorization: Bearer {token}\r\n"
    with socket.create_connection(("127.0.0.1", service.port), 5) as connection:
        connection.sendall(f"GET /session HTTP/1.1\r\nHost: a\r\n{header}{header}Connection: close\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("length", [16 * 1024 + 1, None], ids=["announced", "chunked"])
def test_a_body_that_is_too_large_returns_413(service: Service, length: int | None) -> None:
    """With Content-Length, or chunked."""
    body = b'{"code": "' + b"a" * (16 * 1024) + b'"}'
    headers = {"Content-Type": "application/json"}
    data = body if length else iter([body])
    assert requests.post(f"{service.url}/login", data=data, headers=headers, timeout=5).status_code == 413


def test_a_truncated_body_causes_no_exchange(service: Service, wechat_server: WeChatServer) -> None:
    """The client closes the connection early."""
    asked = len(wechat_server.asked)
    with socket.create_connection(("127.0.0.1", service.port), 5) as connection:
        connection.sendall(
            b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n"
            b'{"code": "abc"}'
        )
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1000)
    assert len(wechat_server.asked) == asked


def test_each_log_line_is_a_json_object(service: Service, wechat_server: WeChatServer) -> None:
    """Granian's lines too. Each request has its request_id there."""
    log_in(service, wechat_server)
    lines = [line.partition("| ")[2] for line in service.output().splitlines() if re.match(r"[0-9:]+ web.1 ", line)]
    events = [json.loads(line) for line in lines]
    assert all({"time", "level", "event"} <= set(event) for event in events)
    assert all(event["request_id"] for event in events if event["event"] == "request")


def test_neither_the_log_nor_the_redis_dump_contains_a_secret(
    service: Service, wechat_server: WeChatServer, redis_with_password: RedisServer
) -> None:
    """No token, code, identity, key or secret, also at log level debug."""
    code = wechat_server.fake.wx_login("alice")
    token = requests.post(f"{service.url}/login", json={"code": code}, timeout=5).json()["token"]
    session = check(service, token).json()
    requests.post(f"{service.url}/login", json={"code": wechat_server.fake.wx_login("alice", "garbage")}, timeout=5)
    phone_code = wechat_server.fake.tap_phone_button("alice", APPID)
    headers = {"Authorization": token}
    numbers = [
        requests.post(f"{service.url}/phone", json={"code": phone_code}, headers=headers, timeout=5).json()
        for _ in range(2)
    ]
    keys = {key for key, _ in wechat_server.fake._session_keys.values()}
    planted = {token, token[8:51], code, session["openid"], session["unionid"], APP_SECRET, RING_KEY, PASSWORD, *keys}
    planted |= {phone_code, numbers[0]["phoneNumber"], wechat_server.fake.api.newest_access_token(APPID)}
    with redis_with_password.client() as client:
        client.execute_command("AUTH", PASSWORD)
        client.save()
    dump = next(redis_with_password.folder.glob("*.rdb")).read_bytes()
    assert session["id"].encode() in dump
    found = [text for text in planted if text.encode() in dump or text in service.output()]
    assert found == []
    assert SESSION_KEY not in keys


def test_sigterm_ends_the_service_with_exit_code_0(
    redis_with_password: RedisServer, wechat_server: WeChatServer
) -> None:
    redis_url = f"redis://:{PASSWORD}@127.0.0.1:{redis_with_password.port}/0"
    with Service(environment(redis_url, wechat_server.url)) as running:
        wait_until(lambda: running.output().count("Started worker") == 2, "two workers")
        running.stop()
        assert "web.1 stopped (rc=0)" in running.output()


def test_the_procfile_runs_serve() -> None:
    assert (ROOT / "Procfile").read_text() == "web: exec python -m wxauth serve\n"


@pytest.mark.parametrize("name", ["app.json", ".python-version", "requirements.txt"])
def test_the_files_of_a_hosting_platform_exist(name: str) -> None:
    """The buildpack of Heroku reads them by name."""
    assert Path(ROOT, name).read_text().strip()
