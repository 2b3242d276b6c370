"""The sandbox's middleware that answers this machine only, also behind a server that listens on every address."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from typing import Final
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from ..errors import BadRequest
from ..settings import HOST
from ..web.problems import to_response

#: The headers by which proxies name the caller.
FORWARDED: Final = ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP")
REFUSED: Final = (
    "The sandbox answers this machine only, not through a proxy, and at a name such as 127.0.0.1 or localhost."
)


class LoopbackOnly:
    """Answers 400 to other machines. For the service, whose `/verify` is not in Flask."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if is_from_this_machine(environ):
            return self._app(environ, start_response)
        return to_response(BadRequest(REFUSED), environ)(environ, start_response)


def is_from_this_machine(environ: WSGIEnvironment) -> bool:
    """Say whether both the caller's address and the Host are loopback, and no proxy forwarded the request.

    By DNS rebinding a page of another site can send requests to 127.0.0.1. Its Host is the name of that site. A proxy
    on this machine has a loopback address itself.
    """
    host = re.fullmatch(HOST, environ.get("HTTP_HOST", ""), re.ASCII)
    is_local = host and is_loopback(host[1].strip("[]")) and is_loopback(environ.get("REMOTE_ADDR", ""))
    return bool(is_local) and environ.keys().isdisjoint(FORWARDED)


def is_loopback(host: str) -> bool:
    """Say whether `host` is a loopback address, or `localhost` or a name below it (RFC 6761)."""
    if f".{host.lower()}".endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
