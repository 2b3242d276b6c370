"""The sandbox in an application of one's own: fakes, playground and `/sandbox` below the prefix."""

from __future__ import annotations

import builtins
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient

from tests.support.servers import free_port, wait_until
from tests.support.service import ROOT
from wxauth import Settings, WxAuth, login_required, wx_session
from wxauth.errors import ConfigurationError
from wxauth.web.services import wechat_client
from wxauth.wechat.transport import Transport

APPLICATION = """
from flask import Flask
from wxauth import WxAuth, login_required, wx_session

app = Flask(__name__)
WxAuth(app, url_prefix="/auth")

@app.get("/orders")
@login_required
def orders():
    return {"openid": wx_session.openid}
"""


@pytest.fixture
def client() -> FlaskClient:
    app = Flask("shop")
    app.config["WXAUTH_SANDBOX"] = "1"
    WxAuth(app, url_prefix="/auth")
    app.add_url_rule("/orders", "orders", login_required(lambda: {"openid": wx_session.openid}))
    return app.test_client()


def log_in(client: FlaskClient) -> str:
    code = client.post("/auth/sandbox/wx.login", json={"user": "alice"}).get_json()["code"]
    return str(client.post("/auth/login", json={"code": code}).get_json()["token"])


def test_sandbox_logs_a_user_in(client: FlaskClient) -> None:
    response = client.get("/orders", headers={"Authorization": log_in(client)})
    assert response.get_json()["openid"].startswith("oSANDBOX")


def test_playground_and_its_files_are_below_the_prefix(client: FlaskClient) -> None:
    page = client.get("/auth/")
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert client.get("/auth/sandbox/page/app.js").mimetype == "text/javascript"
    assert client.get("/").status_code == 404


def test_playground_without_the_slash_leads_to_the_slash_on_the_same_host(client: FlaskClient) -> None:
    """The files of the page have relative addresses."""
    response = client.get("/auth", headers={"Host": "localhost"})
    assert (response.status_code, response.headers["Location"]) == (302, "auth/")
    assert response.headers["Cache-Control"] == "no-store"
    assert client.get("/auth//").status_code == 404


def test_trace_of_a_request_is_found_by_its_header(client: FlaskClient) -> None:
    log_in(client)
    response = client.get("/auth/session", headers={"Authorization": "x"})
    assert response.headers["X-WXAuth-Mode"] == "sandbox"
    code = client.post("/auth/sandbox/wx.login", json={}).get_json()["code"]
    id = client.post("/auth/login", json={"code": code}).headers["X-WXAuth-Request"]
    notes = client.get(f"/auth/sandbox/trace/{id}").get_json()["notes"]
    assert {note["with"] for note in notes} == {"wechat", "redis"}


def test_another_machine_gets_400_from_mounted_routes_alone(client: FlaskClient) -> None:
    environ = {"REMOTE_ADDR": "192.0.2.1"}
    for path in ("/auth", "/auth/", "/auth/session", "/auth/sandbox/redis"):
        assert client.get(path, environ_base=environ).status_code == 400
    assert client.get("/orders", environ_base=environ).status_code == 401


def test_login_in_a_view_of_the_application_is_for_this_machine_only() -> None:
    """A sandbox that is left on by accident logs no stranger in."""
    app = Flask("shop")
    app.config["WXAUTH_SANDBOX"] = True
    auth = WxAuth(app)
    app.add_url_rule("/in", "in", lambda: auth.log_in("the code is a mock one")[0].reveal(), methods=["POST"])
    assert app.test_client().post("/in").text.startswith("wxa_")
    response = app.test_client().post("/in", environ_base={"REMOTE_ADDR": "192.0.2.1"})
    assert (response.status_code, response.get_json()["code"]) == (400, "bad_request")


