"""`python -m wxauth doctor` on a healthy set-up and on broken ones: a real Redis, and a WeChat that speaks HTTP."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.conftest import APPID, RING_KEY
from tests.faults.clusters import ClusterSet
from tests.faults.test_store_tls import certificate, pem
from tests.faults.topologies import SERVICE, SentinelSet
from tests.rogue import Rogue, answering
from tests.servers import RedisServer, free_port
from tests.service import ROOT, WeChatServer, environment
from wxauth.cli import doctor_redis
from wxauth.cli.commands import main
from wxauth.models import Secret
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.wechat.errcodes import ERRCODES, HINTS, MEANINGS

APP_SECRET = "0123456789abcdef0123456789abcdef"
OTHER_SECRET = "fedcba9876543210fedcba9876543210"
PASSWORD = "redis-password-that-nobody-may-see"
WRONG_PASSWORD = "wrong-password-that-nobody-may-see"
ADDRESS = "203.0.113.7"


class ListedWeChat(FakeWeChat):
    """Takes nobody who is not on its IP list, and nobody is."""

    def _jscode2session(self, query: Mapping[str, str]) -> dict[str, object] | str:
        message = f"invalid ip {ADDRESS} ipv6 ::ffff:{ADDRESS}, not in whitelist rid: 6543a1b2-7c8d9e0f-11223344"
        return {"errcode": 40164, "errmsg": message}


@pytest.fixture(scope="module")
def redis_with_password() -> Iterator[RedisServer]:
    with RedisServer("--requirepass", PASSWORD) as server:
        yield server


@pytest.fixture
def wechat() -> Iterator[WeChatServer]:
    with WeChatServer() as server:
        server.fake = FakeWeChat({APPID: Secret(APP_SECRET)})
        yield server


@pytest.fixture
def environ(redis_with_password: RedisServer, wechat: WeChatServer) -> dict[str, str]:
    """A healthy set-up."""
    url = f"redis://:{PASSWORD}@127.0.0.1:{redis_with_password.port}/0"
    return environment(url, wechat.url, WECHAT_SECRET=APP_SECRET)


@pytest.fixture(autouse=True)
def no_redis_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """How fast this machine is just now is no matter here; a Redis slower than this does not answer at all."""
    monkeypatch.setattr(doctor_redis, "SLOW_MILLISECONDS", 250.0)


def doctor(environ: Mapping[str, str], *options: str) -> Result:
    return CliRunner(env=environ).invoke(main, ["doctor", *options], catch_exceptions=False)


def results(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What `--json` tells, by check; of several with one name the last."""
    return {result["check"]: result for result in json.loads(doctor(environ, "--json").stdout)["checks"]}


