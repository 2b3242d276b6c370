"""The metrics: each counts what its name says, none contains an identity, and any worker returns the sum of all."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import ALICE, APPID, Phone, worker
from tests.support.clients import BACKEND, CLIENT_SECRET, ask, basic, post, settings_with_clients
from tests.support.servers import RedisServer, free_port, wait_until
from tests.support.service import ROOT, Service, WeChatServer, environment
from wxauth.keys import KeyRing
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.sessions.store import SessionStore
from wxauth.settings import Settings
from wxauth.web.app import create_app

Samples = dict[tuple[str, str], float]


@pytest.fixture
def settings() -> Settings:
    return settings_with_clients()


@pytest.fixture
def phone(client: FlaskClient, wechat: FakeWeChat) -> Phone:
    return Phone(client, wechat)


def read(text: str) -> Samples:
    """Return our samples by name and label values."""
    return {
        (sample.name.removeprefix("wxauth_"), ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("wxauth_") and not sample.name.endswith(("_bucket", "_created"))
    }


class Gauge:
    """The change of the metrics since it was created. Other tests in this process have counted before."""

    def __init__(self, client: FlaskClient) -> None:
        self._client = client
        self._before = self.now()

    def now(self) -> Samples:
        # The cache counts its hits at the next heartbeat.
        self._client.application.extensions["wxauth"].cache.on_revoked([])
        response = ask(self._client, "GET", "/metrics")
        assert response.status_code == 200
        return read(response.text)

    def moved(self, *names: str) -> dict[tuple[str, str], int]:
        after = self.now()
        moved = {key: int(after[key] - self._before.get(key, 0)) for key in after if key[0] in names}
        return {key: count for key, count in moved.items() if count}


@pytest.fixture
def gauge(client: FlaskClient) -> Gauge:
    return Gauge(client)


def test_metrics_have_the_content_type_of_prometheus(client: FlaskClient) -> None:
    response = ask(client, "GET", "/metrics")
    assert response.content_type == "text/plain; version=0.0.4; charset=utf-8"


def test_logins_are_counted_by_outcome(phone: Phone, gauge: Gauge) -> None:
    """ok, or the code of the problem."""
    for outcome in (None, None, "40029", "garbage", "40226"):
        phone.try_to_log_in(outcome, appid=APPID)
    assert gauge.moved("logins_total") == {
        ("logins_total", "ok"): 2,
        ("logins_total", "code_invalid"): 1,
        ("logins_total", "wechat_unreachable"): 1,
        ("logins_total", "user_blocked"): 1,
    }


def test_a_login_above_the_rate_limit_is_counted_as_rate_limited(
    settings: Settings, wechat: FakeWeChat, store: SessionStore
) -> None:
    """A client above its own limit is not."""
    phone = Phone(worker(settings, store, wechat, login_rate="1/hour", client_rate="3/hour"), wechat)
    gauge = Gauge(phone.client)
    assert [phone.try_to_log_in(appid=APPID).status_code for _ in range(3)] == [200, 429, 429]
    assert [post(phone.client, "/introspect", "a").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert gauge.moved("logins_total") == {("logins_total", "ok"): 1, ("logins_total", "rate_limited"): 2}


def test_failed_logins_of_clients_are_counted(phone: Phone, gauge: Gauge) -> None:
    """Wrong by HTTP Basic or in the form, or missing."""
    post(phone.client, "/introspect", "a", basic(secret="guess"))
    phone.client.post("/revoke", data={"token": "a", "client_id": BACKEND, "client_secret": "guess"})
    phone.client.get("/metrics")
    post(phone.client, "/introspect", "a")
    assert gauge.moved("client_failures_total") == {
        ("client_failures_total", "wrong"): 2,
        ("client_failures_total", "missing"): 1,
    }


def test_a_login_of_a_banned_user_is_counted_as_user_banned(phone: Phone, gauge: Gauge) -> None:
    """The ended session is counted with the reason ban."""
    openid = phone.log_in(appid=APPID).get("/session").get_json()["openid"]
    ask(phone.client, "PUT", f"/users/{APPID}/{openid}/ban")
    phone.try_to_log_in(appid=APPID)
    moved = gauge.moved("logins_total", "sessions_ended_total")
    assert moved == {
        ("logins_total", "ok"): 1,
        ("logins_total", "user_banned"): 1,
        ("sessions_ended_total", "ban"): 1,
    }


def test_user_data_is_counted_by_the_matching_session_key(phone: Phone, gauge: Gauge) -> None:
    """newest, previous or none."""
    given = [phone.wechat.wx_get_user_profile(APPID, phone.user)]
    for _ in range(2):
        code = phone.wechat.wx_login(phone.user, new_key=True)
        body = phone.client.post("/login", json={"code": code, "appid": APPID}).get_json()
        given.append(phone.wechat.wx_get_user_profile(APPID, phone.user))
    headers = {"Authorization": body["token"]}
    for data in given:
        for path, names in [("decrypt", ("encryptedData", "iv")), ("verify", ("rawData", "signature"))]:
            phone.client.post(f"/userdata/{path}", json={name: data[name] for name in names}, headers=headers)
    assert gauge.moved("userdata_total") == {
        ("userdata_total", f"{key},{kind}"): 1
        for kind in ("decrypt", "verify")
        for key in ("newest", "previous", "none")
    }


def test_each_call_to_wechat_is_timed(phone: Phone, gauge: Gauge) -> None:
    """Also a failed one. An invalid body causes no call."""
    phone.try_to_log_in(appid=APPID)
    phone.try_to_log_in("garbage", appid=APPID)
    phone.client.post("/login", json={"code": ""})
    assert gauge.moved("wechat_seconds_count") == {("wechat_seconds_count", ""): 2}


def test_each_redis_operation_is_timed(phone: Phone, gauge: Gauge) -> None:
    """A forged token causes none; the one that remains is the rate limit of /metrics."""
    phone.log_in(appid=APPID).get("/session")
    assert gauge.moved("redis_seconds_count")["redis_seconds_count", ""] >= 3
    quiet = Gauge(phone.client)
    phone.client.get("/session", headers={"Authorization": "nonsense"})
    assert quiet.moved("redis_seconds_count") == {("redis_seconds_count", ""): 1}


def test_checks_are_counted_by_result(phone: Phone, gauge: Gauge) -> None:
    """For /session, /verify and /introspect."""
    phone.log_in(appid=APPID)
    phone.get("/session")
    phone.get("/verify")
    post(phone.client, "/introspect", phone.token)
    phone.client.get("/verify", headers={"Authorization": "nonsense"})
    moved = Counter[str]()
    for (_, labels), count in gauge.moved("checks_total").items():
        moved[labels.partition(",")[0]] += count
    assert moved == {"ok": 3, "token_invalid": 1}


def test_a_failed_check_is_counted_with_the_code_of_its_problem(phone: Phone, gauge: Gauge) -> None:
    phone.log_in(appid=APPID).delete("/session")
    code = phone.get("/session").get_json()["code"]
    assert ("checks_total", f"{code},redis") in gauge.moved("checks_total")


def test_a_check_during_an_outage_is_counted_as_store_unavailable(ring: KeyRing) -> None:
    """The gauge of the breaker is 1 after five failures."""
    client = create_app(settings_with_clients(free_port())).test_client()
    gauge = Gauge(client)
    problem = client.get("/verify", headers={"Authorization": ring.issue(ALICE).text}).get_json()
    assert problem["code"] == "store_unavailable"
    assert gauge.moved("checks_total") == {("checks_total", "store_unavailable,redis"): 1}
    for _ in range(5):
        client.post("/login", json={"code": "a", "appid": APPID})
    assert gauge.moved("logins_total") == {("logins_total", "store_unavailable"): 5}
    assert gauge.now()["redis_breaker_open", ""] == 1


def test_the_breaker_gauge_is_0_once_redis_is_back() -> None:
    with RedisServer() as server:
        client = create_app(settings_with_clients(server.port)).test_client()
        gauge = Gauge(client)
        server.stop()
        for _ in range(5):
            client.get("/readyz")
        assert gauge.now()["redis_breaker_open", ""] == 1
        server.start()
        wait_until(lambda: client.get("/readyz").status_code == 200, "ready again")
        assert gauge.now()["redis_breaker_open", ""] == 0


def test_ended_sessions_are_counted_by_reason(phone: Phone, gauge: Gauge) -> None:
    """Once for each session."""
    for path in ("/session", "/sessions"):
        phone.token = ""
        phone.log_in(appid=APPID).delete(path)
    for _ in range(5):
        phone.token = ""
        phone.log_in(appid=APPID)
    post(phone.client, "/revoke", phone.token)
    assert gauge.moved("sessions_ended_total") == {
        ("sessions_ended_total", "logout"): 1,
        ("sessions_ended_total", "everywhere"): 1,
        ("sessions_ended_total", "revoked"): 1,
        ("sessions_ended_total", "cap"): 2,
    }


def test_no_metric_contains_an_identity(phone: Phone) -> None:
    """No appid, openid, unionid, token, session id, client or address."""
    phone.log_in(appid=APPID, device="planted-device")
    session = phone.get("/session").get_json()
    text = ask(phone.client, "GET", "/metrics").text
    planted = [phone.token[8:51], session["id"], session["openid"], session["unionid"], APPID, BACKEND, "127.0.0.1"]
    assert [found for found in [*planted, "planted-device", CLIENT_SECRET, basic()[6:]] if found in text] == []


@pytest.fixture(scope="module")
def wechat_server() -> Iterator[WeChatServer]:
    with WeChatServer() as server:
        yield server


@contextlib.contextmanager
def started(server: RedisServer, wechat_server: WeChatServer, folder: Path) -> Iterator[Service]:
    more = {"WEB_CONCURRENCY": "2", "WXAUTH_CLIENTS": f"{BACKEND}:{CLIENT_SECRET}"}
    environ = environment(server.url, wechat_server.url, PROMETHEUS_MULTIPROC_DIR=str(folder), **more)
    with Service(environ) as running:
        wait_until(lambda: running.output().count("Started worker") == 2, "two workers")
        yield running


@pytest.fixture
def service(redis_server: RedisServer, wechat_server: WeChatServer, tmp_path: Path) -> Iterator[Service]:
    with started(redis_server, wechat_server, tmp_path) as running:
        yield running


def exposed(service: Service) -> Samples:
    """Use a new connection, so that any worker may answer."""
    return read(requests.get(f"{service.url}/metrics", auth=(BACKEND, CLIENT_SECRET), timeout=5).text)


def not_ready(service: Service) -> bool:
    try:
        return requests.get(f"{service.url}/readyz", timeout=5).status_code == 503
    except requests.ConnectionError:
        # The connection was to the killed worker.
        return True


def test_each_worker_returns_the_sum_of_both(service: Service, wechat_server: WeChatServer, tmp_path: Path) -> None:
    """Both workers have handled requests."""
    for _ in range(20):
        requests.post(f"{service.url}/login", json={"code": wechat_server.fake.wx_login()}, timeout=5)
        requests.get(f"{service.url}/verify", timeout=5)
    assert {exposed(service)["logins_total", "ok"] for _ in range(10)} == {20}
    assert exposed(service)["wechat_seconds_count", ""] == 20
    assert len([*tmp_path.glob("counter_*.db")]) == 2


def test_metrics_without_a_credential_return_401(service: Service) -> None:
    assert requests.get(f"{service.url}/metrics", timeout=5).status_code == 401


def test_the_open_breaker_of_a_killed_worker_disappears(wechat_server: WeChatServer, tmp_path: Path) -> None:
    """Its file stays, and the new worker has another one."""
    with RedisServer() as server, started(server, wechat_server, tmp_path) as service:
        server.stop()
        # This causes at least five failures in each of the two workers.
        assert all(not_ready(service) for _ in range(60))
        # The lowest pid is the parent of the workers.
        pid = max(int(path.stem.rpartition("_")[2]) for path in tmp_path.glob("gauge_livemax_*"))
        assert exposed(service)["redis_breaker_open", ""] == 1
        os.kill(pid, signal.SIGKILL)
        server.start()
        wait_until(lambda: not not_ready(service), "the new worker")
        wait_until(lambda: exposed(service)["redis_breaker_open", ""] == 0, "closed")


def metrics_of_a_process(folder: str, cwd: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    """Count a login in a process with this PROMETHEUS_MULTIPROC_DIR, run `before`, and print the metrics."""
    lines = ["from wxauth.metrics import LOGINS, exposition", "LOGINS.labels('ok').inc()", before]
    program = "\n".join([*lines, "print(exposition().decode())"])
    environ = {"PROMETHEUS_MULTIPROC_DIR": folder, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environ, cwd=cwd, capture_output=True, text=True, timeout=60, check=True)


@pytest.mark.parametrize("folder", ["", "nowhere", "a-file"])
def test_metrics_without_a_folder_are_those_of_the_worker(folder: str, tmp_path: Path) -> None:
    """The variable is empty where `mktemp -d` fails. One warning says so, and nothing is written elsewhere."""
    (tmp_path / "a-file").touch()
    done = metrics_of_a_process(folder, tmp_path)
    assert read(done.stdout)["logins_total", "ok"] == 1
    assert done.stderr.count("UserWarning: PROMETHEUS_MULTIPROC_DIR is no folder to write in") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a-file"]


def test_metrics_after_the_folder_is_gone_are_those_of_the_worker(tmp_path: Path) -> None:
    """Some systems clean /tmp."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    done = metrics_of_a_process(str(folder), tmp_path, f"import shutil; shutil.rmtree({str(folder)!r})")
    assert read(done.stdout)["logins_total", "ok"] == 1


def test_service_without_a_folder_for_metrics_returns_them(
    redis_server: RedisServer, wechat_server: WeChatServer, tmp_path: Path
) -> None:
    with started(redis_server, wechat_server, tmp_path / "nowhere") as service:
        assert exposed(service)["redis_breaker_open", ""] == 0
        assert "PROMETHEUS_MULTIPROC_DIR" in service.output()
