"""The two READMEs under test: equal to one another, their tables equal to the code, their blocks executed."""

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
from tests.error_classes import answered
from tests.servers import RedisServer, program
from tests.service import Sandbox, WeChatServer, environment
from wxauth.errors import ConfigurationError
from wxauth.sandbox import create_app as create_sandbox
from wxauth.settings import REDIS_URL_NAMES, VARIABLES, Settings
from wxauth.web.app import create_app
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
    """What there is in a README beside its prose."""

    text: str
    levels: list[int]
    blocks: list[tuple[str, str]]
    tables: list[Table]

    def table(self, first_column: str) -> Table:
        """The rows of the table that has a cell `first_column` in its first column, without its head."""
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
    """The translation has the sections of the original, in the same order and depth."""
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
    """What a row is about stands in its first column in code, and is never translated."""

    def names(name: str) -> list[list[str]]:
        return [[row[0] for row in table[1:]] for table in readme(name).tables]

    assert names(CHINESE) == names(ENGLISH)


@both_readmes
def test_every_file_that_is_named_exists(name: str) -> None:
    """A file that a README names lies in the repository, or in the package."""
    named = re.findall(r"`([\w/.-]+\.(?:py|md|txt|toml|json|yaml)|[\w-]+/|Procfile|Makefile)`", readme(name).text)
    linked = re.findall(r"\]\(([^):]+)\)", readme(name).text)
    missing = {path for path in (*named, *linked) if not (ROOT / path).exists() and not (PACKAGE / path).exists()}
    assert not missing


@both_readmes
def test_no_variable_is_named_that_does_not_exist(name: str) -> None:
    """Whoever copies a WXAUTH_ name out of a README does not get a fault for it."""
    assert set(re.findall(r"WXAUTH_[A-Z_]*[A-Z]", readme(name).text)) == NAMES


@both_readmes
def test_every_make_target_that_is_named_exists(name: str) -> None:
    """`make run` and `make test` are in the Makefile, and `make run` starts what the tests start here."""
    targets = dict(re.findall(r"^(\w+):.*\n((?:\t.*\n)*)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make (\w+)$", readme(name).text, re.MULTILINE)) <= set(targets)
    assert "python app.py" in targets["run"]


# --- The tables, compared with the code


def variables(name: str) -> dict[str, list[str]]:
    """The configuration table: each variable's row."""
    return {variable: row for row in readme(name).table("`WECHAT_APPID`") for variable in words_in_code(row[0])}


def faulted_by_an_empty_environment() -> set[str]:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({})
    return {fault.partition(":")[0] for fault in caught.value.errors}


def as_written(value: object) -> str:
    """A setting's value as a table has it: nothing for what is empty, but 0 for a number."""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value or type(value) is int else ""


def defaults() -> dict[str, str]:
    """What is in force for each variable that can be left out."""
    settings = Settings.from_env(environment("redis://127.0.0.1:1/0", ""))
    optional = NAMES - {"WXAUTH_SECRET_KEYS", "WXAUTH_APPS"}
    return {name: as_written(getattr(settings, name.removeprefix("WXAUTH_").lower())) for name in optional}


@both_readmes
def test_the_configuration_table_has_every_variable(name: str) -> None:
    """The table has what the settings know, and nothing else."""
    assert set(variables(name)) == NAMES | {"WECHAT_APPID", "WECHAT_SECRET"} | set(REDIS_URL_NAMES)


@both_readmes
def test_the_configuration_table_says_what_is_needed(name: str) -> None:
    """What an empty environment is faulted for, and only that, is marked as needed."""
    marked = {variable for variable, row in variables(name).items() if row[1] == NEEDED[name]}
    assert marked == faulted_by_an_empty_environment()


@both_readmes
@pytest.mark.parametrize("variable", sorted(defaults()))
def test_the_configuration_table_has_the_defaults(name: str, variable: str) -> None:
    """The table's default is the one in force where the variable is left out."""
    assert bare(variables(name)[variable][1]) == defaults()[variable]


@both_readmes
def test_the_configuration_table_says_what_has_no_effect_yet(name: str) -> None:
    """A variable is marked as without effect exactly while no module reads its setting."""
    code = "".join(path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "settings.py")
    in_use = {f"WXAUTH_{field.upper()}" for field in re.findall(r"settings\.(\w+)", code)}
    marked = {variable for variable, row in variables(name).items() if NO_EFFECT_YET[name] in row[2]}
    assert marked == NAMES - in_use


@both_readmes
def test_the_problem_table_is_the_code_s(name: str) -> None:
    """Code, status and action of every problem that can be answered, and of no other."""
    written = {(bare(row[0]), int(row[1]), bare(row[2])) for row in readme(name).table("`token_missing`")}
    assert written == {(it.code, it.status, it.action) for it in answered()}


@both_readmes
def test_every_problem_has_one_row(name: str) -> None:
    """Whoever looks a code up finds it once, with the condition beside it."""
    table = readme(name).table("`token_missing`")
    assert len({row[0] for row in table}) == len(table)
    assert all(row[3] for row in table)


