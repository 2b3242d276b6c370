"""Markdown pages with generated tables.

A page is written by hand, except for its blocks. A block begins with `<!-- table: NAME -->` and ends with
`<!-- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

BLOCK: Final = re.compile(r"(<!-- table: (?P<name>[a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(page: str, blocks: Mapping[str, str]) -> str:
    """Return the page with the current text in each block. Raises KeyError if a block has an unknown name."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{blocks[found['name']]}\n{found[3]}", page)


def block_names(page: str) -> list[str]:
    return [found["name"] for found in BLOCK.finditer(page)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table. All columns but the first are aligned right."""
    rule = "|".join(["---", *["---:"] * (len(head) - 1)])
    lines = [" | ".join(cells) for cells in (head, *rows)]
    return "\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:]), ""])
