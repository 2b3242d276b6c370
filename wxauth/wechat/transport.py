"""One GET or POST to WeChat within a deadline. Handles bytes and time; `answers` handles their meaning.

The requests go straight to an adapter of `requests`, without a Session: so there are no redirects, no cookies,
no `.netrc` and no proxy of the environment (each can send the AppSecret to a second host).

Most queries hold a secret: the AppSecret, a code or an access token. Libraries write URLs into logs and errors, and
tracers export them. So no URL below `requests` has a query. The connection adds it to the request line.

`requests` limits the time of each read, not of all reads together. A server that sends one byte a second would hold
a thread for hours. The classes at the end of this module limit the sum. Only the DNS look-up is not limited.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.connection import create_connection
from urllib3.util.ssl_ import create_urllib3_context

from ..errors import WeChatUnreachable
from ..models import Secret

#: Seconds to connect to one address, and again for the TLS handshake.
CONNECT_TIMEOUT: Final = 1.0
#: Bytes of a body, and of a whole answer with its headers and chunk sizes.
MAX_ANSWER: Final = 64 * 1024
MAX_IMAGE: Final = 512 * 1024
MAX_TRAFFIC: Final = MAX_IMAGE + MAX_ANSWER
HEADERS: Final = CaseInsensitiveDict({"Accept-Encoding": "identity", "User-Agent": "wxauth"})
#: How `http.client` reports that the proxy has refused the tunnel.
NO_TUNNEL: Final = re.compile(r"Tunnel connection failed: (\d{3})")

Fields = Mapping[str, str | bool | Secret]

#: "?" and the query of the request that this thread sends, or nothing.
_query: ContextVar[str] = ContextVar("wxauth_wechat_query")


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
            timeout: Any = urllib3.Timeout(total=_time_left(deadline))
            with self._adapter.send(self._prepared(request), stream=True, timeout=timeout) as response:
                return _body(response, request.max_answer)
        except (OSError, urllib3.exceptions.HTTPError, ValueError) as error:
            reason = _reason(error)
        # Raised outside the `except` block: the text of a connection error holds the whole URL, also as __context__.
        raise WeChatUnreachable(reason)

    def _prepared(self, request: Request) -> requests.PreparedRequest:
        """Return the request as an adapter takes it. `Request.prepare` would take as long as all of the sending."""
        prepared = requests.PreparedRequest()
        prepared.method = "POST" if request.body else "GET"
        query = f"?{urlencode(_revealed(request.query))}" if request.query else ""
        prepared.url = f"{self._base_url}{request.path}{query}"
        prepared.headers = HEADERS.copy()
        if request.body:
            prepared.body = json.dumps(_revealed(request.body)).encode()
            prepared.headers.update({"Content-Type": "application/json", "Content-Length": str(len(prepared.body))})
        return prepared


def _body(response: requests.Response, max_size: int) -> bytes:
    if response.status_code != requests.codes.ok:
        raise WeChatUnreachable(f"http_{response.status_code}")
    # A compressed body can be a decompression bomb, and we have asked for none.
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise WeChatUnreachable("encoded")
    # With `decode_content` urllib3 reads to the end. It raises IncompleteRead if the body is shorter than promised.
    body: bytes = response.raw.read(max_size + 1, decode_content=True)
    if len(body) > max_size:
        raise WeChatUnreachable("too_large")
    return body


def _revealed(fields: Fields) -> dict[str, Any]:
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in fields.items()}


def _reason(error: Exception) -> str:
    if isinstance(error, requests.exceptions.ProxyError):
        refusal = NO_TUNNEL.search(str(error))
        return f"proxy_{refusal[1]}" if refusal else "proxy"
    # The file of SSL_CERT_FILE may be absent, or no certificate.
    if isinstance(error, requests.exceptions.SSLError | ssl.SSLError | FileNotFoundError):
        return "tls"
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return "timeout"
    return "connection"


def _time_left(deadline: float) -> float:
    """Return the seconds until `deadline`. Raises TimeoutError if it has passed."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("the deadline has passed")
    return seconds


# urllib3 sets the time-out of a connection to what is left of the total: before it connects, and again before it
# reads the answer. The classes below take their deadline from there.


