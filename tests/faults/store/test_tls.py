"""TLS to Redis: a certificate is verified, or pinned, or its absence is somebody's decision that the log shows."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.faults.conftest import Run
from tests.faults.support.driver import Load
from tests.faults.support.relay import Relay
from tests.faults.support.rig import ObservedService, assert_clean, events
from tests.servers import RedisServer, free_port, wait_until
from tests.service import WeChatServer
from wxauth.errors import StoreUnavailable
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import connector

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Encrypted:
    """A redis-server that speaks TLS on `port`; `authority` is the file of the CA that signed its certificate."""

    port: int
    authority: Path
    fingerprint: str

    @property
    def url(self) -> str:
        return f"rediss://127.0.0.1:{self.port}/0"


def certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    """For 127.0.0.1, or for an authority that issues itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    issuer_identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    usage = x509.KeyUsage(True, False, False, False, False, issuer is None, issuer is None, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(address, False)
        .add_extension(x509.BasicConstraints(issuer is None, None), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(issuer_identifier, False)
        .add_extension(usage, True)
    )
    return builder.sign(issuer_key, hashes.SHA256())


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    folder = tmp_path_factory.mktemp("tls")
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = certificate("an authority of the tests", authority_key, None, authority_key)
    own = certificate("redis", key, authority, authority_key)
    (folder / "ca.pem").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    (folder / "redis.pem").write_bytes(own.public_bytes(serialization.Encoding.PEM))
    (folder / "redis.key").write_bytes(pem(key))
    port = free_port()
    files = ("--tls-cert-file", f"{folder}/redis.pem", "--tls-key-file", f"{folder}/redis.key")
    with RedisServer("--tls-port", str(port), *files, "--tls-auth-clients", "no"):
        fingerprint = hashlib.sha256(own.public_bytes(serialization.Encoding.DER)).hexdigest()
        yield Encrypted(port, folder / "ca.pem", fingerprint)


def examined(encrypted: Encrypted, tls: str) -> str:
    try:
        return RedisClient(connector(encrypted.url, tls)).health()
    except StoreUnavailable as error:
        return error.reason


def test_a_certificate_of_a_known_authority(encrypted: Encrypted, monkeypatch: pytest.MonkeyPatch) -> None:
    """`verify` takes it once the authority is named the way OpenSSL is told of one."""
    monkeypatch.setenv("SSL_CERT_FILE", str(encrypted.authority))
    assert examined(encrypted, "verify") == "ok"


def test_a_certificate_of_nobody_we_know(encrypted: Encrypted) -> None:
    """`verify`, which is the default, refuses it."""
    assert examined(encrypted, "verify") == "unreachable"


def test_the_pinned_certificate(encrypted: Encrypted) -> None:
    """It is taken whoever signed it."""
    assert examined(encrypted, f"pin:{encrypted.fingerprint}") == "ok"


def test_a_new_connection_is_fit_for_use(encrypted: Encrypted) -> None:
    """The tickets of TLS 1.3, which come unasked, are not taken for somebody else's reply."""
    door = RedisClient(connector(encrypted.url, f"pin:{encrypted.fingerprint}"))
    assert [door.read_afresh("absent") for _ in range(60)] == [None] * 60


def test_another_than_the_pinned_certificate(encrypted: Encrypted, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused, even from an authority that is known."""
    monkeypatch.setenv("SSL_CERT_FILE", str(encrypted.authority))
    assert examined(encrypted, f"pin:{'0' * 64}") == "unreachable"


def test_a_name_that_is_not_in_the_certificate(encrypted: Encrypted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A known authority is not enough: it is to be this server's."""
    monkeypatch.setenv("SSL_CERT_FILE", str(encrypted.authority))
    door = RedisClient(connector(f"rediss://localhost:{encrypted.port}/0", "verify"))
    with pytest.raises(StoreUnavailable, match="unreachable"):
        door.health()


@pytest.mark.parametrize("tls", ["verify", "pin", "insecure"])
def test_served_over_tls(run: Run, encrypted: Encrypted, tls: str) -> None:
    """Under load and with its connections cut; only `insecure` is named in the log, with its hint, at the start."""
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
