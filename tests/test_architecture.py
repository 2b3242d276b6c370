"""The architecture: imports go down only, and each foreign library has one door."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

import wxauth

PACKAGE = Path(wxauth.__file__).parent
ENTRY = PACKAGE.parent / "app.py"

#: From the ground up; a module may import those of lower floors, never one of its own.
BUILDING = (
    ("errors", "identity", "logs", "breaker", "strict_json", "addresses", "results", "sandbox.sealer"),
    (
        "errcodes",
        "wechat_answers",
        "settings",
        "sealing",
        "transport",
        "redis_connect",
        "redis_causes",
        "redis_wire",
        "metrics",
        "wechat_crypto",
        "sandbox.fake_api",
        "sandbox.trace",
    ),
    (
        "tokens",
        "wechat",
        "redis_nodes",
        "clients",
        "messages",
        "sandbox.fake_wechat",
        "sandbox.fake_redis",
        "sandbox.watched_wechat",
    ),
    ("records", "redis_client"),
    ("roster", "opendata", "access_tokens"),
    ("redis_feed", "shelves"),
    ("sessions",),
    ("cache", "user_api", "problems", "responses", "body", "sandbox.playground"),
    ("extension",),
    ("guard",),
    ("login", "userdata", "phone", "push", "front", "__init__"),
    ("backends",),
    ("health", "rates", "doctor_redis"),
    ("factory", "doctor"),
    ("cli", "sandbox.assembly"),
    ("__main__",),
    ("sandbox.__init__",),
    ("wsgi",),
)
FLOORS = {module: floor for floor, modules in enumerate(BUILDING) for module in modules}

#: Who may import what is not ours. Flask and Werkzeug belong to all from `problems` upwards.
DOORS = {
    "itsdangerous": {"tokens"},
    # `sealing` is for what is ours; what WeChat seals is opened apart, for none of that may be used for ours. The
    # sandbox seals as WeChat does, and shares no line with either.
    "cryptography": {"sealing", "wechat_crypto", "sandbox.sealer"},
    "requests": {"transport", "sandbox.fake_wechat", "sandbox.watched_wechat"},
    "urllib3": {"transport", "sandbox.fake_wechat", "sandbox.watched_wechat"},
    "redis": {"redis_client", "redis_connect", "redis_causes", "redis_nodes", "redis_wire", "sandbox.fake_redis"},
    "flask_limiter": {"rates"},
    "limits": {"rates"},
    "prometheus_client": {"metrics"},
    "fakeredis": {"sandbox.fake_redis"},
    "click": {"cli"},
    "blinker": {"extension"},
}
WEB = {"flask", "werkzeug"}
#: What knows WeChat's rules, as we understand them.
OUR_READING = {"wechat", "sealing", "wechat_crypto", "opendata", "messages"}
IN_FUNCTION = """
def late():
    if True:
        import os
