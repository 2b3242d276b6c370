"""The contract, row by row: the service from its Procfile, a real Redis, and a WeChat that is not the sandbox's."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.support.servers import RedisServer
from tests.support.service import Service, environment

#: WeChat's answer for a code. Any other code logs in the user of that name.
ANSWERS: dict[str, bytes] = {
    "e40029": b'{"errcode": 40029, "errmsg": "invalid code, rid: 1-2-3"}',
    "t40029": b'{"errcode": "40029", "errmsg": "invalid code"}',
    "e40163": b'{"errcode": 40163, "errmsg": "code been used, hints: [ req_id: x ]"}',
    "e40226": b'{"errcode": 40226, "errmsg": "code blocked"}',
    "e45011": b'{"errcode": 45011, "errmsg": "api minute-quota reach limit"}',
    "busy": b'{"errcode": -1, "errmsg": "system error"}',
    "html": b"<html>Bad Gateway</html>",
    "list": b"[]",
    "half": b'{"openid": "oHALF"}',
    "e99999": b'{"errcode": 99999, "errmsg": "who knows"}',
    **{
        f"e{number}": json.dumps({"errcode": number, "errmsg": "x"}).encode()
        for number in (40013, 40125, 41002, 41004, 40164, 40243, 45009, 50002, 50007)
    },
}
#: code, status, problem, action
REFUSED = [
    ("e40029", 400, "code_invalid", "login"),
    ("t40029", 400, "code_invalid", "login"),
    ("e40163", 400, "code_used", "login"),
    ("e40226", 403, "user_blocked", "none"),
    ("e45011", 429, "rate_limited", "retry"),
    ("busy", 503, "wechat_busy", "retry"),
    ("html", 503, "wechat_unreachable", "retry"),
    ("list", 503, "wechat_unreachable", "retry"),
    ("half", 503, "wechat_unreachable", "retry"),
    ("e99999", 502, "wechat_error", "none"),
    *((code, 503, "wechat_misconfigured", "none") for code in ANSWERS if code[1:3] in ("40", "41", "45", "50")),
]
REFUSED = [row for number, row in enumerate(REFUSED) if row[0] not in [known[0] for known in REFUSED[:number]]]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        (code,) = parse_qs(urlsplit(self.path).query)["js_code"]
        user = {"openid": f"o{code}", "session_key": "tiihtNczf5v6AKRyjwEUhQ==", "errcode": 0}
        body = ANSWERS.get(code, json.dumps(user).encode())
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """One worker: another one learns of a logout some milliseconds later."""
    wechat = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=wechat.serve_forever, args=(0.05,))
    thread.start()
    try:
        address = f"http://127.0.0.1:{wechat.server_address[1]}"
        with RedisServer() as redis, Service(environment(redis.url, address, WEB_CONCURRENCY="1")) as service:
            yield service.url
    finally:
        wechat.shutdown()
        thread.join()
        wechat.server_close()


def log_in(url: str, code: str, headers: dict[str, str] | None = None, **more: object) -> requests.Response:
    return requests.post(f"{url}/login", json={"code": code, **more}, headers=headers, timeout=10)


def ask(url: str, token: str, path: str = "/session", method: str = "GET") -> requests.Response:
    return requests.request(method, url + path, headers={"Authorization": f"Bearer {token}"}, timeout=10)


@pytest.mark.parametrize(("code", "status", "problem", "action"), REFUSED, ids=[row[0] for row in REFUSED])
def test_errcode_of_wechat_returns_the_problem_of_the_contract(
    url: str, code: str, status: int, problem: str, action: str
) -> None:
    answer = log_in(url, code)
    body = answer.json()
    assert (answer.status_code, body["code"], body["action"], body["status"]) == (status, problem, action, status)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert ("Retry-After" in answer.headers) == (status in (429, 503))


def test_logins_and_logouts_of_one_user_in_sequence(url: str) -> None:
    first = log_in(url, "ann", device="old phone").json()["token"]
    second = log_in(url, "ann", device="new phone").json()["token"]
    third = log_in(url, "ann").json()["token"]
    assert ask(url, first).json()["openid"] == "oann"
    rows = ask(url, second, "/sessions").json()["sessions"]
    assert [(row.get("device"), row["current"]) for row in rows] == [
        ("old phone", False),
        ("new phone", True),
        (None, False),
    ]
    assert ask(url, second, f"/sessions/{rows[0]['id']}", "DELETE").status_code == 204
    assert ask(url, first).status_code == 401
    assert ask(url, second, "/sessions?keep=current", "DELETE").status_code == 204
    assert (ask(url, third).status_code, ask(url, second).status_code) == (401, 200)
    assert ask(url, second, method="DELETE").status_code == 204
    assert ask(url, second).json()["code"] == "token_invalid"


def test_login_ends_the_session_of_the_token_sent_along(url: str) -> None:
    first = log_in(url, "bob").json()["token"]
    token = log_in(url, "bob", {"Authorization": f"Bearer {first}"}).json()["token"]
    assert len(ask(url, token, "/sessions").json()["sessions"]) == 1


def test_session_of_another_user_returns_404_and_stays_live(url: str) -> None:
    ann, bob = (log_in(url, name).json()["token"] for name in ("ann", "bob"))
    id = ask(url, ann).json()["id"]
    assert ask(url, bob, f"/sessions/{id}", "DELETE").status_code == 404
    assert ask(url, ann).status_code == 200


def test_answers_have_exactly_the_members_of_the_contract(url: str) -> None:
    body = log_in(url, "eve").json()
    assert set(body) == {"token", "token_type", "expires_in"}
    assert set(ask(url, body["token"]).json()) == {"id", "appid", "openid", "created_at", "expires_in"}
