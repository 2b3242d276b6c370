"""The unguarded routes for whoever runs the service: is it up, can it serve, and what does it promise."""

from __future__ import annotations

import logging
from importlib import resources

from flask import Blueprint, Response

from ...errors import StoreUnavailable
from ...metrics import CONTENT_TYPE, exposition
from ...storage.reasons import HINTS
from ..extension import wxauth
from .clients import client_required

log = logging.getLogger(__name__)

bp = Blueprint("health", __name__)


@bp.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers; nothing else is asked."""
    return {"status": "ok"}


@bp.get("/readyz")
def readyz() -> tuple[dict[str, str], int, dict[str, str]]:
    """One word for each dependency. Only Redis makes it 503: without WeChat, checks go on."""
    try:
        redis, status = wxauth().store.health(), 200
    except StoreUnavailable as error:
        redis, status = error.reason, 503
    if redis != "ok":
        log.warning("redis_not_ready", extra={"reason": redis, "hint": HINTS.get(redis)})
    wechat = "misconfigured" if wxauth().wechat.misconfigured else "ok"
    return {"redis": redis, "wechat": wechat}, status, {} if status == 200 else {"Retry-After": "1"}


@bp.get("/metrics")
@client_required
def metrics() -> Response:
    """For Prometheus, with a client's credential."""
    return Response(exposition(), content_type=CONTENT_TYPE)


@bp.get("/openapi.yaml")
def openapi() -> Response:
    """The contract, as it lies in the package."""
    contract = resources.files("wxauth").joinpath("openapi.yaml").read_bytes()
    return Response(contract, mimetype="application/yaml")
