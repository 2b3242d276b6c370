"""Build the documentation as a website, in both languages: `make docs` writes it to build/docs.

Zensical reads a folder for each language and checks the links in it. So this program copies the pages without the
suffix of their language. The README is the first page, and the links of its last table are the navigation. Links to
other files of the repository lead to the home page of the project.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
HOME: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Homepage"]
PICTURES: Final = {".png", ".svg", ".webp"}

#: The languages, by the suffix in the names of the files.
ENGLISH: Final = ""
CHINESE: Final = ".zh-CN"
#: Where the pages of a language are in the website.
FOLDER: Final = {ENGLISH: "", CHINESE: "zh-CN/"}

#: The theme's switch leads to the first page of a language, this one to the page that is shown.
SWITCH: Final = """{% for alt in config.extra.alternate %}
<a class="md-header__button" href="{{ alt.link | replace("index.html", page.url) | url }}" hreflang="{{ alt.lang }}">
{{- alt.name -}}</a>
{% endfor %}
"""

#: The theme breaks long code anywhere, so a name in the first column of a table would be split.
STYLE: Final = ".md-typeset td:first-child code { word-break: normal }\n"


def pages(language: str) -> dict[str, Path]:
    """Return the sources of a language by the name of the page: the README is `index`."""
    sources = [it for it in ROOT.glob("docs/*.md") if it.name.endswith(CHINESE + ".md") == (language == CHINESE)]
    named = {it.name.removesuffix(f"{language}.md"): it for it in sources}
    return named | {"index": ROOT / f"README{language}.md"}


def rewritten(source: Path, language: str) -> str:
    """Return the text of a page with links that fit the website."""

    def link(found: re.Match[str]) -> str:
        path, mark, anchor = found[1].partition("#")
        file = (source.parent / path).resolve()
        return f"]({target(file, language)}{mark}{anchor})" if file.exists() and path else found[0]

    return re.sub(r"\]\(([^):]+)\)", link, source.read_text(encoding="utf-8"))


def target(file: Path, language: str) -> str:
    """Return the address of a file of the repository, as seen from a page of the language."""
    if file.parent == ROOT / "docs" and file.suffix in PICTURES:
        return file.name
    for other in (ENGLISH, CHINESE):
        for name, source in pages(other).items():
            if source == file and other == language:
                return f"{name}.md"
            if source == file:
                return f"{'../' if language else ''}{FOLDER[other]}{name}.html"
    return f"{HOME}/{file.relative_to(ROOT)}"


def navigation(language: str) -> list[dict[str, str]]:
    table = (ROOT / f"README{language}.md").read_text(encoding="utf-8").rpartition("|---|---|")[2]
    links = re.findall(r"\[([^]]+)\]\(docs/([\w-]+?)(?:\.zh-CN)?\.md\)", table)
    return [{"wxauth": "index.md"}, *({title: f"{name}.md"} for title, name in links)]


def config(language: str) -> dict[str, Any]:
    """Return the settings of a language, in the form of mkdocs.yml. Pages load nothing from other hosts."""
    if language:
        other = {"name": "English", "link": "../index.html", "lang": "en"}
    else:
        other = {"name": "中文", "link": f"{FOLDER[CHINESE]}index.html", "lang": "zh-CN"}
    return {
        "site_name": "wxauth",
        "docs_dir": f"docs-source{language}",
        "site_dir": f"docs/{FOLDER[language]}",
        "use_directory_urls": False,
        "nav": navigation(language),
        "theme": {
            "custom_dir": "docs-theme",
            "language": "zh" if language else "en",
            "font": False,
            "features": ["content.code.copy", "navigation.footer", "search.highlight", "toc.follow"],
            "palette": [
                {"media": "(prefers-color-scheme: light)", "scheme": "default"},
                {"media": "(prefers-color-scheme: dark)", "scheme": "slate"},
            ],
        },
        "extra_css": ["extra.css"],
        "extra": {
            "generator": False,
            "alternate": [other],
        },
        "markdown_extensions": {
            "tables": {},
            "pymdownx.highlight": {},
            "pymdownx.superfences": {},
            # The anchors of GitHub.
            "toc": {"permalink": True, "slugify": {"object": "pymdownx.slugs.slugify", "kwds": {"case": "lower"}}},
        },
    }


def prepare(build: Path, language: str) -> Path:
    """Write the pages and the settings of a language below `build`, and return the path of the settings."""
    folder = build / f"docs-source{language}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, source in pages(language).items():
        (folder / f"{name}.md").write_text(rewritten(source, language), encoding="utf-8")
    for picture in (it for it in ROOT.glob("docs/*") if it.suffix in PICTURES):
        shutil.copy(picture, folder)
    (folder / "extra.css").write_text(STYLE, encoding="utf-8")
    partials = build / "docs-theme" / "partials"
    partials.mkdir(parents=True, exist_ok=True)
    (partials / "alternate.html").write_text(SWITCH, encoding="utf-8")
    settings = build / f"docs{language}.yml"
    settings.write_text(json.dumps(config(language)), encoding="utf-8")  # JSON is YAML
    return settings


def main(build: Path) -> int:
    """Build the website in `build/docs`, and return the exit code: 1 if a link leads nowhere."""
    shutil.rmtree(build / "docs", ignore_errors=True)
    # The English website first: Zensical empties its folder, which has the Chinese one in it.
    for language in (ENGLISH, CHINESE):
        command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file"]
        if subprocess.run([*command, prepare(build, language)], check=False).returncode:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "build"))
