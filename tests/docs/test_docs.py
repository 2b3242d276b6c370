"""Test the two READMEs: compare them with each other and with the code, and run their code blocks."""

from __future__ import annotations

import html
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import wxauth
from tests.support.error_classes import answered
from tests.support.servers import RedisServer, program
from tests.support.service import Sandbox, WeChatServer, environment
from wxauth.errors import ConfigurationError
from wxauth.settings import REDIS_URL_NAMES, VARIABLES, Settings
from wxauth.web.app import create_app
from wxauth.web.app import create_app as create_sandbox
from wxauth.wechat.errcodes import ERRCODES, HINTS

ROOT = Path(__file__).parents[2]
PACKAGE = Path(wxauth.__file__).parent

NAMES = VARIABLES

ENGLISH, CHINESE = "README.md", "README.zh-CN.md"
both_readmes = pytest.mark.parametrize("name", [ENGLISH, CHINESE])

NEEDED = {ENGLISH: "needed", CHINESE: "必填"}
NO_EFFECT_YET = {ENGLISH: "No effect yet", CHINESE: "目前还不起作用"}

#: How the block with the tree of folders begins.
TREE = "wxauth/\n"

Table = list[list[str]]


@dataclass(frozen=True)
class Readme:
    """The parts of a README that the tests read: headings, code blocks and tables."""

    text: str
    levels: list[int]
    blocks: list[tuple[str, str]]
    tables: list[Table]

    def table(self, first_column: str) -> Table:
        """Return the rows of the table that has the cell `first_column` in its first column, without the head."""
        (found,) = (table for table in self.tables if any(row[0] == first_column for row in table))
        return found[2:]

    def code(self, language: str) -> list[str]:
        return [text for kind, text in self.blocks if kind == language]


@cache
def readme(name: str) -> Readme:
    text = ROOT.joinpath(name).read_text(encoding="utf-8")
    fence = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    blocks = [(language, block) for _, language, block in fence.findall(text)]
    prose = fence.sub("", text)
    levels = [len(marks) for marks in re.findall(r"^(#+) ", prose, re.MULTILINE)]
    tables = [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        for table in re.findall(r"(?:^\|.*\|\n)+", prose, re.MULTILINE)
    ]
    return Readme(text, levels, blocks, tables)


def bare(cell: str) -> str:
    return cell.replace("`", "")


def words_in_code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_both_readmes_have_the_same_headings() -> None:
    """The translation has the same sections in the same order and depth."""
    assert readme(CHINESE).levels == readme(ENGLISH).levels


def test_both_readmes_have_the_same_code() -> None:
    """Commands, programs and answers are the same in both languages. Only the tree of folders is translated."""

    def blocks(name: str) -> list[tuple[str, str]]:
        return [block for block in readme(name).blocks if not block[1].startswith(TREE)]

    assert blocks(CHINESE) == blocks(ENGLISH)


def test_both_readmes_have_tables_of_the_same_shape() -> None:
    """No table has a row or a column in one language only."""

    def shapes(name: str) -> list[list[int]]:
        return [[len(row) for row in table] for table in readme(name).tables]

    assert shapes(CHINESE) == shapes(ENGLISH)


def test_both_readmes_have_the_same_names_in_their_tables() -> None:
    """The first column holds code, which is not translated."""

    def names(name: str) -> list[list[str]]:
        return [[row[0] for row in table[1:]] for table in readme(name).tables]

    assert names(CHINESE) == names(ENGLISH)


@both_readmes
def test_each_file_named_in_a_readme_exists(name: str) -> None:
    """Paths are relative to the repository or to the package."""
    named = re.findall(r"`([\w/.-]+\.(?:py|md|txt|toml|json|yaml)|[\w-]+/|Procfile|Makefile)`", readme(name).text)
    linked = re.findall(r"\]\(([^):]+)\)", readme(name).text)
    missing = {path for path in (*named, *linked) if not (ROOT / path).exists() and not (PACKAGE / path).exists()}
    assert not missing


@both_readmes
def test_readme_names_the_variables_that_exist(name: str) -> None:
    """An unknown WXAUTH_ name would be a configuration error."""
    assert set(re.findall(r"WXAUTH_[A-Z_]*[A-Z]", readme(name).text)) == NAMES


@both_readmes
def test_each_make_target_in_a_readme_exists(name: str) -> None:
    """`make run` starts app.py, as the tests of this module do."""
    targets = dict(re.findall(r"^(\w+):.*\n((?:\t.*\n)*)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make (\w+)$", readme(name).text, re.MULTILINE)) <= set(targets)
    assert "python app.py" in targets["run"]


# --- The tables, compared with the code


