"""The pages of the documentation as the sandbox shows them."""

from __future__ import annotations

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin

import pytest
from flask.testing import FlaskClient

from tests.support.documents import DOCUMENTS, document
from tests.support.service import ROOT
from wxauth.sandbox.documentation import HOME, KINDS, render
from wxauth.settings import Settings
from wxauth.web.app import create_app

PAGES = [Path(name).name for name in DOCUMENTS if name.startswith("docs/")]

each_page = pytest.mark.parametrize("name", PAGES)


class Html(HTMLParser):
    """The ids, the links and the other files of a page, and its rows of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.files: list[str] = []
        self.rows = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: text or "" for name, text in attrs}
        self.ids += [found["id"]] if "id" in found else []
        self.rows += tag == "tr"
        files = self.links if tag == "a" else self.files
        files += [unquote(found[name]) for name in ("href", "src") if name in found]


@pytest.fixture(scope="module")
def client() -> FlaskClient:
    return create_app(Settings.from_env({"WXAUTH_SANDBOX": "1"})).test_client()


def page(client: FlaskClient, name: str) -> Html:
    return Html(client.get(f"/sandbox/docs/{name}").text)


@each_page
def test_page_is_served_in_its_language_with_a_strict_policy(client: FlaskClient, name: str) -> None:
    response = client.get(f"/sandbox/docs/{name}")
    assert (response.status_code, response.mimetype) == (200, "text/html")
    assert "default-src 'self';" in response.headers["Content-Security-Policy"]
    assert f'<html lang="{"zh-CN" if ".zh-CN." in name else "en"}">' in response.text


@each_page
def test_page_has_the_headings_and_tables_of_its_source(client: FlaskClient, name: str) -> None:
    """The anchors are those of GitHub."""
    shown, source = page(client, name), document(f"docs/{name}")
    assert (set(shown.ids), len(shown.ids)) == (source.anchors, len(source.levels))
    assert shown.rows == sum(len(table) - 1 for table in source.tables)


@each_page
def test_page_loads_only_files_of_the_sandbox(client: FlaskClient, name: str) -> None:
    files = page(client, name).files
    assert {"page.css", "theme.js"} <= set(files)
    assert [it for it in files if client.get(urljoin("/sandbox/docs/", it)).status_code != 200] == []


@each_page
def test_each_link_leads_to_a_page_with_the_heading_or_to_another_host(client: FlaskClient, name: str) -> None:
    """Other files of the repository are at the project's address."""
    links = [link.partition("#") for link in page(client, name).links if not link.startswith("https://")]
    assert links
    headings = [(path or name, heading) for path, _, heading in links if path != "../../" and ":" not in path]
    assert {path for path, _ in headings} <= set(PAGES)
    assert [it for it in headings if it[1] and it[1] not in page(client, it[0]).ids] == []


def test_link_to_the_code_leads_to_the_address_of_the_project(client: FlaskClient) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Homepage"] == HOME
    assert f"{HOME}/examples/miniprogram/wxauth.js" in page(client, "mini-program.md").links


def test_picture_of_a_page_is_served(client: FlaskClient) -> None:
    response = client.get("/sandbox/docs/scan-login.png")
    assert (response.mimetype, response.data) == ("image/png", (ROOT / "docs" / "scan-login.png").read_bytes())


@pytest.mark.parametrize("name", ["no.md", "build.py", "..%2fdocs%2ferrors.md", "%2e%2e/app.py", "../README.md"])
def test_another_name_is_a_404(client: FlaskClient, name: str) -> None:
    assert client.get(f"/sandbox/docs/{name}").status_code == 404


def test_no_layout_file_contains_the_address_of_another_host() -> None:
    files = list((ROOT / "wxauth" / "sandbox" / "document").iterdir())
    assert {path.suffix for path in files} == {".html", ".css", ".js"} <= {*KINDS, ".html"}
    assert [path.name for path in files if re.search(r"//\w", path.read_text())] == []


def test_markup_in_a_page_is_shown_as_text(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("# <b>Title</b>\n\n<script>x</script>\n", encoding="utf-8")
    assert [tag for tag in ("<b>", "<script>") if tag in render(path)] == []
