"""Test libraries of OAuth with /introspect and /revoke: each accepts a live token, revokes it and refuses it."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import requests

from tests.clients.conftest import Running
from tests.clients.generators import PROGRAMS, npm_program, npm_version, run
from tests.support.clients import BACKEND, CLIENT_SECRET
from tests.support.compatibility import check_row
from tests.support.servers import program


def authlib() -> tuple[str, list[str]]:
    return version("authlib"), [sys.executable, str(PROGRAMS / "authlib_resource.py")]


def oauth4webapi() -> tuple[str, list[str]]:
    npm_program("tsc")  # installed with oauth4webapi by `make check`
    return npm_version("oauth4webapi"), [program("node"), str(PROGRAMS / "oauth4webapi.mjs")]


LIBRARIES = {"Authlib": authlib, "oauth4webapi": oauth4webapi}


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_of_oauth_introspects_and_revokes(name: str, running: Running, tmp_path: Path) -> None:
    found_version, command = LIBRARIES[name]()
    login = {"code": running.wechat.fake.wx_login("alice")}
    token = requests.post(f"{running.url}/login", json=login, timeout=5).json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    openid = requests.get(f"{running.url}/session", headers=headers, timeout=5).json()["openid"]
    found = json.loads(run(*command, running.url, token, BACKEND, CLIENT_SECRET, folder=tmp_path))
    assert found == {"sub": openid, "revoked": 200, "active": False}
    check_row(name, found_version)
