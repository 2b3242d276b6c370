"""Test what import-linter does not: the use of foreign libraries, and the public names."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import grimp
import pytest

import wxauth

ENTRY = Path(wxauth.__file__).parents[1] / "app.py"
GRAPH = grimp.build_graph("wxauth", include_external_packages=True)

#: The folders and modules of wxauth/ that may import a library. A new library needs a line here.
IMPORTERS = {
    "blinker": {"web"},
    "click": {"cli"},
    "cryptography": {"keys", "wechat.crypto", "sandbox.crypto"},
    "fakeredis": {"sandbox.fake_redis"},
    "flask": {"web", "sandbox", "testing"},
    "granian": {"cli.server"},
    "itsdangerous": {"keys"},
    "limits": {"web"},
    "lupa": {"sandbox.fake_redis"},
    "markdown_it": {"sandbox.documentation"},
    "opentelemetry": {"web.tracing"},
    "prometheus_client": {"metrics"},
    "redis": {"storage", "sandbox.fake_redis"},
    "requests": {"wechat.connections", "wechat.transport", "sandbox"},
    "sentry_sdk": {"web.tracing"},
    "urllib3": {"wechat.connections", "sandbox"},
    "segno": {"web", "sandbox"},
    "werkzeug": {"web"},
}


def foreign_libraries() -> set[str]:
    return {name for name in GRAPH.modules if not name.startswith("wxauth")} - sys.stdlib_module_names


def importers(library: str) -> set[str]:
    """The modules that import the library, without `wxauth.` before their names."""
    return {module.removeprefix("wxauth.") for module in GRAPH.find_modules_that_directly_import(library)}


def is_in(module: str, place: str) -> bool:
    return f"{module}.".startswith(f"{place}.")


def test_each_library_has_a_line() -> None:
    """`IMPORTERS` has the libraries that wxauth/ imports, and no other."""
    assert foreign_libraries() == set(IMPORTERS)


@pytest.mark.parametrize("library", IMPORTERS)
def test_a_library_is_imported_only_in_its_places(library: str) -> None:
    places = IMPORTERS[library]
    assert [module for module in importers(library) if not any(is_in(module, place) for place in places)] == []


@pytest.mark.parametrize("library", IMPORTERS)
def test_each_place_of_a_library_imports_it(library: str) -> None:
    modules = importers(library)
    assert [place for place in IMPORTERS[library] if not any(is_in(module, place) for module in modules)] == []


def test_app_py_defines_no_function_and_no_class() -> None:
    """`app.py` only chooses between the command line and the WSGI application."""
    entry = ast.parse(ENTRY.read_text())
    assert ast.get_docstring(entry)
    assert not [node for node in ast.walk(entry) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda)]


def test_all_has_at_most_ten_names() -> None:
    assert len(wxauth.__all__) <= 10


@pytest.mark.parametrize("name", wxauth.__all__)
def test_each_name_in_all_can_be_imported(name: str) -> None:
    assert hasattr(wxauth, name)
