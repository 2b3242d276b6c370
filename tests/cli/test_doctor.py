"""`python -m wxauth doctor` on valid and broken installations, with a real Redis and a fake WeChat over HTTP."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.conftest import APPID, RING_KEY
from tests.faults.support.certificates import certificate, pem
from tests.faults.support.clusters import ClusterSet
from tests.faults.support.leaks import hits
from tests.faults.support.topologies import SERVICE, SentinelSet
from tests.support.acl import grant, restricted_url
from tests.support.connect_proxy import PASSWORD as PROXY_PASSWORD
from tests.support.connect_proxy import USER as PROXY_USER
from tests.support.connect_proxy import ConnectProxy
from tests.support.rogue import Rogue, answering, self_signed
from tests.support.servers import RedisServer, free_port
from tests.support.service import ROOT, WeChatServer, environment
from wxauth.cli.commands import main
from wxauth.models import Secret
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.settings import Settings
from wxauth.storage.reasons import HINTS as REDIS_HINTS
from wxauth.web.admin import doctor as checks
from wxauth.web.app import create_app
from wxauth.web.middleware.addresses import FORWARDED
from wxauth.web.services import redis_client
from wxauth.wechat.errcodes import ERRCODES, HINTS, MEANINGS

APP_SECRET = "0123456789abcdef0123456789abcdef"
OTHER_SECRET = "fedcba9876543210fedcba9876543210"
PASSWORD = "redis-password-that-must-stay-secret"
WRONG_PASSWORD = "wrong-password-that-must-stay-secret"
ADDRESS = "203.0.113.7"


class WeChatWithIPList(FakeWeChat):
    """Its IP list is empty, so it rejects every request."""

    def _jscode2session(self, query: Mapping[str, str]) -> dict[str, object] | str:
        message = f"invalid ip {ADDRESS} ipv6 ::ffff:{ADDRESS}, not in whitelist rid: 6543a1b2-7c8d9e0f-11223344"
        return {"errcode": 40164, "errmsg": message}


@pytest.fixture(scope="module")
def redis_with_password() -> Iterator[RedisServer]:
    with RedisServer("--requirepass", PASSWORD, "--appendonly", "yes") as server:
        yield server


@pytest.fixture
def wechat() -> Iterator[WeChatServer]:
    with WeChatServer() as server:
        server.fake = FakeWeChat({APPID: Secret(APP_SECRET)})
        yield server


@pytest.fixture
def environ(redis_with_password: RedisServer, wechat: WeChatServer) -> dict[str, str]:
    """A valid installation."""
    url = f"redis://:{PASSWORD}@127.0.0.1:{redis_with_password.port}/0"
    return environment(url, wechat.url, WECHAT_SECRET=APP_SECRET)


@pytest.fixture(autouse=True)
def no_redis_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests must not depend on the speed of the machine."""
    monkeypatch.setattr(checks, "SLOW_MILLISECONDS", float("inf"))


def doctor(environ: Mapping[str, str], *options: str) -> Result:
    return CliRunner(env=environ).invoke(main, ["doctor", *options], catch_exceptions=False)