"""


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text())


@cache
def modules() -> frozenset[str]:
    return frozenset(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))


def own_imports(module: str) -> set[str]:
    """The modules of ours that `module` imports, under the names that they have in `FLOORS`."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "wxauth"):
            found |= {own_module(_base(module, node), alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            own = [alias.name.split(".")[1:] for alias in node.names if alias.name.split(".")[0] == "wxauth"]
            found |= {own_module(tuple(parts), "") for parts in own}
    return found


def own_module(base: tuple[str, ...], name: str) -> str:
    """What `from <base> import <name>` loads: a module of that name, else the base itself."""
    spellings = [(*base, name), (*base, name, "__init__"), base, (*base, "__init__")]
    return next(".".join(parts) for parts in spellings if ".".join(parts) in modules())


def _base(module: str, node: ast.ImportFrom) -> tuple[str, ...]:
    named = tuple((node.module or "").split(".")) if node.module else ()
    return (*module.split(".")[: -node.level], *named) if node.level else named[1:]


def foreign_imports(module: str) -> set[str]:
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"wxauth"}


def importers(library: str) -> set[str]:
    return {module for module in modules() if library in foreign_imports(module)}


def late_imports(source: ast.Module) -> list[int]:
    """The lines of the imports inside functions."""
    functions = [node for node in ast.walk(source) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inner = [node for function in functions for node in ast.walk(function)]
    return [node.lineno for node in inner if isinstance(node, ast.Import | ast.ImportFrom)]


def test_every_module_has_a_floor() -> None:
    """The table is the whole building: a new module is given a floor, and a gone one loses it."""
    assert set(FLOORS) == modules()


@pytest.mark.parametrize("module", FLOORS)
def test_imports_go_down(module: str) -> None:
    """A module imports from lower floors alone, so there is no circle."""
    assert {own for own in own_imports(module) if FLOORS[own] >= FLOORS[module]} == set()


@pytest.mark.parametrize(
    ("module", "own"),
    [
        ("errors", set()),
        ("login", {"body", "errors", "extension", "guard", "sessions"}),
        ("extension", {"problems", "errors", "identity", "logs", "redis_client"}),
        ("sandbox.assembly", {"body", "factory", "sandbox.fake_wechat", "transport"}),
        ("wsgi", {"logs", "errors", "settings", "sandbox.__init__", "factory"}),
    ],
)
def test_every_form_of_import_is_seen(module: str, own: set[str]) -> None:
    """The check itself sees `from . import x`, `from .x import y`, `from ..x import y` and those in a branch."""
    assert own <= own_imports(module)


@pytest.mark.parametrize("module", FLOORS)
def test_no_function_imports(module: str) -> None:
    """What a module needs stands at its head."""
    assert late_imports(tree(module)) == []


def test_the_entry_has_no_function() -> None:
    """`app.py` holds two branches and no decision."""
    found = ast.parse(ENTRY.read_text())
    assert ast.get_docstring(found)
    assert not [node for node in ast.walk(found) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda)]


def test_a_late_import_is_seen() -> None:
    """The check itself finds an import inside a function, however deep."""
    assert late_imports(ast.parse(IN_FUNCTION)) == [4]


def test_every_library_has_its_door() -> None:
    """A foreign library is imported by its door, and there is no library without one."""
    libraries = {library for module in modules() for library in foreign_imports(module)} - WEB
    assert {library: importers(library) for library in libraries} == DOORS


@pytest.mark.parametrize("library", sorted(WEB))
def test_the_web_begins_at_problems(library: str) -> None:
    """Below `problems` nobody knows Flask or Werkzeug."""
    assert "problems" in importers(library)
    assert {module for module in importers(library) if FLOORS[module] < FLOORS["problems"]} == set()


def test_only_the_servers_door_leads_to_the_sandbox() -> None:
    """Where a mini program is configured the sandbox is never imported, so nobody but `wsgi` may do it."""
    outside = {module for module in modules() if not module.startswith("sandbox.")}
    visitors = {module for module in outside if any(own.startswith("sandbox.") for own in own_imports(module))}
    assert visitors == {"wsgi"}


@pytest.mark.parametrize("module", [module for module in FLOORS if module.startswith("sandbox.")])
def test_the_sandbox_shares_no_misreading(module: str) -> None:
    """The fake WeChat is written from WeChat's documents, not from our reading of them."""
    assert own_imports(module).isdisjoint(OUR_READING)


@pytest.mark.parametrize("module", FLOORS)
def test_every_module_says_what_it_owns(module: str) -> None:
    """A module opens with a docstring."""
    assert ast.get_docstring(tree(module))


def test_the_public_face_is_small() -> None:
    """At most ten names, each once and in order."""
    assert len(wxauth.__all__) <= 10
    assert wxauth.__all__ == sorted(set(wxauth.__all__))


@pytest.mark.parametrize("name", wxauth.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """What is promised can be imported."""
    assert hasattr(wxauth, name)
