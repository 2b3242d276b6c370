"""The package: what `python -m build` makes, and the wheel as `pip install` puts it into a new environment."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
import requests
import yaml

import wxauth
from tests.support.documents import DOCUMENTS
from tests.support.servers import Server, free_port
from tests.support.service import BIN, ROOT, is_healthy

pytestmark = pytest.mark.timeout(300)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist, and the wheel that is made from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def package(wheel: Path) -> Distribution:
    (found,) = distributions(path=[str(wheel)])
    return found


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_twine_accepts_the_sdist_and_the_wheel(dist: Path) -> None:
    """It renders the description as a package index does, and checks the metadata."""
    files = sorted(dist.iterdir())
    assert len(files) == 2
    assert run(BIN / "twine", "check", "--strict", *files).count("PASSED") == 2


def test_the_description_has_absolute_links(package: Distribution) -> None:
    text = package.metadata["Description"]
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert [link for link in links if not link.startswith("https://")] == []
    assert f"{PROJECT['urls']['Homepage']}/docs/playground.webp" in links


def test_all_places_have_the_same_version(package: Distribution) -> None:
    """The package, the changelog's newest heading and the contract."""
    newest = re.search(r"^## \[(.*)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    contract = yaml.safe_load((ROOT / "wxauth" / "openapi.yaml").read_text())
    versions = [package.version, newest and newest[1], contract["info"]["version"]]
    assert versions == [wxauth.__version__] * 3


def test_pip_is_told_to_refuse_python_before_3_11(package: Distribution) -> None:
    assert package.metadata["Requires-Python"] == ">=3.11"


def test_the_wheel_has_every_file_of_the_package_the_documentation_and_the_license(wheel: Path) -> None:
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "wxauth").rglob("*") if path.is_file()}
    files |= {f"wxauth/sandbox/{name}" for name in (*DOCUMENTS, "docs/scan-login.png") if name.startswith("docs/")}
    with ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    assert {name for name in packed if ".dist-info/" not in name} == {it for it in files if "__pycache__" not in it}
    assert f"wxauth-{wxauth.__version__}.dist-info/licenses/LICENSE" in packed


@pytest.fixture(scope="module")
def constraints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The versions of requirements.txt, so that a new release of a library does not fail the gate."""
    path = tmp_path_factory.mktemp("constraints") / "constraints.txt"
    path.write_text(re.sub(r"\[\w+\]", "", (ROOT / "requirements.txt").read_text()))
    return path


@pytest.fixture(scope="module")
def commands(wheel: Path, constraints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a new virtual environment with the wheel, and without extras until `sandbox` adds them."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    install(venv / "bin", constraints, str(wheel))
    return venv / "bin"


def install(commands: Path, constraints: Path, what: str) -> None:
    pip = f"-m pip --quiet --python {commands / 'python'} install --constraint {constraints} {what}"
    run(sys.executable, *pip.split())


def test_the_wheel_without_extras_has_the_command_and_the_extension(commands: Path, tmp_path: Path) -> None:
    assert len(run(commands / "wxauth", "keygen", cwd=tmp_path).strip()) == 43
    program = "import flask, wxauth; wxauth.WxAuth(flask.Flask('shop')); print(wxauth.__version__)"
    assert run(commands / "python", "-c", program, cwd=tmp_path).strip() == wxauth.__version__
    libraries = run(commands / "python", "-c", "import sys; print(*sys.path)", cwd=tmp_path).split()[-1]
    assert not [name for name in ("granian", "fakeredis", "markdown_it") if Path(libraries, name).exists()]


class Sandbox(Server):
    """`wxauth serve` in an empty folder."""

    def __init__(self, commands: Path) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        environ = {"PATH": "/usr/bin:/bin", "PORT": str(port), "WXAUTH_SANDBOX": "1"}
        super().__init__([str(commands / "wxauth"), "serve"], environ=environ)

    def answers(self) -> bool:
        return is_healthy(self.url)


@pytest.fixture(scope="module")
def sandbox(wheel: Path, constraints: Path, commands: Path) -> Iterator[str]:
    install(commands, constraints, f"{wheel}[service,sandbox]")
    with Sandbox(commands) as server:
        yield server.url


def test_the_wheel_with_extras_starts_the_sandbox_and_logs_in(sandbox: str) -> None:
    code = requests.post(f"{sandbox}/sandbox/wx.login", json={"user": "alice"}, timeout=5).json()["code"]
    token = requests.post(f"{sandbox}/login", json={"code": code}, timeout=5).json()["token"]
    session = requests.get(f"{sandbox}/session", headers={"Authorization": token}, timeout=5)
    assert session.json()["openid"].startswith("oSANDBOX")


@pytest.mark.parametrize(
    "path", ["/", "/sandbox/page/app.js", "/sandbox/docs/errors.zh-CN.md", "/sandbox/docs/page.css", "/openapi.yaml"]
)
def test_the_wheel_with_extras_has_the_playground_the_documentation_and_the_contract(sandbox: str, path: str) -> None:
    assert requests.get(sandbox + path, timeout=5).status_code == 200
