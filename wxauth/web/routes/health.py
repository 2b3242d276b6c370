"""The routes that ask for no credential: health, readiness and the contract."""

from __future__ import annotations

import logging
from importlib import resources

from flask import Blueprint, Response

from ...errors import StoreUnavailable
from ...storage.reasons import HINTS
from ..extension import services

log = logging.getLogger(__name__)

bp = Blueprint("health", __name__)


@bp.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers. No dependency is checked."""
    return {"status": "ok"}


@bp.get("/readyz")
def readyz() -> tuple[dict[str, str], int, dict[str, str]]:
    """One word for each dependency. Only Redis makes it 503: tokens are checked without WeChat."""
    try:
        redis, status = services().redis.health(), 200
    except StoreUnavailable as error:
        redis, status = error.reason, 503
    if redis != "ok":
        log.warning("redis_not_ready", extra={"reason": redis, "hint": HINTS.get(redis)})
    wechat = "misconfigured" if services().wechat.misconfigured else "ok"
    return {"redis": redis, "wechat": wechat}, status, {} if status == 200 else {"Retry-After": "1"}


@bp.get("/openapi.yaml")
def openapi() -> Response:
    """The contract, from the file in the package."""
    contract = resources.files("wxauth").joinpath("openapi.yaml").read_bytes()
    return Response(contract, mimetype="application/yaml")