def test_sandbox_without_its_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("wxauth.sandbox", "fakeredis"))]:
        monkeypatch.delitem(sys.modules, name)
    original = builtins.__import__

    def without_fakeredis(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("fakeredis"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_fakeredis)
    app = Flask("shop")
    app.config["WXAUTH_SANDBOX"] = "1"
    with pytest.raises(ConfigurationError, match=r"needs fakeredis: pip install 'wxauth\[sandbox\]'"):
        WxAuth(app)


@pytest.mark.parametrize("variable", ["REDIS_URL", "WECHAT_SECRET", "WXAUTH_SECRET_KEYS", "WXAUTH_APPS"])
def test_sandbox_beside_a_production_variable_is_an_error(variable: str) -> None:
    app = Flask("shop")
    app.config.update({"WXAUTH_SANDBOX": "1", variable: "redis://127.0.0.1" if "URL" in variable else "x" * 40})
    with pytest.raises(ConfigurationError, match=f"WXAUTH_SANDBOX: remove this, or {variable}"):
        WxAuth(app)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[str]:
    """`WXAUTH_SANDBOX=1 flask --app shop run --debug`, with the reloader."""
    (tmp_path / "shop.py").write_text(APPLICATION)
    port = free_port()
    environ = {"PATH": os.environ["PATH"], "WXAUTH_SANDBOX": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "flask", "--app", "shop", "run", "--debug", "--port", str(port)]
    process = subprocess.Popen(command, cwd=tmp_path, env=environ, start_new_session=True)
    try:
        wait_until(lambda: listens(port), "flask")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(10)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_flask_run_with_the_debugger_serves_the_sandbox_also_after_a_reload(running: str, tmp_path: Path) -> None:
    def log_in() -> int:
        code = requests.post(f"{running}/auth/sandbox/wx.login", json={}, timeout=15).json()["code"]
        token = requests.post(f"{running}/auth/login", json={"code": code}, timeout=15).json()["token"]
        return requests.get(f"{running}/orders", headers={"Authorization": token}, timeout=15).status_code

    def reloaded() -> bool:
        try:
            return requests.get(f"{running}/orders", timeout=5).status_code == 404
        except (requests.ConnectionError, requests.Timeout):
            return False  # the reloader ends the old process in the middle of a request, or the new one is not ready

    assert log_in() == 200
    source = tmp_path / "shop.py"
    time.sleep(1.1)  # the reloader compares times of modification
    source.write_text(APPLICATION.replace('"/orders"', '"/bills"'))
    wait_until(reloaded, "the reload")
    assert log_in() == 404


def test_fake_wechat_over_http_answers_another_process(client: FlaskClient) -> None:
    """An AppID that it does not know is accepted with the secret of its first request."""
    code = client.post("/auth/sandbox/wx.login", json={"user": "alice"}).get_json()["code"]
    query = {"appid": "wx0123456789abcdef", "secret": "a", "js_code": code, "grant_type": "authorization_code"}
    answer = client.get("/auth/sandbox/wechat/sns/jscode2session", query_string=query)
    assert json.loads(answer.data).keys() == {"openid", "unionid", "session_key"}
    again = client.get("/auth/sandbox/wechat/sns/jscode2session", query_string=query)
    assert json.loads(again.data)["errcode"] == 40163
    wrong = client.get("/auth/sandbox/wechat/sns/jscode2session", query_string=query | {"secret": "b"})
    assert json.loads(wrong.data)["errcode"] == 40125


def test_fake_wechat_over_http_gives_an_access_token(client: FlaskClient) -> None:
    body = {"grant_type": "client_credential", "appid": "wx0123456789abcdef", "secret": "a"}
    answer = client.post("/auth/sandbox/wechat/cgi-bin/stable_token", json=body)
    token = json.loads(answer.data)
    assert token["expires_in"] == 7200
    path = "/auth/sandbox/wechat/wxa/business/getuserphonenumber"
    query = {"access_token": token["access_token"]}
    refused = client.post(path, json={"code": "x"}, query_string=query)
    assert json.loads(refused.data)["errcode"] == 40029


def test_service_of_another_process_logs_in_at_the_fake_wechat(running: str) -> None:
    """WXAUTH_WECHAT_URL is the address of the sandbox."""
    code = requests.post(f"{running}/auth/sandbox/wx.login", json={"user": "alice"}, timeout=5).json()["code"]
    settings = Settings.from_env(
        {
            "WECHAT_APPID": "wx0123456789abcdef",
            "WECHAT_SECRET": "s" * 32,
            "WXAUTH_SECRET_KEYS": "k" * 32,
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "WXAUTH_WECHAT_URL": f"{running}/auth/sandbox/wechat",
        }
    )
    identity = wechat_client(settings, Transport(settings.wechat_url)).exchange("wx0123456789abcdef", code)
    assert identity.user.openid.startswith("oSANDBOX")


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff", b'{"appid": ["x"]}'])
def test_fake_wechat_over_http_answers_400_to_a_malformed_body(client: FlaskClient, body: bytes) -> None:
    assert client.post("/auth/sandbox/wechat/cgi-bin/stable_token", data=body).status_code == 400


def test_phone_code_of_another_mini_program_is_exchanged_over_http(client: FlaskClient) -> None:
    wechat, app = "/auth/sandbox/wechat", {"appid": "wx0123456789abcdef", "secret": "a"}
    token = json.loads(
        client.post(f"{wechat}/cgi-bin/stable_token", json={"grant_type": "client_credential"} | app).data
    )
    code = client.post("/auth/sandbox/getPhoneNumber", json={"user": "alice", "appid": app["appid"]}).get_json()[
        "code"
    ]
    query = {"access_token": token["access_token"]}
    answer = client.post(f"{wechat}/wxa/business/getuserphonenumber", json={"code": code}, query_string=query)
    assert json.loads(answer.data)["phone_info"]["countryCode"] == "86"
