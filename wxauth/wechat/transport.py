"""One GET or POST to WeChat within a deadline. Handles bytes and time; `answers` handles their meaning.

The requests go straight to an adapter of `requests`, without a Session: so there are no redirects, no cookies,
no `.netrc` and no proxy of the environment (each can send the AppSecret to a second host).
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import requests
from requests.adapters import BaseAdapter

from ..errors import WeChatUnreachable
from ..models import Secret
from .connections import DeadlineAdapter, seconds_until

#: Bytes of a body.
MAX_ANSWER: Final = 64 * 1024
MAX_IMAGE: Final = 512 * 1024
HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "wxauth"}
#: How `http.client` reports that the proxy has refused the tunnel.
NO_TUNNEL: Final = re.compile(r"Tunnel connection failed: (\d{3})")

Fields = Mapping[str, str | bool | Secret]


class Request(NamedTuple):
    """A GET, or a POST with `body` as JSON. The answer has at most `max_answer` bytes."""

    path: str
    query: Fields
    body: Fields | None = None
    max_answer: int = MAX_ANSWER


class Transport:
    """A pool of connections to one host. Safe to share between threads.

    `adapter` replaces the network: the sandbox and the tests pass a fake WeChat. `pool_size` is the number of idle
    connections that are kept. `proxy` is the URL of an HTTP proxy.
    """

    def __init__(
        self, base_url: str, adapter: BaseAdapter | None = None, pool_size: int = 10, proxy: Secret | None = None
    ) -> None:
        self._base_url = base_url
        self._replacement = adapter
        self._pool_size = pool_size
        self._proxy = proxy
        self.reset()

    def reset(self) -> None:
        """Forget the connections. A forked process must not use those of its parent."""
        self._adapter = self._replacement or DeadlineAdapter(self._pool_size, self._proxy)

    def ask(self, request: Request, deadline: float) -> bytes:
        """Return the body of a 200 answer. `deadline` is a `time.monotonic()` value.

        Raises WeChatUnreachable for any other outcome. A request is never repeated.
        """
        try:
            seconds = seconds_until(deadline)
            with self._adapter.send(self._prepared(request), stream=True, timeout=seconds) as response:
                return _body(response, request.max_answer)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = _reason(error)
        # Raised outside the `except` block, so that it has no __context__: the text of an error can hold the URL.
        raise WeChatUnreachable(reason)

    def _prepared(self, request: Request) -> requests.PreparedRequest:
        """Return the request as an adapter takes it. `Request.prepare` would take as long as all of the sending."""
        prepared = requests.PreparedRequest()
        prepared.method = "POST" if request.body else "GET"
        query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in _revealed(request.query).items())
        prepared.url = f"{self._base_url}{request.path}{'?' if query else ''}{query}"
        prepared.headers = headers = HEADERS.copy()  # type: ignore[assignment]  # a mapping
        if request.body:
            prepared.body = json.dumps(_revealed(request.body)).encode()
            headers.update({"Content-Type": "application/json", "Content-Length": str(len(prepared.body))})
        return prepared


def _body(response: requests.Response, max_size: int) -> bytes:
    if response.status_code != requests.codes.ok:
        raise WeChatUnreachable(f"http_{response.status_code}")
    # A compressed body can be a decompression bomb, and we have asked for none.
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise WeChatUnreachable("encoded")
    body: bytes = response.raw.read(max_size + 1)
    if len(body) > max_size:
        raise WeChatUnreachable("too_large")
    return body


def _revealed(fields: Fields) -> dict[str, Any]:
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in fields.items()}


def _reason(error: Exception) -> str:
    if refusal := NO_TUNNEL.search(str(error)):
        return f"proxy_{refusal[1]}"
    if isinstance(error, requests.exceptions.ProxyError):
        return "proxy"
    # The file of SSL_CERT_FILE may be absent, or no certificate.
    if isinstance(error, ssl.SSLError | FileNotFoundError):
        return "tls"
    if isinstance(error, requests.Timeout | TimeoutError):
        return "timeout"
    return "connection"
