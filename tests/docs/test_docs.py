"""Compare the tables of the documentation with the code, and run the blocks of the README and of its pages."""

from __future__ import annotations

import html
import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tests.support.documents import CHINESE, DOCUMENTS, README, TREE, both, document
from tests.support.error_classes import answered
from tests.support.servers import RedisServer, program
from tests.support.service import PACKAGE, ROOT, Sandbox, WeChatServer, environment
from wxauth.errors import ConfigurationError
from wxauth.settings import REDIS_URL_NAMES, VARIABLES, Settings
from wxauth.web.app import create_app
from wxauth.wechat.errcodes import ERRCODES, HINTS

CONFIGURATION, ERRORS, HTTP_API = "docs/configuration.md", "docs/errors.md", "docs/http-api.md"
ARCHITECTURE, FLASK, MINI_PROGRAM, SANDBOX = (
    f"docs/{it}.md" for it in ("architecture", "flask", "mini-program", "sandbox")
)


def in_both_languages(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", both(name))


def bare(cell: str) -> str:
    return cell.replace("`", "")


def words_in_code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# --- The tables, compared with the code


def variables(name: str) -> dict[str, list[str]]:
    """Return the rows of the configuration table by variable."""
    return {variable: row for row in document(name).table("`WECHAT_APPID`") for variable in words_in_code(row[0])}


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
    optional = VARIABLES - {"WXAUTH_SECRET_KEYS", "WXAUTH_APPS"}
    return {name: as_written(getattr(settings, name.removeprefix("WXAUTH_").lower())) for name in optional}


@in_both_languages(CONFIGURATION)
def test_configuration_table_has_each_variable(name: str) -> None:
    """The table has each variable that Settings reads, and no other."""
    assert set(variables(name)) == VARIABLES | {"WECHAT_APPID", "WECHAT_SECRET"} | set(REDIS_URL_NAMES)


@in_both_languages(CONFIGURATION)
def test_configuration_table_marks_the_needed_variables(name: str) -> None:
    """A variable is marked as needed if and only if an empty environment is refused for it."""
    marked = {variable for variable, row in variables(name).items() if row[1] in {"needed", "必填"}}
    assert marked == faulted_by_an_empty_environment()


@in_both_languages(CONFIGURATION)
@pytest.mark.parametrize("variable", sorted(defaults()))
def test_configuration_table_has_the_defaults(name: str, variable: str) -> None:
    """The table shows the value that Settings uses if the variable is absent."""
    assert bare(variables(name)[variable][1]) == defaults()[variable]


def test_each_variable_has_an_effect() -> None:
    """Some module reads the setting of each variable."""
    code = "".join(path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "settings.py")
    in_use = {f"WXAUTH_{field.upper()}" for field in re.findall(r"settings\.(\w+)", code)}
    assert in_use >= VARIABLES


@in_both_languages(ERRORS)
def test_problem_table_equals_the_code(name: str) -> None:
    """The table has code, status and action of each problem, and no other row."""
    written = {(bare(row[0]), int(row[1]), bare(row[2])) for row in document(name).table("`token_missing`")}
    assert written == {(it.code, it.status, it.action) for it in answered()}


@in_both_languages(ERRORS)
def test_each_problem_has_one_row_with_a_condition(name: str) -> None:
    table = document(name).table("`token_missing`")
    assert len({row[0] for row in table}) == len(table)
    assert all(row[3] for row in table)


@in_both_languages(HTTP_API)
def test_route_table_equals_the_url_map(name: str, settings: Settings) -> None:
    """Each route of the service is a row, and each row is a route."""
    routes = {
        f"{method} {rule.rule}"
        for rule in create_app(settings).url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert {bare(row[0]) for table in document(name).tables for row in table[2:]} == routes


@in_both_languages(ERRORS)
def test_errcode_table_equals_the_code(name: str) -> None:
    """The table has each known errcode with the code of its problem."""
    written = {int(row[0]): bare(row[1]) for row in document(name).table("40029")}
    answered = {errcode: error.code for errcode, error in ERRCODES.items()}
    assert written == answered | dict.fromkeys(HINTS, "wechat_misconfigured")


@pytest.mark.parametrize("errcode", sorted(HINTS))
def test_errcode_table_has_the_hint_of_the_log(errcode: int) -> None:
    """For errors that only the operator can fix, the page repeats the hint of the log."""
    (row,) = (row for row in document(ERRORS).table("40029") if row[0] == str(errcode))
    assert bare(f"{row[2]}: {row[3]}").casefold() == HINTS[errcode].casefold()


def tree_names(name: str) -> set[str]:
    """Return the names in the page's tree of `wxauth/`."""
    (tree,) = (block for block in document(name).code("text") if block.startswith(TREE))
    return {line.split()[0] for line in tree.splitlines()[1:]}


@in_both_languages(ARCHITECTURE)
def test_the_tree_has_each_folder_and_module_of_the_package(name: str) -> None:
    folders = {f"{path.name}/" for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert tree_names(name) == folders | {path.name for path in PACKAGE.glob("*.py")}


# --- The blocks, executed


def curl_lines() -> list[str]:
    return [block for block in document(SANDBOX).code("sh") if block.startswith("curl ")]


def typed(line: str, sandbox: Sandbox, seen: dict[str, str]) -> Any:
    """Run `line` in a shell and return its JSON. THE CODE and THE TOKEN are replaced by earlier answers."""
    line = line.replace("http://127.0.0.1:8000", sandbox.url)
    line = line.replace("THE CODE", seen.get("code", "")).replace("THE TOKEN", seen.get("token", ""))
    command = [program("sh"), "-c", line.replace("curl ", f"{program('curl')} --silent --show-error --fail ", 1)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)


@pytest.fixture(scope="module")
def answers() -> Iterator[list[Any]]:
    """Return the answers of the three lines of the page, run one after the other."""
    seen: dict[str, str] = {}
    with Sandbox() as sandbox:
        yield [seen.update(answer) or answer for answer in (typed(line, sandbox, seen) for line in curl_lines())]


def test_sandbox_lines_return_answers_of_the_printed_form(answers: list[Any]) -> None:
    """Each answer has the members and types that the page prints below the line."""

    def form(answer: dict[str, object]) -> dict[str, type]:
        return {name: type(value) for name, value in answer.items()}

    shown = [json.loads(block) for block in document(SANDBOX).code("json")]
    assert [form(answer) for answer in answers] == [form(answer) for answer in shown]


def test_sandbox_lines_end_with_an_openid_of_the_sandbox(answers: list[Any]) -> None:
    assert answers[-1]["openid"].startswith("oSANDBOX")


def test_sandbox_lines_are_those_of_the_sandbox_page() -> None:
    client = create_app(Settings.from_env({"WXAUTH_SANDBOX": "1"})).test_client()
    page = html.unescape(client.get("/", base_url="http://127.0.0.1:8000").text)
    assert len(curl_lines()) == 3
    assert all(line in page for line in curl_lines())


def test_nginx_lines_are_in_deploy_nginx_conf() -> None:
    """The README shows lines of deploy/nginx.conf, in the same order. tests/deploy tests that file."""
    (block,) = document(README).code("nginx")
    shipped = iter(line.strip() for line in ROOT.joinpath("deploy", "nginx.conf").read_text().splitlines())
    location, *shown, end = block.strip().splitlines()
    assert (location, end) == ("location / {", "}")
    missing = [line.strip() for line in shown if line.strip() not in shipped]
    assert not missing


@pytest.mark.parametrize("name", [README, MINI_PROGRAM])
def test_mini_program_example_is_short_and_holds_no_secret(name: str) -> None:
    """tests/miniprogram/wxauth.test.js runs the examples."""
    (block,) = document(name).code("js")
    assert len(block.splitlines()) <= 25
    assert not re.search(r"session_?key|secret", block, re.IGNORECASE)


@pytest.fixture
def configured(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[WeChatServer]:
    """Set the variables of a real installation, with a fake WeChat."""
    with WeChatServer() as wechat:
        for variable, value in environment(redis_server.url, wechat.url).items():
            monkeypatch.setenv(variable, value)
        yield wechat


def executed(name: str, blocks: list[str], wechat: WeChatServer) -> Iterator[dict[str, Any]]:
    """Run Python blocks of a document as one program. Yield its global names, and the code of a phone."""
    names: dict[str, Any] = {"__name__": "shop"}
    for block in blocks:
        exec(compile(block, name, "exec"), names)  # noqa: S102 - it is our own document
    names["code"] = wechat.fake.wx_login("alice")
    yield names
    # Signals hold weak references to their receivers, so this disconnects them.
    names.clear()


@pytest.fixture
def first_shop(configured: WeChatServer) -> Iterator[dict[str, Any]]:
    """The application of the README."""
    yield from executed(README, document(README).code("python"), configured)


@pytest.fixture
def shop(configured: WeChatServer) -> Iterator[dict[str, Any]]:
    """The application of the page about Flask, without the file for production."""
    yield from executed(FLASK, document(FLASK).code("python")[:-1], configured)


def token_of(shop: dict[str, Any]) -> str:
    answer = shop["app"].test_client().post("/auth/login", json={"code": shop["code"]})
    token: str = answer.json["token"]
    return token


def test_readme_application_lets_only_users_in(first_shop: dict[str, Any]) -> None:
    client = first_shop["app"].test_client()
    assert client.get("/orders").json["code"] == "token_missing"
    answer = client.get("/orders", headers={"Authorization": f"Bearer {token_of(first_shop)}"})
    assert answer.json["openid"].startswith("oSANDBOX")


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


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name.endswith(CHINESE)])
def test_a_chinese_paragraph_is_one_line(name: str) -> None:
    """Browsers show a line break as a space, and Chinese text has no spaces."""
    tokens = MarkdownIt("commonmark").enable("table").parse(document(name).text)
    assert [token.content for token in tokens if token.type == "inline" and "\n" in token.content] == []
