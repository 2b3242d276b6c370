"""The unguarded routes for whoever runs the service: is it up, can it serve, and what does it promise."""

from __future__ import annotations

from importlib import resources

from flask import Blueprint, Response

from .errors import StoreUnavailable
from .extension import wxauth

bp = Blueprint("health", __name__)


@bp.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers; nothing else is asked."""
    return {"status": "ok"}


@bp.get("/readyz")
def readyz() -> tuple[dict[str, str], int, dict[str, str]]:
    """One word for each dependency. Only Redis makes it 503: without WeChat, checks go on."""
    try:
        wxauth().store.ping()
        redis = "ok"
    except StoreUnavailable as error:
        redis = error.cause
    wechat = "misconfigured" if wxauth().wechat.misconfigured else "ok"
    words = {"redis": redis, "wechat": wechat}
    return (words, 200, {}) if redis == "ok" else (words, 503, {"Retry-After": "1"})


@bp.get("/openapi.yaml")
def openapi() -> Response:
    """The contract, as it lies in the package."""
    contract = resources.files(__package__).joinpath("openapi.yaml").read_bytes()
    return Response(contract, mimetype="application/yaml")
