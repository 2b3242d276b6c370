"""Test the READMEs and the pages in `docs/`: compare the two languages, follow the links, and look names up."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.documents import CHINESE, DOCUMENTS, ENGLISH_DOCUMENTS, README, TREE, both, document, translation
from tests.support.service import PACKAGE, ROOT
from wxauth.settings import VARIABLES

#: Files that a reader saves or makes.
OF_THE_READER = {"shop.py", "test_shop.py", "auth/"}
#: The variables of the examples.
OF_EXAMPLES = {"WXAUTH_APPID", "WXAUTH_CLIENT", "WXAUTH_URL"}
#: English texts that link to pages.
OTHERS = ["CHANGELOG.md", "SECURITY.md", "benchmarks/README.md", "benchmarks/scale.md"]

each_document = pytest.mark.parametrize("name", DOCUMENTS)
each_english_document = pytest.mark.parametrize("name", ENGLISH_DOCUMENTS)


@each_english_document
def test_both_languages_have_the_same_headings(name: str) -> None:
    """The translation has the same sections in the same order and depth."""
    assert document(translation(name)).levels == document(name).levels


@each_english_document
def test_both_languages_have_the_same_code(name: str) -> None:
    """Commands, programs and answers are the same in both languages. Only the tree of folders is translated."""

    def blocks(name: str) -> list[tuple[str, str]]:
        return [block for block in document(name).blocks if not block[1].startswith(TREE)]

    assert blocks(translation(name)) == blocks(name)


@each_english_document
def test_both_languages_have_tables_of_the_same_shape(name: str) -> None:
    """No table has a row or a column in one language only."""

    def shapes(name: str) -> list[list[int]]:
        return [[len(row) for row in table] for table in document(name).tables]

    assert shapes(translation(name)) == shapes(name)


@each_english_document
def test_both_languages_have_the_same_names_in_their_tables(name: str) -> None:
    """Code, names and numbers in the first column are not translated."""

    def names(name: str) -> list[Any]:
        cells = [row[0] for table in document(name).tables for row in table]
        return [cell for cell in cells if re.fullmatch(r"`.*`|[A-Z]\w+|-?\d+", cell)]

    assert names(translation(name)) == names(name)


@each_english_document
def test_both_languages_link_to_each_other(name: str) -> None:
    english, chinese = (Path(it).name for it in both(name))
    assert f"[简体中文]({chinese})" in document(name).text
    assert f"[English]({english})" in document(translation(name)).text


@pytest.mark.parametrize("name", DOCUMENTS + OTHERS)
def test_each_link_leads_to_a_file_and_a_heading(name: str) -> None:
    links = [link.partition("#") for link in document(name).links]
    assert links
    files = [((ROOT / name).parent / path if path else ROOT / name, anchor) for path, _, anchor in links]
    assert [path for path, _ in files if not path.exists()] == []
    headed = [(path, anchor) for path, anchor in files if anchor]
    assert [it for it in headed if it[1] not in document(str(it[0].resolve().relative_to(ROOT))).anchors] == []


@each_document
def test_links_stay_in_the_language(name: str) -> None:
    """A document links to pages in its language, and to its own translation."""
    switch = {Path(it).name for it in both(name.replace(CHINESE, ".md"))}
    paths = [link.partition("#")[0] for link in document(name).links]
    pages = {Path(path).name for path in paths if str(Path(path).parent) in {".", "docs"} and path.endswith(".md")}
    others = {page for page in pages - switch if page.endswith(CHINESE) != name.endswith(CHINESE)}
    assert others <= {"SECURITY.md", "CHANGELOG.md"}


@each_document
def test_each_file_that_a_document_names_exists(name: str) -> None:
    """Paths are relative to the repository or to the package."""
    files, folders = r"[\w.-][\w/.-]*\.(?:py|md|txt|toml|json|yaml)|Procfile|Makefile", r"[\w-]+/"
    paths = r"(?:deploy|docs|examples|tests)/[\w/.-]+"
    named = set(re.findall(f"`({files}|{paths}|{folders})`", document(name).text)) - OF_THE_READER
    assert [path for path in named if not any((folder / path).exists() for folder in (ROOT, PACKAGE))] == []


@each_document
def test_document_names_only_variables_that_exist(name: str) -> None:
    """An unknown WXAUTH_ name would be a configuration error."""
    assert set(re.findall(r"WXAUTH_[A-Z_]*[A-Z]", document(name).text)) <= VARIABLES | OF_EXAMPLES


@each_document
def test_each_make_target_in_a_document_exists(name: str) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:^|`|\w )make ([\w-]+)(?:`|$)", document(name).text, re.MULTILINE)) <= set(targets)


@pytest.mark.parametrize("name", both(README))
def test_readme_links_to_each_page_in_its_language(name: str) -> None:
    pages = [it for it in DOCUMENTS if it.startswith("docs/") and it.endswith(CHINESE) == name.endswith(CHINESE)]
    assert [page for page in pages if f"]({page})" not in document(name).text] == []


@pytest.mark.parametrize("name", both(README))
def test_readme_is_short(name: str) -> None:
    assert len(document(name).text.splitlines()) <= 150
