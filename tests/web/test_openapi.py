"""The contract as a file: valid, complete, and what the service answers."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import pytest
import yaml
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import validate

from wxauth.web.problems import BY_STATUS, PROBLEMS

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
#: It stands in front of Flask, whose map does not know it.
VERIFY = {("/verify", method) for method in METHODS}


@pytest.fixture(scope="module")
def contract() -> dict[str, Any]:
    text = resources.files("wxauth").joinpath("openapi.yaml").read_text()
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_the_contract_is_valid(contract: dict[str, Any]) -> None:
    """OpenAPI 3.1, as its own validator reads it."""
    validate(contract)
    assert contract["openapi"].startswith("3.1")


def test_the_service_serves_it(client: FlaskClient, contract: dict[str, Any]) -> None:
    """The very file that lies in the package."""
    assert yaml.safe_load(client.get("/openapi.yaml").text) == contract


def test_the_contract_has_every_route_and_no_other(app: Flask, contract: dict[str, Any]) -> None:
    """Method by method."""
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }
    told = {(path, method) for path, item in contract["paths"].items() for method in METHODS & item.keys()}
    assert told == routes | VERIFY


def test_whoever_needs_a_credential_is_told_which(contract: dict[str, Any]) -> None:
    """Every operation says what guards it, and its 401 carries the challenge that belongs to it."""
    challenges = {"token": "Unauthorized", "client": "ClientUnauthorized", "": ""}
    for path, item in contract["paths"].items():
        for operation in (item[method] for method in METHODS & item.keys()):
            needed = [*operation["security"][0]] if operation["security"] else []
            refusal = operation["responses"].get("401", {}).get("$ref", "").rpartition("/")[2]
            assert refusal == challenges["".join(needed)], path


def test_the_contract_names_every_problem(contract: dict[str, Any]) -> None:
    """A client's author finds each code in it."""
    described = str(contract["components"]["responses"])
    codes = {problem.code for problem in (*PROBLEMS.values(), *BY_STATUS.values())}
    later = {"login_too_old", "internal_error", "method_not_allowed"}
    assert [code for code in sorted(codes - later) if code not in described] == []
