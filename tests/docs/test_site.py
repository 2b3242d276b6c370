"""Build the website of `make docs`, follow its links, and open it in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.browser import Browser
from tests.support.documents import CHINESE, DOCUMENTS, document, translation
from tests.support.servers import program, wait_until
from tests.support.service import ROOT
from tests.support.website import Website

#: `make check` installs the generator there.
VENV = ROOT / ".venv-docs" / "bin"
FOLDERS = {False: "", True: "zh-CN/"}


#: The results of the search, which the page keeps in a shadow tree.
RESULTS = "return [...document.activeElement.shadowRoot.querySelectorAll('a')].map(it => it.textContent)"


def build(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [program("python", VENV), str(root / "docs" / "build.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder / "docs"


class Html(HTMLParser):
    """The ids, the links and the names of a page's other files."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.files: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids |= {found["id"] or ""} if "id" in found else set()
        if tag == "a":
            self.links |= {found.get("href") or "#"}
        else:
            self.files |= {it for it in (found.get("src"), found.get("href")) if it}


def page_of(name: str) -> str:
    """Return the page of the website for a document of the repository."""
    stem = Path(name).name.removesuffix(".md").removesuffix(".zh-CN")
    return FOLDERS[".zh-CN" in name] + ("index" if stem == "README" else stem) + ".html"


def test_each_document_is_a_page_with_a_place_in_the_navigation(site: Path) -> None:
    pages = {str(path.relative_to(site)) for path in site.rglob("*.html") if path.name != "404.html"}
    assert pages == {page_of(name) for name in DOCUMENTS}
    for folder in FOLDERS.values():
        linked = {f"{folder}{link}" for link in Html(site / folder / "contributing.html").links}
        pages -= {str(Path(it.partition("#")[0])) for it in linked}
    assert pages == set()


def test_each_link_of_the_site_leads_to_a_page_and_a_heading(site: Path) -> None:
    pages = {path: Html(path) for path in site.rglob("*.html") if path.name != "404.html"}
    links = [(page, link) for page, it in pages.items() for link in it.links | it.files if ":" not in link]
    assert len(links) > 1000
    missing = []
    for page, link in links:
        path, _, anchor = link.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.is_file() or (anchor and file.suffix == ".html" and anchor not in pages[file].ids):
            missing.append((page.name, link))
    assert missing == []


def test_language_switch_leads_to_the_same_page(site: Path) -> None:
    for name in DOCUMENTS:
        page = site / page_of(name)
        (link,) = re.findall(r'<a class="md-header__button" href="(.*?)" hreflang', page.read_text(encoding="utf-8"))
        other = name.replace(".zh-CN", "") if ".zh-CN" in name else translation(name)
        assert (page.parent / link).resolve() == site / page_of(other)


def test_lines_of_chinese_paragraphs_are_joined(site: Path) -> None:
    """Lists, tables and code are not: the pages have as many of them as their sources."""
    breaks = re.compile(r"[\u3001-\u9fff\uff00-\uffef](?:</\w+>)?\n(?:<\w+>)?[\u3001-\u9fff\uff00-\uffef]")
    for name in (it for it in DOCUMENTS if it.endswith(CHINESE)):
        text = (site / page_of(name)).read_text(encoding="utf-8").partition("<article")[2].partition("</article>")[0]
        paragraphs = re.findall(r"<p>.*?</p>|<li>.*?</li>", text, re.DOTALL)
        assert [it for it in paragraphs if breaks.search(it)] == []
        source = document(name)
        items = re.findall(r"^ *(?:-|\d+\.) ", source.prose, re.MULTILINE)
        found = [len(re.findall(rf"<{tag}[ >]", text)) for tag in ("li", "tr", "pre")]
        assert found == [len(items), sum(len(table) - 1 for table in source.tables), len(source.blocks)], name


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    foreign = {file for path in site.rglob("*.html") for file in Html(path).files if "//" in file}
    assert foreign == set()


@pytest.mark.parametrize(
    ("page", "words", "found"),
    [("index.html", "rotate keys", "Rotate the keys"), ("zh-CN/index.html", "轮换密钥", "轮换密钥")],
)
def test_search_finds_a_section_and_asks_no_other_host(page: str, words: str, found: str, site: Path) -> None:
    with Website(site) as website, Browser(website.url) as browser:
        browser.driver.get(f"{website.url}/{page}")
        browser.run("document.querySelector('.md-search__button').click()")
        wait_until(lambda: browser.run("return !!document.activeElement.shadowRoot"), "the search")
        browser.driver.switch_to.active_element.send_keys(words)
        wait_until(lambda: any(found in it for it in browser.run(RESULTS)), "the result")
        assert {it for it in browser.addresses() if not it.startswith((website.url, "data:", "blob:"))} == set()
        browser.driver.get("about:blank")


@pytest.mark.parametrize("link", ["nowhere.md", "flask.md#nowhere"])
def test_broken_link_fails_the_build(link: str, tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".*", "node_modules", "build", "__pycache__"))
    with (root / "docs" / "jwt.md").open("a") as page:
        page.write(f"\n[x]({link})\n")
    done = build(root, tmp_path / "build")
    assert (done.returncode, "1 issue found" in done.stderr) == (1, True)
