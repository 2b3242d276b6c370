"""The routes of the service alone: health, readiness, metrics and the contract."""

from __future__ import annotations

import logging
from importlib import resources
from typing import Final

from flask import Response

from ...errors import StoreUnavailable
from ...metrics import CONTENT_TYPE, exposition
from ...storage.reasons import HINTS
from ..problems import add_headers
from ..services import services
from . import RouteBlueprint
from .clients import require_client

log = logging.getLogger(__name__)

#: One object for all answers: callers that do not read could hold thousands of copies.
CONTRACT: Final = resources.files("wxauth").joinpath("openapi.yaml").read_bytes()

bp = RouteBlueprint("health", __name__)
bp.after_request(add_headers)


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
    return Response(CONTRACT, mimetype="application/yaml")


@bp.get("/metrics")
def metrics() -> Response:
    """The metrics in Prometheus' text format, for a client."""
    require_client()
    return Response(exposition(), content_type=CONTENT_TYPE)