def variables(name: str) -> dict[str, list[str]]:
    """Return the rows of the configuration table by variable."""
    return {variable: row for row in readme(name).table("`WECHAT_APPID`") for variable in words_in_code(row[0])}


def faulted_by_an_empty_environment() -> set[str]:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({})
    return {fault.partition(":")[0] for fault in caught.value.errors}


def as_written(value: object) -> str:
    """Return a setting as the table writes it: an empty value as nothing, the number 0 as 0."""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value or type(value) is int else ""


def defaults() -> dict[str, str]:
    """Return the default of each optional variable."""
    settings = Settings.from_env(environment("redis://127.0.0.1:1/0", ""))
    optional = NAMES - {"WXAUTH_SECRET_KEYS", "WXAUTH_APPS"}
    return {name: as_written(getattr(settings, name.removeprefix("WXAUTH_").lower())) for name in optional}


@both_readmes
def test_configuration_table_has_each_variable(name: str) -> None:
    """The table has each variable that Settings reads, and no other."""
    assert set(variables(name)) == NAMES | {"WECHAT_APPID", "WECHAT_SECRET"} | set(REDIS_URL_NAMES)


@both_readmes
def test_configuration_table_marks_the_needed_variables(name: str) -> None:
    """A variable is marked as needed if and only if an empty environment is refused for it."""
    marked = {variable for variable, row in variables(name).items() if row[1] == NEEDED[name]}
    assert marked == faulted_by_an_empty_environment()


@both_readmes
@pytest.mark.parametrize("variable", sorted(defaults()))
def test_configuration_table_has_the_defaults(name: str, variable: str) -> None:
    """The table shows the value that Settings uses if the variable is absent."""
    assert bare(variables(name)[variable][1]) == defaults()[variable]


@both_readmes
def test_configuration_table_marks_variables_without_effect(name: str) -> None:
    """A variable is marked if and only if no module reads its setting."""
    code = "".join(path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "settings.py")
    in_use = {f"WXAUTH_{field.upper()}" for field in re.findall(r"settings\.(\w+)", code)}
    marked = {variable for variable, row in variables(name).items() if NO_EFFECT_YET[name] in row[2]}
    assert marked == NAMES - in_use


@both_readmes
def test_problem_table_equals_the_code(name: str) -> None:
    """The table has code, status and action of each problem, and no other row."""
    written = {(bare(row[0]), int(row[1]), bare(row[2])) for row in readme(name).table("`token_missing`")}
    assert written == {(it.code, it.status, it.action) for it in answered()}


@both_readmes
def test_each_problem_has_one_row_with_a_condition(name: str) -> None:
    table = readme(name).table("`token_missing`")
    assert len({row[0] for row in table}) == len(table)
    assert all(row[3] for row in table)


