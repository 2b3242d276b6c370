"""Split the tests between `make test` and `make check`: mark those of `make check`."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

#: Tests of `make check`, by the beginning of their names. `make test` runs all others.
CHECK = (
    "tests/cli/test_doctor.py::test_a_self_signed_certificate_needs_a_pin_or_insecure",  # needs a Redis with TLS
    "tests/clients/",  # `make check` installs the generators
    "tests/deploy/",
    "tests/docs/test_client.py::test_phones_of_one_user_settle_at_the_real_service",
    "tests/docs/test_client.py::test_tsc_accepts_the_client",
    "tests/docs/test_client.py::test_types_of_the_es_module_are_those_of_an_es_module",
    "tests/docs/test_examples.py",  # `make check` installs Express
    "tests/docs/test_pages.py::test_nginx_of_the_flask_page_hides_the_routes_for_backends",
    "tests/docs/test_site.py",  # `make check` installs the generator
    "tests/docs/test_scan_clients.py",  # `make check` installs openid-client
    "tests/docs/test_website.py",  # clicks in a browser
    "tests/faults/",
    "tests/sandbox/test_accessibility.py",  # looks at a page in a browser
    "tests/sandbox/test_playground.py",  # clicks in a browser
    # The limits are for Debian's Redis. Without it, `make test` takes one whose values are some bytes larger.
    "tests/sessions/test_device_codes.py::test_10_000_open_codes_take_at_most_7_megabytes",
    "tests/sessions/test_store.py::test_user_with_one_session_takes_at_most_520_bytes",
    "tests/test_benchmarks.py",
    "tests/test_fuzz.py::test_fuzzers_run_and_find_nothing",
    "tests/web/routes/test_admin_page.py",  # clicks in a browser
    "tests/web/test_schemathesis.py",
)
#: A test that needs one of these, as a fixture or as a parameter, is a test of `make check` too.
TOPOLOGIES = {"sentinel_set", "cluster_set"}
SERVERS = {"sentinel", "cluster", "redis-server-6.2", "redis-server-8.2"}
SERVERS |= {"valkey-server", "valkey-sentinel", "valkey-cluster"}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without the garbage collector: it would look at thousands of items that stay until the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not read a file whose tests all belong to `make check`, in `make test`."""
    path = collection_path.relative_to(config.rootpath).as_posix() + "/" * collection_path.is_dir()
    is_for_check_alone = config.getoption("markexpr") == "not check" and path in CHECK
    return is_for_check_alone or None


def is_check(item: pytest.Item) -> bool:
    return item.nodeid.startswith(CHECK) or needs_topology(item)


def needs_topology(item: pytest.Item) -> bool:
    """Say whether the test needs a Sentinel or Cluster set, or another server than Debian's redis-server."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    named = {parameter for parameter in parameters.values() if isinstance(parameter, str)}
    return not SERVERS.isdisjoint(named) or not TOPOLOGIES.isdisjoint(getattr(item, "fixturenames", ()))


def repeated_ids(items: list[pytest.Item]) -> list[str]:
    return [node_id for node_id, count in Counter(item.nodeid for item in items).items() if count > 1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Raise UsageError if two tests have the same node id, because pytest-xdist would run only one of them."""
    if repeated := repeated_ids(items):
        raise pytest.UsageError(f"these node ids stand for more than one test: {', '.join(repeated)}")
    for item in items:
        if is_check(item):
            item.add_marker("check")