class _BoundedReader(io.RawIOBase):
    """Reads one answer before a deadline, MAX_TRAFFIC bytes at most.

    Faults: an answer of one byte a second, in the headers or in the body; headers of 6 MiB, which http.client allows.
    """

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        super().__init__()
        self._sock = sock
        self._raw = raw
        self._deadline = time.monotonic() + (sock.gettimeout() or 0)
        self._bytes_left = MAX_TRAFFIC

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._bytes_left <= 0:
            raise OSError("the answer is too large")
        self._sock.settimeout(_time_left(self._deadline))
        count: int = self._raw.readinto(buffer) or 0
        self._bytes_left -= count
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedResponse(http.client.HTTPResponse):
    """http.client's response, read through a _BoundedReader."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_BoundedReader(sock, self.fp.detach()))


def _connect(connection: HTTPConnection) -> socket.socket:
    """Connect to the first address of the host that answers.

    Fault: a firewall that drops packets. urllib3 waits the full time for each address, one after the other.
    """
    deadline = time.monotonic() + float(connection.timeout or 0)
    failure: Exception = OSError("the host has no address")
    for *_, address in socket.getaddrinfo(connection.host, connection.port, type=socket.SOCK_STREAM):
        try:
            place, timeout = (str(address[0]), connection.port), min(CONNECT_TIMEOUT, _time_left(deadline))
            return create_connection(place, timeout, socket_options=connection.socket_options)
        except TimeoutError:
            failure = urllib3.exceptions.ConnectTimeoutError(connection, "no address answered in time")
        except OSError as error:
            failure = error
    raise failure


def _request_line(_: HTTPConnection, request: str) -> bytes:
    """Return the request line with the query. What logs and traces a request has seen it without."""
    method, target, version = request.split(" ")
    return f"{method} {target}{_query.get()} {version}".encode("ascii")


class _PlainConnection(HTTPConnection):
    response_class = _BoundedResponse
    _new_conn = _connect
    _encode_request = _request_line


class _TLSConnection(HTTPSConnection):
    response_class = _BoundedResponse
    _new_conn = _connect
    _encode_request = _request_line


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


def _tls_context() -> ssl.SSLContext:
    """Return a context that trusts the authorities of certifi, and those of SSL_CERT_FILE."""
    context = create_urllib3_context()
    context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    if file := os.environ.get("SSL_CERT_FILE"):
        context.load_verify_locations(file)
    return context


class DeadlineAdapter(HTTPAdapter):
    """The adapter of `requests`, with connections that keep the deadline."""

    def __init__(self, pool_size: int, proxy: Secret | None) -> None:
        super().__init__(pool_connections=1, pool_maxsize=pool_size)
        self._pool: Any = None
        self._lock = threading.Lock()
        self._forwards = False
        if proxy:
            # The credentials are in a header that only the proxy gets, and not in a URL.
            address = f"http://{urlsplit(proxy.reveal()).netloc.rpartition('@')[2]}"
            headers = self.proxy_headers(proxy.reveal())
            self.poolmanager = urllib3.ProxyManager(address, 1, proxy_headers=headers, maxsize=pool_size)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TLSPool}

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Return the pool. There is only one: all requests go to the same host."""
        if self._pool is None:
            with self._lock:
                self._pool = self._pool or self._new_pool(*args, **kwargs)
        return self._pool

    def _new_pool(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        # Over TLS a proxy opens a tunnel. Else it forwards the request, and needs the whole URL for that.
        self._forwards = pool.proxy is not None and pool.scheme == "http"
        return pool

    def build_connection_pool_key_attributes(self, request: requests.PreparedRequest, *args: Any) -> Any:
        """Return the arguments for the pool. All its connections have one TLS context, which takes 30 ms to make."""
        host, tls = super().build_connection_pool_key_attributes(request, *args)
        return host, tls | ({"ssl_context": _tls_context()} if host["scheme"] == "https" else {})

    def cert_verify(self, *_: Any) -> None:
        """Load no authorities. The context has them."""

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """Return the URL without its query, which `_request_line` adds."""
        url, mark, query = (str(request.url) if self._forwards else request.path_url).partition("?")
        _query.set(mark + query)
        return url

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """Return the response without cookies and charset. They are not used.

        Raises WeChatUnreachable if a proxy that forwards requests answers an error. WeChat itself answers none.
        """
        if self._forwards and resp.status != requests.codes.ok:
            resp.close()
            raise WeChatUnreachable(f"proxy_{resp.status}")
        response = requests.Response()
        response.status_code, response.headers, response.raw = resp.status, resp.headers, resp
        response.request = req
        return response