@both_readmes
def test_the_route_table_is_the_application_s(name: str, settings: Settings) -> None:
    """Every route of the service is in the table, and every row of the table is a route."""
    routes = {
        f"{method} {rule.rule}"
        for rule in create_app(settings).url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert {bare(row[0]) for row in readme(name).table("`POST /login`")} == routes


@both_readmes
def test_the_errcode_table_is_the_code_s(name: str) -> None:
    """Every errcode that the code knows is in the table, with the problem that it is answered as."""
    written = {int(row[0]): bare(row[1]) for row in readme(name).table("40029")}
    answered = {errcode: error.code for errcode, error in ERRCODES.items()}
    assert written == answered | dict.fromkeys(HINTS, "wechat_misconfigured")


@pytest.mark.parametrize("errcode", sorted(HINTS))
def test_the_cures_are_the_log_s(errcode: int) -> None:
    """Where only the operator can help, the README gives the hint in the words of the log."""
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
    """What the shell prints for `line`, with what was seen before in place of THE CODE and THE TOKEN."""
    line = line.replace("http://127.0.0.1:8000", sandbox.url)
    line = line.replace("THE CODE", seen.get("code", "")).replace("THE TOKEN", seen.get("token", ""))
    command = [program("sh"), "-c", line.replace("curl ", f"{program('curl')} --silent --show-error --fail ", 1)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)


@pytest.fixture(scope="module")
def answers() -> Iterator[list[Any]]:
    """What the three lines of "try it" print, typed one after the other."""
    seen: dict[str, str] = {}
    with Sandbox() as sandbox:
        yield [seen.update(answer) or answer for answer in (typed(line, sandbox, seen) for line in curl_lines())]


def test_try_it_shows_what_is_to_be_seen(answers: list[Any]) -> None:
    """Whoever types the lines of "try it" sees answers of the form that is printed below them."""

    def form(answer: dict[str, object]) -> dict[str, type]:
        return {name: type(value) for name, value in answer.items()}

    shown = [json.loads(block) for block in readme(ENGLISH).code("json")]
    assert [form(answer) for answer in answers] == [form(answer) for answer in shown]


def test_try_it_ends_at_an_openid(answers: list[Any]) -> None:
    """After three lines the user is known, as one of the sandbox."""
    assert answers[-1]["openid"].startswith("oSANDBOX")


def test_try_it_has_the_lines_of_the_sandbox_s_page() -> None:
    """The page that the sandbox shows, and the README, say to type the same."""
    client = create_sandbox(Settings.from_env({"WXAUTH_SANDBOX": "1"})).test_client()
    page = html.unescape(client.get("/", base_url="http://127.0.0.1:8000").text)
    assert len(curl_lines()) == 3
    assert all(line in page for line in curl_lines())


def test_the_nginx_lines_are_those_of_the_file() -> None:
    """What the README shows stands in deploy/nginx.conf, where it is tested, in the same order."""
    (block,) = readme(ENGLISH).code("nginx")
    shipped = iter(line.strip() for line in ROOT.joinpath("deploy", "nginx.conf").read_text().splitlines())
    location, *shown, end = block.strip().splitlines()
    assert (location, end) == ("location / {", "}")
    missing = [line.strip() for line in shown if line.strip() not in shipped]
    assert not missing


def test_the_mini_program_is_short() -> None:
    """The mini program's side fits a screen, and holds neither of the two secrets that may not be in it.

    tests/miniprogram/wxauth.test.js executes it.
    """
    (block,) = readme(ENGLISH).code("js")
    assert len(block.splitlines()) <= 25
    assert not re.search(r"session_?key|secret", block, re.IGNORECASE)


@pytest.fixture
def shop(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The names that the README's Python defines, executed in the environment of a configured service."""
    (block,) = readme(ENGLISH).code("python")
    names: dict[str, Any] = {"__name__": "shop"}
    with WeChatServer() as wechat:
        for variable, value in environment(redis_server.url, wechat.url).items():
            monkeypatch.setenv(variable, value)
        exec(compile(block, ENGLISH, "exec"), names)  # noqa: S102 - it is our own README
        names["code"] = wechat.fake.wx_login("alice")
        yield names
    # The signals hold their receivers weakly, so this takes them off again.
    names.clear()


def token_of(shop: dict[str, Any]) -> str:
    with shop["app"].test_request_context():
        token, _ = shop["auth"].log_in(shop["code"])
    text: str = token.reveal()
    return text


@pytest.mark.parametrize("route", ["GET /orders", "POST /orders/pay", "GET /unread", "DELETE /account"])
def test_the_flask_example_refuses_who_is_not_logged_in(route: str, shop: dict[str, Any]) -> None:
    """Every route of the example asks for a token."""
    method, path = route.split()
    answer = shop["app"].test_client().open(path, method=method)
    assert (answer.status_code, answer.json["code"]) == (401, "token_missing")


def test_the_flask_example_knows_who_is_logged_in(shop: dict[str, Any]) -> None:
    """With the token of a login the example answers with the user's openid."""
    headers = {"Authorization": f"Bearer {token_of(shop)}"}
    answer = shop["app"].test_client().get("/orders", headers=headers)
    assert answer.json["openid"].startswith("oSANDBOX")


def test_the_flask_example_logs_out_everywhere(shop: dict[str, Any]) -> None:
    """Once the account is closed, the token that closed it is no longer taken."""
    client, headers = shop["app"].test_client(), {"Authorization": f"Bearer {token_of(shop)}"}
    assert client.delete("/account", headers=headers).status_code == 204
    assert client.get("/orders", headers=headers).status_code == 401


def test_the_flask_example_hears_the_signals(shop: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """The receivers of the example fit the signals that are sent: one line for a login, one for a logout."""
    caplog.set_level("INFO")
    headers = {"Authorization": f"Bearer {token_of(shop)}"}
    shop["app"].test_client().delete("/account", headers=headers)
    lines = [record.getMessage().split(":")[0].split(" of ")[0] for record in caplog.records]
    assert [line for line in lines if line.startswith("logged")] == ["logged in", "logged out"]
