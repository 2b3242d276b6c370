"""TLS to sentinels and to a cluster: the certificates are verified as those of a single server are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.store.test_tls import read_on_new_connection
from tests.faults.support.certificates import write_certificates
from tests.faults.support.clusters import SLOTS
from tests.faults.support.topologies import SERVICE, Node, SentinelNode
from tests.support.servers import free_port, wait_until
from wxauth.errors import StoreUnavailable
from wxauth.storage.client import RedisClient
from wxauth.storage.connections import connector


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a CA. The certificate of the servers and its key are in the same folder."""
    return write_certificates(tmp_path_factory.mktemp("tls")).authority


def tls_options(port: int, authority: Path) -> list[tuple[str, str]]:
    folder = authority.parent
    return [
        ("tls-port", str(port)),
        ("tls-ca-cert-file", str(authority)),
        ("tls-cert-file", f"{folder}/redis.pem"),
        ("tls-key-file", f"{folder}/redis.key"),
        ("tls-auth-clients", "no"),
        ("tls-replication", "yes"),
    ]


def as_arguments(options: list[tuple[str, str]]) -> list[str]:
    return [part for name, value in options for part in (f"--{name}", value)]


@pytest.fixture(scope="module")
def cluster_url(authority: Path) -> Iterator[str]:
    """A cluster of one node."""
    port = free_port()
    options = as_arguments(tls_options(port, authority))
    with Node(*options, "--cluster-enabled", "yes", "--tls-cluster", "yes") as node:
        node.ask("CLUSTER", "ADDSLOTS", *range(SLOTS))
        wait_until(lambda: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"), "the cluster")
        yield f"rediss+cluster://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def sentinel_url(authority: Path) -> Iterator[str]:
    """One primary, one sentinel."""
    port, sentinel_port = free_port(), free_port()
    with Node(*as_arguments(tls_options(port, authority))) as primary:
        sentinel = SentinelNode(primary, 1, "")
        file = sentinel.folder / "sentinel.conf"
        over_tls = file.read_text().replace(f"127.0.0.1 {primary.port} 1", f"127.0.0.1 {port} 1")
        lines = [" ".join(option) for option in tls_options(sentinel_port, authority)]
        file.write_text("\n".join([over_tls, *lines, ""]))
        with sentinel:
            yield f"rediss+sentinel://127.0.0.1:{sentinel_port}/{SERVICE}/0"


@pytest.fixture(params=["cluster_url", "sentinel_url"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


def test_verify_accepts_a_certificate_of_a_known_authority(
    url: str, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new connection returns the reply to its own command."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    client = RedisClient(connector(url, "verify"))
    wait_until(lambda: is_ok(client), url)
    assert [read_on_new_connection(client) for _ in range(20)] == [None] * 20


def is_ok(client: RedisClient) -> bool:
    try:
        return client.health() == "ok"
    except StoreUnavailable:
        return False


def test_verify_refuses_a_certificate_of_an_unknown_authority(url: str) -> None:
    """This holds for the sentinels as for the data."""
    with pytest.raises(StoreUnavailable, match="unreachable"):
        RedisClient(connector(url, "verify")).health()


def test_insecure_accepts_any_certificate(url: str) -> None:
    client = RedisClient(connector(url, "insecure"))
    wait_until(lambda: is_ok(client), url)
