"""openapi.yaml: valid, complete, and served by the service."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import pytest
import yaml
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import validate

from tests.support.error_classes import answered

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
#: Their errors have the form of RFC 6749.
OAUTH = ("/device_authorization", "/token")
#: A WSGI middleware answers it, so it is not in Flask's URL map.
VERIFY = {(path, method) for path in ("/verify", "/verify/{path}") for method in METHODS}


@pytest.fixture(scope="module")
def contract() -> dict[str, Any]:
    text = resources.files("wxauth").joinpath("openapi.yaml").read_text()
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_openapi_is_valid(contract: dict[str, Any]) -> None:
    validate(contract)
    assert contract["openapi"].startswith("3.1")


def test_openapi_route_returns_the_file(client: FlaskClient, contract: dict[str, Any]) -> None:
    assert yaml.safe_load(client.get("/openapi.yaml").text) == contract


def test_openapi_has_every_route_and_method_and_no_other(app: Flask, contract: dict[str, Any]) -> None:
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }
    told = {(path, method) for path, item in contract["paths"].items() for method in METHODS & item.keys()}
    assert told == routes | VERIFY


def test_openapi_names_the_credential_of_every_operation(contract: dict[str, Any]) -> None:
    """The 401 of the operation has the challenge of that credential."""
    challenges = {"token": "Unauthorized", "client": "ClientUnauthorized", "": ""}
    for path, item in contract["paths"].items():
        for operation in (item[method] for method in METHODS & item.keys()):
            needed = [*operation["security"][0]] if operation["security"] else []
            refusal = operation["responses"].get("401", {}).get("$ref", "").rpartition("/")[2]
            expected = "OAuthClientError" if path in OAUTH else challenges["".join(needed)]
            assert refusal == expected, path


def test_openapi_names_every_problem_code(contract: dict[str, Any]) -> None:
    described = str(contract["components"]["responses"])
    codes = {error.code for error in answered()}
    # No route of the service asks for a fresh login. The other two can happen at every route.
    not_listed = {"login_too_old", "internal_error", "method_not_allowed"}
    assert [code for code in sorted(codes - not_listed) if code not in described] == []
