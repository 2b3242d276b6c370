"""TLS to Redis: the certificate is verified or pinned, or a log event says that it is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import Run
from tests.faults.support.certificates import write_certificates
from tests.faults.support.driver import Load
from tests.faults.support.relay import Relay
from tests.faults.support.rig import ObservedService, assert_clean, events
from tests.support.servers import RedisServer, free_port, wait_until
from tests.support.service import WeChatServer
from wxauth.errors import StoreUnavailable
from wxauth.storage.client import RedisClient, bytes_or_none
from wxauth.storage.connections import connector


@dataclass(frozen=True)
class EncryptedRedis:
    """A redis-server that speaks TLS on `port`. `authority` is the file of the CA that signed its certificate."""

    port: int
    authority: Path
    fingerprint: str

    @property
    def url(self) -> str:
        return f"rediss://127.0.0.1:{self.port}/0"


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EncryptedRedis]:
    files = write_certificates(tmp_path_factory.mktemp("tls"))
    port = free_port()
    options = (
        "--tls-cert-file",
        str(files.certificate),
        "--tls-key-file",
        str(files.key),
        "--tls-auth-clients",
        "no",
    )
    with RedisServer("--tls-port", str(port), *options):
        yield EncryptedRedis(port, files.authority, files.fingerprint)


def read_on_new_connection(client: RedisClient) -> bytes | None:
    return client.ask("absent", "GET", "absent", parse=bytes_or_none, fresh=True)


def health(encrypted: EncryptedRedis, tls: str) -> str:
    try:
        return RedisClient(connector(encrypted.url, tls)).health()
    except StoreUnavailable as error:
        return error.reason


def test_verify_accepts_a_certificate_of_a_known_authority(
    encrypted: EncryptedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable SSL_CERT_FILE of OpenSSL names the authority."""
    monkeypatch.setenv("SSL_CERT_FILE", str(encrypted.authority))
    assert health(encrypted, "verify") == "ok"


def test_valkeys_is_a_name_for_rediss(encrypted: EncryptedRedis) -> None:
    """A pin holds for it too."""
    url = encrypted.url.replace("rediss://", "valkeys://")
    assert RedisClient(connector(url, f"pin:{encrypted.fingerprint}")).health() == "ok"
    with pytest.raises(StoreUnavailable, match="unreachable"):
        RedisClient(connector(url, "verify")).health()


def test_verify_refuses_a_certificate_of_an_unknown_authority(encrypted: EncryptedRedis) -> None:
    """`verify` is the default."""
    assert health(encrypted, "verify") == "unreachable"


def test_pin_accepts_the_pinned_certificate(encrypted: EncryptedRedis) -> None:
    """The authority does not matter."""
    assert health(encrypted, f"pin:{encrypted.fingerprint}") == "ok"


def test_new_tls_connection_returns_the_reply_to_its_own_command(encrypted: EncryptedRedis) -> None:
    """redis-py mistakes the session tickets of TLS 1.3 for unread data."""
    client = RedisClient(connector(encrypted.url, f"pin:{encrypted.fingerprint}"))
    assert [read_on_new_connection(client) for _ in range(60)] == [None] * 60


def test_pin_refuses_another_certificate(encrypted: EncryptedRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds also if its authority is known."""
    monkeypatch.setenv("SSL_CERT_FILE", str(encrypted.authority))
    assert health(encrypted, f"pin:{'0' * 64}") == "unreachable"


def test_verify_refuses_a_host_that_the_certificate_does_not_name(
    encrypted: EncryptedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authority is known."""
    monkeypatch.setenv("SSL_CERT_FILE", str(encrypted.authority))
    client = RedisClient(connector(f"rediss://localhost:{encrypted.port}/0", "verify"))
    with pytest.raises(StoreUnavailable, match="unreachable"):
        client.health()


@pytest.mark.parametrize("tls", ["verify", "pin", "insecure"])
def test_service_over_tls_keeps_sessions_when_connections_are_cut(
    run: Run, encrypted: EncryptedRedis, tls: str
) -> None:
    """Only `insecure` logs a warning at the start, with its hint."""
    fault = f"tls, {tls}"
    setting = f"pin:{encrypted.fingerprint}" if tls == "pin" else tls
    trust = {"SSL_CERT_FILE": str(encrypted.authority)} if tls == "verify" else {}
    with WeChatServer() as wechat, Relay(encrypted.port, run.seed) as relay:
        url = f"rediss://127.0.0.1:{relay.port}/0"
        with ObservedService(url, wechat, WXAUTH_REDIS_TLS=setting, **trust) as service:
            load = Load(service.url, wechat, seed=run.seed, users=6)
            load.log_in_all()
            before = len(load.calls)
            load.run(run.of(60, 5000))
            relay.cut()
            load.check_all()
            passed = sum(call.passed for call in load.calls[:before])
            run.figure(fault, "logins before the load", passed, len(load.people))
            assert passed == len(load.people)
            assert_clean(run, fault, service, load.calls)
            wait_until(lambda: any(event["event"] == "request" for event in events(service)), "the log")
            warned = [event["hint"] for event in events(service) if event["event"] == "redis_tls_insecure"]
            assert bool(warned) == (tls == "insecure")
            assert all(warned)
