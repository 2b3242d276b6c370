"""Test the clients that generators make from openapi.yaml: each logs in, checks and introspects at the service."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.conftest import Running
from tests.clients.generators import (
    CLIENTS,
    CONTRACT,
    npm_program,
    openapi_generator,
    openapi_python_client,
    openapi_typescript,
    run,
)
from tests.conftest import APPID
from tests.support.clients import BACKEND, CLIENT_SECRET
from tests.support.compatibility import check_row

Generator = Callable[[Path], tuple[str, list[str]]]
GENERATORS: dict[str, Generator] = {
    "OpenAPI Generator (python)": openapi_generator,
    "openapi-python-client": openapi_python_client,
    "openapi-typescript": openapi_typescript,
}


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generated_client_logs_in_checks_introspects_and_reads_the_problem(
    name: str, running: Running, tmp_path: Path
) -> None:
    version, command = GENERATORS[name](tmp_path)
    code = running.wechat.fake.wx_login("alice")
    found = json.loads(run(*command, running.url, code, BACKEND, CLIENT_SECRET, folder=tmp_path))
    openid = found["session"]
    alive = found["alive"]
    assert re.fullmatch(r"o[\w-]{27}", openid)
    assert found["verify"] == openid
    assert (alive["active"], alive["sub"], alive["client_id"]) == (True, openid, APPID)
    assert found["ended"]["active"] is False
    assert found["ended"].get("sub") is None
    assert found["problem"] == [401, "token_invalid", "login"]
    check_row(name, version)


def test_openapi_yaml_passes_the_rules_of_redocly(tmp_path: Path) -> None:
    lint = (npm_program("redocly"), "lint", "--config", CLIENTS / "redocly.yaml")
    run(*lint, CONTRACT, folder=tmp_path)


def test_redocly_rejects_a_stray_key(tmp_path: Path) -> None:
    """A comma in a text without quotes makes one."""
    stray = CONTRACT.read_text().replace('"In place of HTTP Basic. Beside it, the same id"', "In place, of Basic")
    (tmp_path / "stray.yaml").write_text(stray)
    with pytest.raises(AssertionError, match="`of Basic` is not expected here"):
        run(npm_program("redocly"), "lint", "--config", CLIENTS / "redocly.yaml", "stray.yaml", folder=tmp_path)