def test_healthy(environ: dict[str, str]) -> None:
    """Where all is well every check says so, and the exit code is 0."""
    result = doctor(environ, "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["status"]) == (0, "ok")
    checks = "configuration redis redis.tls redis.version redis.policy redis.latency clock app wechat"
    assert {it["check"]: it["status"] for it in told["checks"]} == dict.fromkeys(checks.split(), "ok")


def test_healthy_for_people(environ: dict[str, str]) -> None:
    """The table has a line for each check, no line is wider than a terminal, and its last word is a good one."""
    result = doctor(environ)
    lines = result.stdout.splitlines()
    assert (result.exit_code, lines[-1]) == (0, "All is well.")
    assert [line.split()[:2] for line in lines if line.startswith("ok")][-1] == ["ok", "wechat"]
    assert max(len(line) for line in lines) <= 80


def test_values_are_measured(environ: dict[str, str]) -> None:
    """Programs get numbers: the latency in milliseconds, the clocks' distance in seconds, WeChat's errcode."""
    found = results(environ)
    assert 0 < found["redis.latency"]["value"] < 250
    assert abs(found["clock"]["value"]) < 5
    assert (found["redis.policy"]["value"], found["wechat"]["value"]) == ("noeviction", 40029)
    assert found["redis.version"]["value"][0].isdigit()


def test_no_code_of_a_user_is_spent(environ: dict[str, str], wechat: WeChatServer) -> None:
    """WeChat is asked once for each app, with a code that no phone was given."""
    doctor(environ)
    assert [path.count("js_code=wxauth-doctor-has-no-code&") for path in wechat.asked] == [1]


Change = Callable[[dict[str, str], WeChatServer], dict[str, str]]


def to(**changes: str) -> Change:
    """Other variables; `{port}` is one where nobody listens."""
    free = {name: text.replace("{port}", str(free_port())) for name, text in changes.items()}
    return lambda environ, wechat: environ | free


def to_another_password(environ: dict[str, str], wechat: WeChatServer) -> dict[str, str]:
    return environ | {"REDIS_URL": environ["REDIS_URL"].replace(PASSWORD, WRONG_PASSWORD)}


def to_a_list(environ: dict[str, str], wechat: WeChatServer) -> dict[str, str]:
    wechat.fake = ListedWeChat({})
    return environ


def test_a_redis_that_is_far_away(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It works, so this is a warning, and the exit code is 1."""
    monkeypatch.setattr(doctor_redis, "SLOW_MILLISECONDS", 0.0)
    result = doctor(environ, "--json")
    unwell = {it["check"]: it["status"] for it in json.loads(result.stdout)["checks"] if it["status"] != "ok"}
    assert (result.exit_code, unwell) == (1, {"redis.latency": "warning"})


#: How a set-up is broken, the checks that are not well then, and what is said.
BROKEN: dict[str, tuple[Change, set[str], str]] = {
    "configuration": (
        to(WXAUTH_IDLE_TTL="never", WXAUTH_SECRET_KEY="x"),
        {"configuration"},
        "WXAUTH_SECRET_KEYS is meant?",
    ),
    "redis-down": (
        to(REDIS_URL=f"redis://:{PASSWORD}@127.0.0.1:{{port}}/0"),
        {"redis"},
        "nobody listens at REDIS_URL",
    ),
    "wrong-redis-password": (to_another_password, {"redis"}, "the password in REDIS_URL is missing or wrong"),
    "wrong-app-secret": (to(WECHAT_SECRET=OTHER_SECRET), {"wechat"}, f"40125: {HINTS[40125]}"),
    "not-on-the-ip-list": (to_a_list, {"wechat"}, f"40164: {HINTS[40164]} (WeChat saw {ADDRESS})"),
    "odd-shape": (to(WECHAT_SECRET="pasted"), {"app", "wechat"}, "the AppSecret is not 32 hex digits"),
    "wechat-down": (to(WXAUTH_WECHAT_URL="http://127.0.0.1:{port}"), {"wechat"}, "no answer that is WeChat's"),
}
broken_set_ups = pytest.mark.parametrize(("change", "unwell", "words"), BROKEN.values(), ids=BROKEN)


@broken_set_ups
def test_broken(change: Change, unwell: set[str], words: str, environ: dict[str, str], wechat: WeChatServer) -> None:
    """What is wrong is told with its hint in both forms, all else is still looked at, and the exit code is 2."""
    environ = change(environ, wechat)
    result, table = doctor(environ, "--json"), doctor(environ)
    checks = json.loads(result.stdout)["checks"]
    assert {it["check"] for it in checks if it["status"] != "ok"} == unwell
    assert any(words in it["english"] for it in checks)
    assert words in " ".join(table.stdout.split())
    assert (result.exit_code, table.exit_code) == (2, 2)


@broken_set_ups
def test_no_secret_is_told(
    change: Change, unwell: set[str], words: str, environ: dict[str, str], wechat: WeChatServer
) -> None:
    """Neither form holds a secret, not even a wrong one, nor what may be a secret in the wrong place."""
    environ = change(environ, wechat)
    swapped = environ | {"WECHAT_APPID": "pasted"}
    told = "".join(doctor(it, *form).output for it in (environ, swapped) for form in ([], ["--json"]))
    secrets = (APP_SECRET, OTHER_SECRET, RING_KEY, PASSWORD, WRONG_PASSWORD, "pasted")
    assert [secret for secret in secrets if secret in told] == []


def test_every_fault_is_told(environ: dict[str, str]) -> None:
    """All faults of the configuration are told together, each as a failure of its own."""
    faulty = environ | {"WXAUTH_IDLE_TTL": "never", "WXAUTH_MAX_SESSIONS": "0", "WXAUTH_SECRET_KEYS": ""}
    checks = json.loads(doctor(faulty, "--json").stdout)["checks"]
    faults = [it["english"].partition(":")[0] for it in checks if it["check"] == "configuration"]
    assert sorted(faults) == ["WXAUTH_IDLE_TTL", "WXAUTH_MAX_SESSIONS", "WXAUTH_SECRET_KEYS"]


@pytest.mark.parametrize(
    ("name", "text", "check"),
    [
        ("REDIS_URL", "memcached://127.0.0.1", "redis"),
        ("WXAUTH_REDIS_TLS", "perhaps", "redis"),
        ("WECHAT_SECRET", "", "wechat"),
        ("WXAUTH_WECHAT_URL", "http://relay.invalid", "wechat"),
    ],
)
def test_what_is_faulty_is_not_used(
    name: str, text: str, check: str, environ: dict[str, str], wechat: WeChatServer
) -> None:
    """Nobody is asked at an address, or with a secret, that the service would refuse to start with."""
    assert results(environ | {name: text})[check]["status"] == "skipped"
    assert len(wechat.asked) == (check != "wechat")


def test_nothing_configured() -> None:
    """In an empty environment the faults are told, and nobody is asked anything."""
    command = [sys.executable, "-m", "wxauth", "doctor", "--json"]
    done = subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, cwd=ROOT, capture_output=True, timeout=60)
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr, told["status"]) == (2, b"", "failure")
    assert {it["check"]: it["status"] for it in told["checks"]}.items() >= {
        ("redis", "skipped"),
        ("wechat", "skipped"),
    }


def test_the_log_stays_out_of_it(environ: dict[str, str]) -> None:
    """On a real terminal's stderr there is nothing beside the table, though WeChat's refusal is a line of the log."""
    command = [sys.executable, "-m", "wxauth", "doctor"]
    broken = environ | {"WECHAT_SECRET": OTHER_SECRET, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=broken, cwd=ROOT, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, b"")
    assert "40125" in done.stdout.decode()


def test_eviction(environ: dict[str, str]) -> None:
    """A policy that throws sessions away is a warning: exit code 1."""
    with RedisServer("--maxmemory-policy", "allkeys-lru") as server:
        environ |= {"REDIS_URL": server.url}
        found, table = results(environ), doctor(environ)
    assert (found["redis.policy"]["status"], found["redis.policy"]["value"]) == ("warning", "allkeys-lru")
    assert "allkeys-lru: set maxmemory-policy to noeviction" in " ".join(table.stdout.split())
    assert (table.exit_code, table.stdout.splitlines()[-1]) == (1, "1 warning")


def test_a_host_that_does_not_tell(environ: dict[str, str]) -> None:
    """Where the host forbids INFO and TIME, what they would say is skipped, and is nobody's fault."""
    with RedisServer() as server, server.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "app", "on", ">pw", "~wxa:*", "+@read", "+@write", "+@transaction", "+publish", "&*"
        )
        found = results(environ | {"REDIS_URL": f"redis://app:pw@127.0.0.1:{server.port}/0"})
    assert {check for check, it in found.items() if it["status"] == "skipped"} == {"redis.version", "clock"}
    assert found["redis"]["status"] == found["redis.latency"]["status"] == "ok"


def test_sentinel(environ: dict[str, str], sentinel_set: SentinelSet) -> None:
    """The primary that the sentinels name is looked at; a name that none of them knows is told as that."""
    found = results(environ | {"REDIS_URL": sentinel_set.url})
    assert {it["status"] for it in found.values()} == {"ok"}
    unknown = results(environ | {"REDIS_URL": sentinel_set.url.replace(f"/{SERVICE}/", "/nobody/")})
    assert "no sentinel knows a primary of that name" in unknown["redis"]["english"]


def test_cluster(environ: dict[str, str], cluster_set: ClusterSet) -> None:
    """Every primary is looked at: one that evicts, or takes no session, is enough."""
    environ |= {"REDIS_URL": cluster_set.url}
    assert {it["status"] for it in results(environ).values()} == {"ok"}
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
    """The URL of a Redis that shows a certificate it has made itself, as Heroku's does, and the certificate's pin."""
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
def test_a_real_redis_over_tls(
    tls: str, redis: str, encryption: str, environ: dict[str, str], encrypted: tuple[str, str]
) -> None:
    """A certificate that is not to be trusted is told as that, and is used only where the operator says so."""
    url, pin = encrypted
    found = results(environ | {"REDIS_URL": url, "WXAUTH_REDIS_TLS": tls.format(pin=pin)})
    assert (found["redis"]["status"], found["redis.tls"]["status"]) == (redis, encryption)
    assert redis == "ok" or "the TLS certificate is not to be trusted" in found["redis"]["english"]


@pytest.mark.parametrize(
    ("url", "tls", "status"),
    [
        ("redis://127.0.0.1:{port}/0", "verify", "ok"),
        ("redis://[::1]:{port}/0", "verify", "ok"),
        ("redis://redis.invalid:{port}/0", "verify", "warning"),
        ("redis+cluster://127.0.0.1:{port},redis.invalid:{port}", "verify", "warning"),
        ("rediss://127.0.0.1:{port}/0", "verify", "ok"),
        ("rediss://127.0.0.1:{port}/0", f"pin:{'0' * 64}", "ok"),
        ("rediss://127.0.0.1:{port}/0", "insecure", "warning"),
    ],
)
def test_tls(url: str, tls: str, status: str, environ: dict[str, str]) -> None:
    """TLS whose certificate is looked at, or a wire that nobody else is on, is well; all else is a warning."""
    environ |= {"REDIS_URL": url.format(port=free_port()), "WXAUTH_REDIS_TLS": tls}
    assert results(environ)["redis.tls"]["status"] == status


@pytest.mark.parametrize("errcode", sorted(MEANINGS))
def test_every_errcode_is_told_in_both_languages(errcode: int, environ: dict[str, str]) -> None:
    """40029 is the healthy answer; what the user's side can mend is a warning, what is the operator's a failure."""
    with Rogue(answering(json.dumps({"errcode": errcode, "errmsg": "some reason"}).encode())) as server:
        found = results(environ | {"WXAUTH_WECHAT_URL": server.url})["wechat"]
    status = "ok" if errcode == 40029 else "warning" if errcode in ERRCODES else "failure"
    assert (found["status"], found["value"]) == (status, errcode)
    if status != "ok":
        assert found["english"] == f"{errcode}: {MEANINGS[errcode].english}"
        assert found["chinese"] == f"{errcode}：{MEANINGS[errcode].chinese}"


def test_an_errcode_nobody_knows(environ: dict[str, str]) -> None:
    """Such an errcode is a failure, told with its number and WeChat's request id."""
    with Rogue(answering(b'{"errcode": 99999, "errmsg": "odd, rid: 6543a1b2-7c8d9e0f"}')) as server:
        found = results(environ | {"WXAUTH_WECHAT_URL": server.url})["wechat"]
    assert (found["status"], found["value"]) == ("failure", 99999)
    assert "6543a1b2-7c8d9e0f" in found["english"]


def test_somebody_who_takes_any_code(environ: dict[str, str]) -> None:
    """Whoever gives an identity for a code that can't be valid is not WeChat."""
    with Rogue(answering(b'{"openid": "o1", "session_key": "tiihtNczf5v6AKRyjwEUhQ=="}')) as server:
        found = results(environ | {"WXAUTH_WECHAT_URL": server.url})["wechat"]
    assert (found["status"], found["english"].endswith("is not WeChat")) == ("failure", True)


def test_known_errcodes_have_one_text() -> None:
    """Each errcode that the service knows stands once in the table, with both sentences; the log has the English."""
    assert set(MEANINGS) == {*ERRCODES, *HINTS}
    assert all(
        text.english and any("\u4e00" <= letter <= "\u9fff" for letter in text.chinese) for text in MEANINGS.values()
    )
    assert all(hint == MEANINGS[errcode].english for errcode, hint in HINTS.items())


def test_several_apps_are_told_apart(environ: dict[str, str]) -> None:
    """Each app is asked for by itself, and named by its AppID."""
    apps = f"{APPID}:{APP_SECRET},wxffffffffffffffff:{OTHER_SECRET}"
    told = json.loads(doctor(environ | _apps(apps), "--json").stdout)["checks"]
    assert {it["app"]: it["value"] for it in told if it["check"] == "wechat"} == {
        APPID: 40029,
        "wxffffffffffffffff": 40013,
    }


def _apps(text: str) -> dict[str, str]:
    return {"WXAUTH_APPS": text, "WECHAT_APPID": "", "WECHAT_SECRET": ""}


def test_the_sandbox_has_nothing_outside(wechat: WeChatServer) -> None:
    """A sandbox is well by itself."""
    result = doctor({"WXAUTH_SANDBOX": "1", "WXAUTH_WECHAT_URL": wechat.url}, "--json")
    assert (result.exit_code, json.loads(result.stdout)["checks"][-1]["check"]) == (0, "sandbox")
    assert wechat.asked == []


def test_help_says_the_exit_codes() -> None:
    """Whoever writes a program around it finds them where they look first."""
    text = " ".join(CliRunner().invoke(main, ["doctor", "--help"]).output.split())
    assert "Exit codes: 0 all is well; 1 there is a warning; 2 there is a failure" in text
