"""The container files. There is no Docker engine here: linters read the files, and their commands run without one."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.support.servers import RedisServer, Server, free_port
from tests.support.service import BIN, ROOT, WeChatServer, environment
from wxauth.errors import ConfigurationError
from wxauth.settings import Settings

pytestmark = pytest.mark.timeout(300)

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile with their arguments."""
    text = re.sub(r"^#.*\n|\\\n *", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    return re.findall(r"^([A-Z]+) (.*)$", text, re.MULTILINE)


def arguments(name: str) -> list[str]:
    return [text for instruction, text in instructions() if instruction == name]


def copied() -> list[str]:
    """Return what the Dockerfile takes from this folder."""
    return [name for text in arguments("COPY") if not text.startswith("--from") for name in text.split()[:-1]]


@pytest.mark.parametrize(
    "command",
    [["hadolint", "Dockerfile"], ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]],
    ids=["hadolint", "compose-schema"],
)
def test_the_linter_accepts_the_file(command: list[str]) -> None:
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_build_gets_the_files_that_it_copies_and_no_other() -> None:
    """Without .dockerignore, .env would be sent to the builder."""
    first, *rest = (ROOT / ".dockerignore").read_text().split()
    assert (first, sorted(rest)) == ("*", sorted(["**/__pycache__", *(f"!{name}" for name in copied())]))


def test_compose_refers_only_to_what_it_defines() -> None:
    """The schema does not say so."""
    for service in SERVICES.values():
        mounts = {volume.partition(":")[0] for volume in service.get("volumes", [])}
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        assert {name for name in mounts if "/" not in name} <= set(COMPOSE["volumes"])
        assert set(service.get("depends_on", {})) <= set(SERVICES)


def test_only_nginx_is_reachable_from_outside_and_only_wxauth_reaches_redis() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["nginx"]
    assert [name for name, service in SERVICES.items() if "store" in service["networks"]] == ["wxauth", "redis"]
    assert COMPOSE["networks"]["store"] == {"internal": True}


def test_nginx_of_compose_sends_requests_to_the_names_of_the_services() -> None:
    """Its command changes the two addresses of the shipped file, and nothing else."""
    shipped = ROOT / "deploy" / "nginx.conf"
    shell, option, command = SERVICES["nginx"]["command"]
    change = command.partition(" > ")[0].replace("/deploy/nginx.conf", str(shipped))
    changed = subprocess.run([shell, option, change], check=True, capture_output=True, text=True).stdout
    pairs = zip(changed.splitlines(), shipped.read_text().splitlines(), strict=True)
    servers = [line.split()[1].rstrip(";") for line, old in pairs if line != old and "#" not in line]
    assert servers == ["wxauth:8000", "application:9000"]
    assert "127.0.0.1" not in re.sub("#.*", "", changed)


def test_redis_of_compose_keeps_sessions_and_evicts_nothing() -> None:
    """redis-server accepts the options."""
    expected = {"appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction"}
    name, *options = shlex.split(SERVICES["redis"]["command"])
    assert name == "redis-server"
    with RedisServer(*options) as server, server.client() as client:
        assert {key: client.config_get(key)[key] for key in expected} == expected


def example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_env_example_has_the_needed_variables_and_no_secret() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({})
    assert set(example()) == {error.partition(":")[0] for error in caught.value.errors}
    assert {name: value for name, value in example().items() if value} == {"REDIS_URL": "redis://redis:6379/0"}


def test_env_example_is_valid_once_filled_in() -> None:
    """With the variables that compose.yaml adds."""
    filled = {name: value or "wx0123456789abcdef0123456789abcdef" for name, value in example().items()}
    assert Settings.from_env(filled | SERVICES["wxauth"]["environment"]).trusted_proxies == 1


# --- The commands of the Dockerfile, for its user, on a source tree that the user can't write


#: Only root can become another user. Another developer's Python may lie in a home that this user can't read.
IS_ROOT = os.geteuid() == 0
PYTHON = "/usr/bin/python3" if IS_ROOT else sys.executable


def as_user() -> list[str]:
    user, _, group = arguments("USER")[-1].partition(":")
    return ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"] if IS_ROOT else []


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """A folder where the RUN instructions were executed; `wxauth` in it stands for /opt/wxauth."""
    with tempfile.TemporaryDirectory(prefix="wxauth-image-") as name:
        folder, source = Path(name), Path(name, "source")
        folder.chmod(0o777)
        source.mkdir()
        for item in copied():
            copy = shutil.copytree if (ROOT / item).is_dir() else shutil.copy
            copy(ROOT / item, source / item)
        subprocess.run(["/bin/chmod", "-R", "a-w,a+rX", source], check=True)
        subprocess.run([*as_user(), PYTHON, "-m", "venv", folder / "tools"], check=True)
        environ = os.environ | {"HOME": name, "PATH": f"{folder / 'tools' / 'bin'}:/usr/bin:/bin"}
        for command in arguments("RUN"):
            shell = [*as_user(), "sh", "-c", command.replace("/opt/wxauth", f"{folder}/wxauth")]
            done = subprocess.run(shell, cwd=source, env=environ, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        subprocess.run(["/bin/chmod", "-R", "a-w", folder / "wxauth"], check=True)
        yield folder
        subprocess.run(["/bin/chmod", "-R", "u+w", folder], check=True)


class Container(Server):
    """The CMD of the image as its user, with `environ` as its whole environment."""

    def __init__(self, image: Path, environ: dict[str, str]) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        environ = environ | {"PATH": f"{image}/wxauth/bin:/usr/bin:/bin", "PORT": str(port)}
        super().__init__([*as_user(), *yaml.safe_load(arguments("CMD")[-1])], environ=environ, cwd=Path("/"))

    def answers(self) -> bool:
        """Run the HEALTHCHECK."""
        command = yaml.safe_load(arguments("HEALTHCHECK")[-1].partition(" CMD ")[2])
        return subprocess.run(command, env=self._environ, capture_output=True).returncode == 0


def test_the_image_runs_as_its_user_logs_in_and_stops_at_sigterm(image: Path, redis_server: RedisServer) -> None:
    """The health check passes while the service runs, and fails before and after."""
    with WeChatServer() as wechat:
        container = Container(image, environment(redis_server.url, wechat.url))
        assert not container.answers()
        with container:
            code = wechat.fake.wx_login("alice")
            assert requests.post(f"{container.url}/login", json={"code": code}, timeout=5).status_code == 200
            assert container.stop() == 0
            assert not container.answers()


def test_the_image_has_no_compiler_and_no_package_of_the_build(image: Path) -> None:
    """A second stage takes the virtual environment only."""
    assert len(arguments("FROM")) == 2
    last = max(index for index, (name, _) in enumerate(instructions()) if name == "FROM")
    assert [text for name, text in instructions()[last:] if name in ("RUN", "COPY")] == [
        "--from=build /opt/wxauth /opt/wxauth"
    ]
    installed = {path.name.partition("-")[0] for path in (image / "wxauth").glob("lib/*/site-packages/*.dist-info")}
    assert "wxauth" in installed
    assert installed.isdisjoint({"pip", "setuptools", "wheel", "hatchling"})
