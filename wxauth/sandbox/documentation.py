"""Serve the pages of the documentation as HTML, on a machine without internet too.

A wheel has the pages in this folder, a checkout has them in docs/. The links between them are relative.
"""

from __future__ import annotations

import re
from html import escape
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Final

from flask import Blueprint, Response, abort
from markdown_it import MarkdownIt

from .playground import secured

bp = Blueprint("documentation", __name__)

#: The project's address, from pyproject.toml. Links to files that are not pages lead there.
HOME: Final = "https://wxauth.example"
HERE: Final = Path(__file__).parent
PACKED: Final = HERE / "docs"
PAGES: Final = PACKED if PACKED.is_dir() else HERE.parents[1] / "docs"
LAYOUT: Final = Template((HERE / "document" / "page.html").read_text(encoding="utf-8"))

KINDS: Final = {".md": "text/html", ".png": "image/png", ".css": "text/css", ".js": "text/javascript"}
FILES: Final = {
    path.name: path for folder in (PAGES, HERE / "document") for path in folder.glob("*") if path.suffix in KINDS
}


@bp.get("/sandbox/docs/<name>")
def document(name: str) -> Response:
    if name not in FILES:
        abort(404)
    path = FILES[name]
    return secured(render(path) if path.suffix == ".md" else path.read_bytes(), KINDS[path.suffix])


def render(path: Path) -> str:
    """Return a page as HTML, with anchors as GitHub makes them."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(path.read_text(encoding="utf-8"))
    for token, following in pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", anchor(following.content))
        if token.type == "table_open":
            token.attrSet("tabindex", "0")  # a wide table scrolls
    for link in (child for token in tokens for child in token.children or [] if child.type == "link_open"):
        link.attrSet("href", re.sub(r"^\.\./", f"{HOME}/", str(link.attrs["href"])))
    return LAYOUT.substitute(
        language="zh-CN" if path.name.endswith(".zh-CN.md") else "en",
        title=escape(tokens[1].content),
        body=markdown.renderer.render(tokens, markdown.options, {}),
    )


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
