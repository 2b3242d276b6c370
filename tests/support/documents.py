"""The READMEs and the pages in `docs/`, as the tests read them: headings, code blocks, tables and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Final

from tests.support.service import ROOT

CHINESE: Final = ".zh-CN.md"
README: Final = "README.md"
#: How the block with the tree of folders begins.
TREE: Final = "wxauth/\n"
DOCUMENTS: Final = sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("README*.md"), *ROOT.glob("docs/*.md")))
ENGLISH_DOCUMENTS: Final = [name for name in DOCUMENTS if not name.endswith(CHINESE)]
FENCE: Final = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)

Table = list[list[str]]


@dataclass(frozen=True)
class Document:
    """The parts of a Markdown file. `prose` is the text without the code blocks."""

    text: str
    prose: str
    blocks: list[tuple[str, str]]

    @property
    def levels(self) -> list[int]:
        return [len(marks) for marks in re.findall(r"^(#+) ", self.prose, re.MULTILINE)]

    @property
    def anchors(self) -> set[str]:
        """Return the anchors of the headings, as GitHub makes them."""
        headings = re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    @property
    def links(self) -> list[str]:
        """Return the targets of the links inside the repository."""
        return re.findall(r"\]\(([^):]+)\)", self.text)

    @property
    def tables(self) -> list[Table]:
        return [
            [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
            for table in re.findall(r"(?:^\|.*\|\n)+", self.prose, re.MULTILINE)
        ]

    def table(self, first_column: str) -> Table:
        """Return the rows of the table that has the cell `first_column` in its first column, without the head."""
        (found,) = (table for table in self.tables if any(row[0] == first_column for row in table))
        return found[2:]

    def code(self, language: str) -> list[str]:
        return [text for kind, text in self.blocks if kind == language]


@cache
def document(name: str) -> Document:
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = [(language, block) for _, language, block in FENCE.findall(text)]
    return Document(text, FENCE.sub("", text), blocks)


def translation(name: str) -> str:
    return name.removesuffix(".md") + CHINESE


def both(name: str) -> list[str]:
    """Return the names of the document in both languages."""
    return [name, translation(name)]