def results(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The output of `--json` by check. The last result of a check counts."""
    return {result["check"]: result for result in json.loads(doctor(environ, "--json").stdout)["checks"]}


def test_doctor_on_a_valid_installation_reports_each_check_as_ok(environ: dict[str, str]) -> None:
    result = doctor(environ, "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["status"]) == (0, "ok")
    checks = "configuration redis redis.tls redis.version redis.policy redis.persistence redis.latency clock wechat"
    assert {it["check"]: it["status"] for it in report["checks"]} == dict.fromkeys(checks.split(), "ok")


def test_the_output_has_one_line_for_each_check_with_the_chinese_text_below(environ: dict[str, str]) -> None:
    result = doctor(environ)
    lines = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("ok")][-1] == ["ok", "wechat"]
    assert (result.exit_code, lines[-1].strip()) == (0, checks.ACCEPTED.chinese)


def test_the_json_contains_the_measured_values(environ: dict[str, str]) -> None:
    """Latency in milliseconds, clock difference in seconds, the errcode of WeChat."""
    found = results(environ)
    assert found["redis.latency"]["value"] > 0
    assert abs(found["clock"]["value"]) < 5
    assert (found["redis.policy"]["value"], found["wechat"]["value"]) == ("noeviction", 40029)
    assert found["redis.version"]["value"][0].isdigit()


def test_doctor_asks_wechat_once_with_an_invalid_code(environ: dict[str, str], wechat: WeChatServer) -> None:
    """No code of a user is used up."""
    doctor(environ)
    assert [path.count("js_code=wxauth-doctor-has-no-code&") for path in wechat.asked] == [1]


Change = Callable[[dict[str, str], WeChatServer], dict[str, str]]


def to(**changes: str) -> Change:
    """Change variables; `{port}` is an unused port."""
    free = {name: text.replace("{port}", str(free_port())) for name, text in changes.items()}
    return lambda environ, wechat: environ | free


def to_another_password(environ: dict[str, str], wechat: WeChatServer) -> dict[str, str]:
    return environ | {"REDIS_URL": environ["REDIS_URL"].replace(PASSWORD, WRONG_PASSWORD)}


def to_an_ip_list(environ: dict[str, str], wechat: WeChatServer) -> dict[str, str]:
    wechat.fake = WeChatWithIPList({})
    return environ


def test_a_slow_redis_is_a_warning(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "SLOW_MILLISECONDS", 0.0)
    result = doctor(environ, "--json")
    bad_checks = {it["check"]: it["status"] for it in json.loads(result.stdout)["checks"] if it["status"] != "ok"}
    assert (result.exit_code, bad_checks) == (1, {"redis.latency": "warning"})


def test_doctor_warns_of_a_proxy_that_is_not_trusted(environ: dict[str, str], wechat: WeChatServer) -> None:
    """The service has seen X-Forwarded-For, and has left a mark in Redis."""
    settings = Settings.from_env(environ)
    with create_app(dataclasses.replace(settings, cache_size=0)).test_client() as client:
        assert "proxies" not in results(environ)
        client.get("/session", headers={"X-Forwarded-For": "203.0.113.7"})
    found = doctor(environ, "--json")
    (warning,) = [it for it in json.loads(found.stdout)["checks"] if it["status"] != "ok"]
    assert (found.exit_code, warning["check"], warning["status"]) == (1, "proxies", "warning")
    assert (warning["english"], warning["chinese"]) == checks.PROXY_NOT_TRUSTED
    assert "proxies" not in results(environ | {"WXAUTH_TRUSTED_PROXIES": "1"})
    redis_client(settings).delete(FORWARDED)


def test_doctor_asks_wechat_through_the_proxy_and_names_it_without_its_password(environ: dict[str, str]) -> None:
    with ConnectProxy() as proxy:
        output = doctor(environ | {"WXAUTH_WECHAT_PROXY": proxy.url()}).stdout
        found = results(environ | {"WXAUTH_WECHAT_PROXY": proxy.url()})
        assert len(proxy.heads) == 2
    assert (found["wechat.proxy"]["status"], found["wechat.proxy"]["value"]) == ("ok", proxy.host)
    assert (found["wechat"]["status"], found["wechat"]["value"]) == ("ok", 40029)
    assert f"requests to WeChat go through {proxy.host}" in output
    planted = {"password": PROXY_PASSWORD, "user": f"{PROXY_USER}:"}
    assert hits(planted, "doctor", output.encode() + json.dumps(found).encode()) == []


def test_a_proxy_that_refuses_the_password_is_a_failure_with_a_hint(environ: dict[str, str]) -> None:
    with ConnectProxy() as proxy:
        found = results(environ | {"WXAUTH_WECHAT_PROXY": proxy.url("wrong-proxy-password")})["wechat"]
    hint = checks.NO_ANSWER_HINTS["proxy"]
    assert (found["status"], found["value"]) == ("failure", "proxy_407")
    assert (found["english"], found["chinese"]) == (f"{hint.english} (proxy_407)", f"{hint.chinese} (proxy_407)")


def test_a_certificate_that_is_not_trusted_is_a_failure_with_a_hint(environ: dict[str, str], tmp_path: Path) -> None:
    context, _ = self_signed(tmp_path)
    with Rogue(answering(b"{}"), context) as server:
        found = results(environ | {"WXAUTH_WECHAT_URL": server.url})["wechat"]
    assert (found["status"], found["value"]) == ("failure", "tls")
    assert "SSL_CERT_FILE" in found["english"]
    assert "SSL_CERT_FILE" in found["chinese"]


#: For each broken installation: the change, the checks that are not ok, and a part of the message.
BROKEN: dict[str, tuple[Change, set[str], str]] = {
    "configuration": (
        to(WXAUTH_IDLE_TTL="never", WXAUTH_SECRET_KEY="x"),
        {"configuration"},
        "did you mean WXAUTH_SECRET_KEYS?",
    ),
    "redis-down": (
        to(REDIS_URL=f"redis://:{PASSWORD}@127.0.0.1:{{port}}/0"),
        {"redis"},
        REDIS_HINTS["unreachable"],
    ),
    "wrong-redis-password": (to_another_password, {"redis"}, REDIS_HINTS["noauth"]),
    "wrong-app-secret": (to(WECHAT_SECRET=OTHER_SECRET), {"wechat"}, f"40125: {HINTS[40125]}"),
    "not-on-the-ip-list": (to_an_ip_list, {"wechat"}, f"40164: {HINTS[40164]} (IP {ADDRESS})"),
    "wechat-down": (to(WXAUTH_WECHAT_URL="http://127.0.0.1:{port}"), {"wechat"}, "no valid answer"),
}
broken_installations = pytest.mark.parametrize(("change", "bad_checks", "words"), BROKEN.values(), ids=BROKEN)


@broken_installations
def test_a_broken_installation_exits_with_2_and_a_hint(
    change: Change, bad_checks: set[str], words: str, environ: dict[str, str], wechat: WeChatServer
) -> None:
    """Both outputs contain the hint, and the other checks still run."""
    environ = change(environ, wechat)
    result, table = doctor(environ, "--json"), doctor(environ)
    checks = json.loads(result.stdout)["checks"]
    assert {it["check"] for it in checks if it["status"] != "ok"} == bad_checks
    assert any(words in it["english"] for it in checks)
    assert words in " ".join(table.stdout.split())
    assert (result.exit_code, table.exit_code) == (2, 2)


@broken_installations
def test_no_output_contains_a_secret(
    change: Change, bad_checks: set[str], words: str, environ: dict[str, str], wechat: WeChatServer
) -> None:
    """Neither a wrong secret, nor a value that may be a secret in the wrong variable."""
    environ = change(environ, wechat)
    swapped = environ | {"WECHAT_APPID": "pasted"}
    output = "".join(doctor(it, *form).output for it in (environ, swapped) for form in ([], ["--json"]))
    secrets = (APP_SECRET, OTHER_SECRET, RING_KEY, PASSWORD, WRONG_PASSWORD, "pasted")
    assert [secret for secret in secrets if secret in output] == []


def test_each_configuration_error_is_a_failure(environ: dict[str, str]) -> None:
    broken = environ | {"WXAUTH_IDLE_TTL": "never", "WXAUTH_MAX_SESSIONS": "0", "WXAUTH_SECRET_KEYS": ""}
    checks = json.loads(doctor(broken, "--json").stdout)["checks"]
    names = [it["english"].partition(":")[0] for it in checks if it["check"] == "configuration"]
    assert sorted(names) == ["WXAUTH_IDLE_TTL", "WXAUTH_MAX_SESSIONS", "WXAUTH_SECRET_KEYS"]


@pytest.mark.parametrize(
    ("name", "text", "check"),
    [
        ("REDIS_URL", "memcached://127.0.0.1", "redis"),
        ("WXAUTH_REDIS_TLS", "perhaps", "redis"),
        ("WECHAT_SECRET", "", "wechat"),
        ("WXAUTH_WECHAT_URL", "http://relay.invalid", "wechat"),
    ],
)
def test_a_check_of_an_invalid_variable_is_skipped(
    name: str, text: str, check: str, environ: dict[str, str], wechat: WeChatServer
) -> None:
    """Doctor connects to no address with which the service refuses to start."""
    assert results(environ | {name: text})[check]["status"] == "skipped"
    assert len(wechat.asked) == (check != "wechat")


def test_doctor_without_configuration_exits_with_2_and_connects_nowhere() -> None:
    command = [sys.executable, "-m", "wxauth", "doctor", "--json"]
    done = subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, cwd=ROOT, capture_output=True, timeout=60)
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr, report["status"]) == (2, b"", "failure")
    assert {it["check"]: it["status"] for it in report["checks"]}.items() >= {
        ("redis", "skipped"),
        ("wechat", "skipped"),
    }


def test_doctor_writes_no_log_event_to_stderr(environ: dict[str, str]) -> None:
    """The service would log the rejection by WeChat."""
    command = [sys.executable, "-m", "wxauth", "doctor"]
    broken = environ | {"WECHAT_SECRET": OTHER_SECRET, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=broken, cwd=ROOT, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, b"")
    assert "40125" in done.stdout.decode()


def test_an_eviction_policy_is_a_warning(environ: dict[str, str]) -> None:
    """The exit code is 1."""
    with RedisServer("--maxmemory-policy", "allkeys-lru", "--appendonly", "yes") as server:
        environ |= {"REDIS_URL": server.url}
        found, table = results(environ), doctor(environ)
    assert (found["redis.policy"]["status"], found["redis.policy"]["value"]) == ("warning", "allkeys-lru")
    assert f"allkeys-lru: {REDIS_HINTS['evicting']}" in " ".join(table.stdout.split())
    assert table.exit_code == 1


def test_redis_without_an_append_only_file_is_a_warning_in_both_languages(environ: dict[str, str]) -> None:
    """Its snapshots are not enough: a crash undoes the logouts since the last one."""
    with RedisServer("--save", "60 1") as server:
        environ |= {"REDIS_URL": server.url}
        found, table = results(environ)["redis.persistence"], doctor(environ)
    assert (found["status"], found["value"]) == ("warning", "off")
    assert (found["english"], found["chinese"], table.exit_code) == (*checks.NO_AOF, 1)
    rows = [" ".join(line.split()) for line in table.stdout.splitlines()]
    place = rows.index(f"warning redis.persistence {checks.NO_AOF.english}")
    assert rows[place + 1] == checks.NO_AOF.chinese


@pytest.mark.parametrize(
    ("reported", "status"),
    [({"1"}, "ok"), ({"0", "1"}, "warning"), ({"unknown"}, "skipped"), ({"1", "unknown"}, "skipped")],
)
def test_persistence_is_that_of_all_nodes(reported: set[str], status: str) -> None:
    """A server that only resembles Redis may not report it."""
    assert checks._persistence(reported).status == status


def test_a_unix_socket_needs_no_encryption(environ: dict[str, str]) -> None:
    with RedisServer("--unixsocket", "{folder}/redis.sock") as server:
        found = results(environ | {"REDIS_URL": f"unix://{server.folder}/redis.sock"})
    assert {check: found[check]["status"] for check in ("redis.tls", "redis", "clock")} == {
        "redis.tls": "ok",
        "redis": "ok",
        "clock": "ok",
    }


@pytest.mark.parametrize(("scheme", "value"), [("valkey", "off"), ("valkeys", "verify")])
def test_valkey_is_judged_like_redis(environ: dict[str, str], scheme: str, value: str) -> None:
    """Without encryption to another machine there is a warning."""
    settings = Settings.from_env(environ | {"REDIS_URL": f"{scheme}://203.0.113.1"})
    found = checks._tls(settings)
    assert (found.value, found.status) == (value, "warning" if value == "off" else "ok")


def test_redis_is_not_checked_with_an_invalid_timeout(environ: dict[str, str]) -> None:
    assert results(environ | {"WXAUTH_REDIS_TIMEOUT": "slow"})["redis"]["status"] == "skipped"


def without_right(server: RedisServer, environ: dict[str, str], without: str) -> dict[str, dict[str, Any]]:
    """The results for a Redis user with the documented rights but one."""
    with server.client() as client:
        grant(client, without=without)
    return results(environ | {"REDIS_URL": restricted_url(server.url)})


def test_the_version_is_skipped_if_info_is_forbidden(environ: dict[str, str]) -> None:
    """Some hosting providers forbid INFO."""
    with RedisServer() as server:
        found = without_right(server, environ, "info")
    assert {check for check, it in found.items() if it["status"] == "skipped"} == {"redis.version"}
    assert {found[check]["status"] for check in ("redis", "redis.latency", "clock")} == {"ok"}


@pytest.mark.parametrize("right", ["time", "evalsha", "hget", "publish", "subscribe"])
def test_a_missing_right_is_a_failure_with_the_hint(environ: dict[str, str], right: str) -> None:
    """A login would fail, or the session cache would stay empty."""
    with RedisServer() as server:
        found = without_right(server, environ, right)["redis"]
    assert (found["status"], found["value"]) == ("failure", "noperm")
    assert REDIS_HINTS["noperm"] in found["english"]


def test_doctor_checks_the_primary_of_a_sentinel_set(environ: dict[str, str], sentinel_set: SentinelSet) -> None:
    """An unknown service name is a failure."""
    found = results(environ | {"REDIS_URL": sentinel_set.url})
    assert {check for check, it in found.items() if it["status"] != "ok"} == {"redis.persistence"}
    unknown = results(environ | {"REDIS_URL": sentinel_set.url.replace(f"/{SERVICE}/", "/unknown/")})
    assert REDIS_HINTS["unreachable"] in unknown["redis"]["english"]


def test_doctor_checks_every_primary_of_a_cluster(environ: dict[str, str], cluster_set: ClusterSet) -> None:
    """One primary that evicts keys or rejects writes is enough for a result that is not ok."""
    environ |= {"REDIS_URL": cluster_set.url}
    assert {check for check, it in results(environ).items() if it["status"] != "ok"} == {"redis.persistence"}
    node = cluster_set.primaries()[-1]
    with node.option("maxmemory-policy", "allkeys-lru"):
        found = results(environ)
    assert (found["redis.policy"]["status"], found["redis.policy"]["value"]) == ("warning", "allkeys-lru, noeviction")
    with node.option("min-replicas-to-write", "9"):
        found = results(environ)
    assert (found["redis"]["status"], found["redis"]["value"]) == ("failure", "too_few_replicas")
    assert "a part of the cluster" in found["redis"]["english"]


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URL of a Redis with a self-signed certificate, as on Heroku, and the pin of the certificate."""
    folder, key, port = tmp_path_factory.mktemp("tls"), ec.generate_private_key(ec.SECP256R1()), free_port()
    own = certificate("redis", key, None, key)
    (folder / "redis.pem").write_bytes(own.public_bytes(Encoding.PEM))
    (folder / "redis.key").write_bytes(pem(key))
    files = ["--tls-cert-file", f"{folder}/redis.pem", "--tls-key-file", f"{folder}/redis.key"]
    with RedisServer("--tls-port", str(port), *files, "--tls-auth-clients", "no"):
        yield f"rediss://127.0.0.1:{port}/0", hashlib.sha256(own.public_bytes(Encoding.DER)).hexdigest()


@pytest.mark.parametrize(
    ("tls", "redis", "encryption"),
    [
        ("verify", "failure", "ok"),
        (f"pin:{'0' * 64}", "failure", "ok"),
        ("pin:{pin}", "ok", "ok"),
        ("insecure", "ok", "warning"),
    ],
)
def test_a_self_signed_certificate_needs_a_pin_or_insecure(
    tls: str, redis: str, encryption: str, environ: dict[str, str], encrypted: tuple[str, str]
) -> None:
    url, pin = encrypted
    found = results(environ | {"REDIS_URL": url, "WXAUTH_REDIS_TLS": tls.format(pin=pin)})
    assert (found["redis"]["status"], found["redis.tls"]["status"]) == (redis, encryption)
    assert redis == "ok" or REDIS_HINTS["unreachable"] in found["redis"]["english"]


@pytest.mark.parametrize(
    ("url", "tls", "status"),
    [
        ("redis://127.0.0.1:{port}/0", "verify", "ok"),
        ("redis://[::1]:{port}/0", "verify", "ok"),
        ("redis+cluster://:pw@127.0.0.1:{port},[::1]:{port}", "verify", "ok"),
        ("redis://redis.invalid:{port}/0", "verify", "warning"),
        ("redis+cluster://127.0.0.1:{port},redis.invalid:{port}", "verify", "warning"),
        ("rediss://127.0.0.1:{port}/0", "verify", "ok"),
        ("rediss://127.0.0.1:{port}/0", f"pin:{'0' * 64}", "ok"),
        ("rediss://127.0.0.1:{port}/0", "insecure", "warning"),
    ],
)
def test_redis_without_verified_tls_is_a_warning_except_on_loopback(
    url: str, tls: str, status: str, environ: dict[str, str]
) -> None:
    environ |= {"REDIS_URL": url.format(port=free_port()), "WXAUTH_REDIS_TLS": tls}
    assert results(environ)["redis.tls"]["status"] == status


@pytest.mark.parametrize("errcode", sorted(MEANINGS))
def test_each_errcode_has_a_status_and_a_text_in_both_languages(errcode: int, environ: dict[str, str]) -> None:
    """40029 is ok. An error that the user can fix is a warning, one that the operator can fix a failure."""
    with Rogue(answering(json.dumps({"errcode": errcode, "errmsg": "some reason"}).encode())) as server:
        found = results(environ | {"WXAUTH_WECHAT_URL": server.url})["wechat"]
    status = "ok" if errcode == 40029 else "warning" if errcode in ERRCODES else "failure"
    assert (found["status"], found["value"]) == (status, errcode)
    if status != "ok":
        assert found["english"] == f"{errcode}: {MEANINGS[errcode].english}"
        assert found["chinese"] == f"{errcode}：{MEANINGS[errcode].chinese}"


def test_an_unknown_errcode_is_a_failure_with_the_rid_of_wechat(environ: dict[str, str]) -> None:
    with Rogue(answering(b'{"errcode": 99999, "errmsg": "odd, rid: 6543a1b2-7c8d9e0f"}')) as server:
        found = results(environ | {"WXAUTH_WECHAT_URL": server.url})["wechat"]
    assert (found["status"], found["value"]) == ("failure", 99999)
    assert "6543a1b2-7c8d9e0f" in found["english"]


def test_a_server_that_accepts_an_invalid_code_is_not_wechat(environ: dict[str, str]) -> None:
    with Rogue(answering(b'{"openid": "o1", "session_key": "tiihtNczf5v6AKRyjwEUhQ=="}')) as server:
        found = results(environ | {"WXAUTH_WECHAT_URL": server.url})["wechat"]
    assert (found["status"], found["english"]) == ("failure", checks.NO_ANSWER.english)


def test_each_known_errcode_has_one_text_in_both_languages() -> None:
    """The log uses the English one."""
    assert set(MEANINGS) == {*ERRCODES, *HINTS}
    assert all(
        text.english and any("\u4e00" <= letter <= "\u9fff" for letter in text.chinese) for text in MEANINGS.values()
    )
    assert all(hint == MEANINGS[errcode].english for errcode, hint in HINTS.items())


def test_each_app_has_a_result_with_its_appid(environ: dict[str, str]) -> None:
    apps = f"{APPID}:{APP_SECRET},wxffffffffffffffff:{OTHER_SECRET}"
    checks = json.loads(doctor(environ | _apps(apps), "--json").stdout)["checks"]
    assert {it["app"]: it["value"] for it in checks if it["check"] == "wechat"} == {
        APPID: 40029,
        "wxffffffffffffffff": 40013,
    }


def _apps(text: str) -> dict[str, str]:
    return {"WXAUTH_APPS": text, "WECHAT_APPID": "", "WECHAT_SECRET": ""}


def test_doctor_in_the_sandbox_connects_nowhere(wechat: WeChatServer) -> None:
    result = doctor({"WXAUTH_SANDBOX": "1", "WXAUTH_WECHAT_URL": wechat.url}, "--json")
    assert (result.exit_code, json.loads(result.stdout)["checks"][-1]["check"]) == (0, "sandbox")
    assert wechat.asked == []


def test_help_lists_the_exit_codes() -> None:
    text = " ".join(CliRunner().invoke(main, ["doctor", "--help"]).output.split())
    assert "Exit codes: 0 no problem; 1 a warning; 2 a failure" in text