@both_readmes
def test_route_table_equals_the_url_map(name: str, settings: Settings) -> None:
    """Each route of the service is a row, and each row is a route."""
    routes = {
        f"{method} {rule.rule}"
        for rule in create_app(settings).url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert {bare(row[0]) for row in readme(name).table("`POST /login`")} == routes


@both_readmes
def test_errcode_table_equals_the_code(name: str) -> None:
    """The table has each known errcode with the code of its problem."""
    written = {int(row[0]): bare(row[1]) for row in readme(name).table("40029")}
    answered = {errcode: error.code for errcode, error in ERRCODES.items()}
    assert written == answered | dict.fromkeys(HINTS, "wechat_misconfigured")


@pytest.mark.parametrize("errcode", sorted(HINTS))
def test_errcode_table_has_the_hint_of_the_log(errcode: int) -> None:
    """For errors that only the operator can fix, the README repeats the hint of the log."""
    (row,) = (row for row in readme(ENGLISH).table("40029") if row[0] == str(errcode))
    assert bare(f"{row[2]}: {row[3]}").casefold() == HINTS[errcode].casefold()


def tree_names(name: str) -> set[str]:
    """Return the names in the README's tree of `wxauth/`."""
    (tree,) = (block for block in readme(name).code("text") if block.startswith(TREE))
    return {line.split()[0] for line in tree.splitlines()[1:]}


@both_readmes
def test_the_tree_has_each_folder_and_module_of_the_package(name: str) -> None:
    folders = {f"{path.name}/" for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert tree_names(name) == folders | {path.name for path in PACKAGE.glob("*.py")}


# --- The blocks, executed


def curl_lines() -> list[str]:
    return [block for block in readme(ENGLISH).code("sh") if block.startswith("curl ")]


def typed(line: str, sandbox: Sandbox, seen: dict[str, str]) -> Any:
    """Run `line` in a shell and return its JSON. THE CODE and THE TOKEN are replaced by earlier answers."""
    line = line.replace("http://127.0.0.1:8000", sandbox.url)
    line = line.replace("THE CODE", seen.get("code", "")).replace("THE TOKEN", seen.get("token", ""))
    command = [program("sh"), "-c", line.replace("curl ", f"{program('curl')} --silent --show-error --fail ", 1)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)


@pytest.fixture(scope="module")
def answers() -> Iterator[list[Any]]:
    """Return the answers of the three lines of "try it", run one after the other."""
    seen: dict[str, str] = {}
    with Sandbox() as sandbox:
        yield [seen.update(answer) or answer for answer in (typed(line, sandbox, seen) for line in curl_lines())]


def test_try_it_lines_return_answers_of_the_printed_form(answers: list[Any]) -> None:
    """Each answer has the members and types that the README prints below the line."""

    def form(answer: dict[str, object]) -> dict[str, type]:
        return {name: type(value) for name, value in answer.items()}

    shown = [json.loads(block) for block in readme(ENGLISH).code("json")]
    assert [form(answer) for answer in answers] == [form(answer) for answer in shown]


def test_try_it_ends_with_an_openid_of_the_sandbox(answers: list[Any]) -> None:
    assert answers[-1]["openid"].startswith("oSANDBOX")


def test_try_it_lines_are_those_of_the_sandbox_page() -> None:
    client = create_sandbox(Settings.from_env({"WXAUTH_SANDBOX": "1"})).test_client()
    page = html.unescape(client.get("/", base_url="http://127.0.0.1:8000").text)
    assert len(curl_lines()) == 3
    assert all(line in page for line in curl_lines())


def test_nginx_lines_are_in_deploy_nginx_conf() -> None:
    """The README shows lines of deploy/nginx.conf, in the same order. tests/deploy tests that file."""
    (block,) = readme(ENGLISH).code("nginx")
    shipped = iter(line.strip() for line in ROOT.joinpath("deploy", "nginx.conf").read_text().splitlines())
    location, *shown, end = block.strip().splitlines()
    assert (location, end) == ("location / {", "}")
    missing = [line.strip() for line in shown if line.strip() not in shipped]
    assert not missing


def test_mini_program_example_is_short_and_holds_no_secret() -> None:
    """tests/miniprogram/wxauth.test.js runs the example."""
    (block,) = readme(ENGLISH).code("js")
    assert len(block.splitlines()) <= 25
    assert not re.search(r"session_?key|secret", block, re.IGNORECASE)


@pytest.fixture
def shop(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Run the README's Python block with a configured environment and return its global names."""
    (block,) = readme(ENGLISH).code("python")
    names: dict[str, Any] = {"__name__": "shop"}
    with WeChatServer() as wechat:
        for variable, value in environment(redis_server.url, wechat.url).items():
            monkeypatch.setenv(variable, value)
        exec(compile(block, ENGLISH, "exec"), names)  # noqa: S102 - it is our own README
        names["code"] = wechat.fake.wx_login("alice")
        yield names
    # Signals hold weak references to their receivers, so this disconnects them.
    names.clear()


def token_of(shop: dict[str, Any]) -> str:
    answer = shop["app"].test_client().post("/auth/login", json={"code": shop["code"]})
    token: str = answer.json["token"]
    return token


@pytest.mark.parametrize("route", ["GET /orders", "POST /orders/pay", "GET /unread", "DELETE /account"])
def test_flask_example_without_a_token_returns_token_missing(route: str, shop: dict[str, Any]) -> None:
    method, path = route.split()
    answer = shop["app"].test_client().open(path, method=method)
    assert (answer.status_code, answer.json["code"]) == (401, "token_missing")


def test_flask_example_with_a_token_returns_the_openid(shop: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {token_of(shop)}"}
    answer = shop["app"].test_client().get("/orders", headers=headers)
    assert answer.json["openid"].startswith("oSANDBOX")


def test_flask_example_refuses_the_token_after_the_account_is_closed(shop: dict[str, Any]) -> None:
    client, headers = shop["app"].test_client(), {"Authorization": f"Bearer {token_of(shop)}"}
    assert client.delete("/account", headers=headers).status_code == 204
    assert client.get("/orders", headers=headers).status_code == 401


def test_flask_example_logs_each_signal_once(shop: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """The example's receivers log one line for a login and one for a logout."""
    caplog.set_level("INFO")
    headers = {"Authorization": f"Bearer {token_of(shop)}"}
    shop["app"].test_client().delete("/account", headers=headers)
    lines = [record.getMessage().split(":")[0].split(" of ")[0] for record in caplog.records]
    assert [line for line in lines if line.startswith("logged")] == ["logged in", "logged out"]
