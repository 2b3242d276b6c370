"""Connections to WeChat that keep a deadline: http.client of the standard library, behind an adapter of `requests`.

http.client limits the time of each read, not of all reads together. A server that sends one byte a second would hold
a thread for hours. The classes here limit the sum. Only the DNS look-up is not limited.

Most queries hold a secret: the AppSecret, a code or an access token. Sentry exports the URL that is given to
http.client. So that URL has no query. The connection adds it to the request line.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, cast
from urllib.parse import SplitResult, unquote, urlsplit

import requests
from requests.adapters import BaseAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util import wait_for_read
from urllib3.util.ssl_ import create_urllib3_context

from ..errors import WeChatUnreachable
from ..models import Secret

#: Seconds to connect to one address, and again for the TLS handshake.
CONNECT_TIMEOUT: Final = 1.0
#: Bytes of a whole answer: an image of 512 KiB, and 64 KiB for headers and chunk sizes.
MAX_TRAFFIC: Final = 576 * 1024
PORTS: Final = {"http": 80, "https": 443}


class DeadlineAdapter(BaseAdapter):
    """An adapter of `requests` for one host. It keeps about `pool_size` idle connections at most.

    `proxy` is the URL of an HTTP proxy. It opens a tunnel for https, and forwards requests of plain http.
    """

    def __init__(self, pool_size: int, proxy: Secret | None) -> None:
        super().__init__()
        self._pool_size = pool_size
        self._proxy = proxy
        self._idle: deque[_Connection] = deque()
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None

    def send(self, request: requests.PreparedRequest, *_: Any, timeout: Any = None, **__: Any) -> requests.Response:
        """Return the response, with its body still to be read. `timeout` is in seconds, for all of it.

        Raises OSError or http.client.HTTPException, or WeChatUnreachable if an error comes through a proxy that
        forwards requests: it is the proxy's, because WeChat answers 200 to everything.
        """
        deadline = time.monotonic() + timeout
        connection = self._idle_connection() or self._new_connection(urlsplit(str(request.url)))
        try:
            raw = connection.exchange(request, deadline)
            if connection.is_forwarded and raw.status != requests.codes.ok:
                raise WeChatUnreachable(f"proxy_{raw.status}")
        except BaseException as error:
            connection.close()
            if connection.is_forwarded and isinstance(error, ConnectionError):
                raise requests.exceptions.ProxyError("the proxy gave no answer") from error
            raise
        raw.on_release = partial(self._release, connection)
        response = requests.Response()
        response.status_code, response.headers, response.raw = raw.status, raw.headers, raw  # type: ignore[assignment]
        return response

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    __del__ = close

    def _idle_connection(self) -> _Connection | None:
        """Return a connection that the server has not closed."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if connection.is_usable():
                return connection
            connection.close()
        return None

    def _release(self, connection: _Connection, is_usable: bool) -> None:
        if is_usable and len(self._idle) < self._pool_size:
            self._idle.append(connection)
        else:
            connection.close()

    def _new_connection(self, url: SplitResult) -> _Connection:
        """Return a connection to the host of `url`, or to the proxy. It connects at its first request."""
        host = str(url.hostname), url.port or PORTS[url.scheme]
        proxy = urlsplit(self._proxy.reveal()) if self._proxy else None
        place = (str(proxy.hostname), proxy.port or PORTS["http"]) if proxy else host
        secure = url.scheme == "https"
        connection = _TLSConnection(*place, context=self._tls_context()) if secure else _Connection(*place)
        if proxy:
            connection.go_through_proxy(host if secure else None, _credentials(proxy))
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        """Return the context of all connections: it takes 30 ms to make."""
        with self._lock:
            self._tls = self._tls or tls_context()
            return self._tls


def tls_context() -> ssl.SSLContext:
    """Return a context that trusts the authorities of certifi, and those of SSL_CERT_FILE."""
    # Stricter than ssl.create_default_context: it takes no name from a certificate's CN.
    context = create_urllib3_context()
    context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    if file := os.environ.get("SSL_CERT_FILE"):
        context.load_verify_locations(file)
    return context


def seconds_until(deadline: float) -> float:
    """Return the seconds until a `time.monotonic()` value. Raises TimeoutError if it has passed."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("the deadline has passed")
    return seconds


class _BoundedReader(io.RawIOBase):
    """Reads one answer before a deadline, MAX_TRAFFIC bytes at most.

    Faults: an answer of one byte a second, in the headers or in the body; headers of 6 MiB, which http.client allows.
    """

    def __init__(self, sock: socket.socket, raw: io.RawIOBase, deadline: float) -> None:
        super().__init__()
        self._sock = sock
        self._raw = raw
        self._deadline = deadline
        self._bytes_left = MAX_TRAFFIC

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._bytes_left <= 0:
            raise OSError("the answer is too large")
        self._sock.settimeout(seconds_until(self._deadline))
        count: int = self._raw.readinto(buffer) or 0
        self._bytes_left -= count
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """http.client's response, read through a _BoundedReader. It gives its connection back as `requests` expects."""

    #: Called once, when the response is closed, with whether its connection can take the next request.
    on_release: Callable[[bool], None] | None = None

    def __init__(self, sock: socket.socket, *args: Any, deadline: float, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_BoundedReader(sock, self.fp.detach(), deadline))
        self._is_read = False

    def read(self, amt: int | None = None) -> bytes:
        """Return at most `amt` bytes. Raises HTTPException if the body is too short, or if its end is not certain."""
        if self.headers.defects or len(self.headers.get_all("Content-Length", [])) > 1:
            raise http.client.HTTPException("the headers are malformed")
        body = super().read(amt)
        if self.length and (amt is None or len(body) < amt):
            raise http.client.IncompleteRead(b"", self.length)
        self._is_read = self.isclosed()
        return body

    def release_conn(self) -> None:
        """Give the connection back. `requests` calls it."""
        release, self.on_release = self.on_release, None
        if release:
            release(self._is_read and not self.will_close)


class _Connection(http.client.HTTPConnection):
    """http.client's connection, with a deadline for each request."""

    #: Whether a proxy forwards the requests.
    is_forwarded = False
    _proxy_headers: Mapping[str, str] = {}
    #: http.client sets it.
    _tunnel_host: str | None

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._create_connection: Any = _connect
        self._query = ""
        self._deadline = 0.0

    def go_through_proxy(self, host: tuple[str, int] | None, headers: Mapping[str, str]) -> None:
        """Use a tunnel to `host`. Without `host` the proxy forwards the requests."""
        self._create_connection = _connect_to_proxy
        if host:
            self.set_tunnel(*host, headers)
        else:
            self.is_forwarded, self._proxy_headers = True, headers

    def exchange(self, request: requests.PreparedRequest, deadline: float) -> _Response:
        """Send a request, and return the response with its headers. `deadline` is a `time.monotonic()` value."""
        self._deadline = deadline
        self.response_class = partial(_Response, deadline=deadline)  # type: ignore[assignment]
        if not self.sock:
            self.timeout = seconds_until(deadline)
            self.connect()
        self.sock.settimeout(seconds_until(deadline))
        # No variable holds the query: tools that report errors show variables.
        url, _, self._query = str(request.url).partition("?")
        # A proxy needs the whole URL, a server the path.
        target = url if self.is_forwarded else f"/{url.split('/', 3)[3]}"
        self.request(str(request.method), target, request.body, {**request.headers, **self._proxy_headers})
        self._query = ""
        return cast(_Response, self.getresponse())

    def _encode_request(self, request: str) -> bytes:
        """Return the request line with the query. Tools that watch http.client have seen it without."""
        method, target, version = request.split(" ")
        return f"{method} {target}{'?' if self._query else ''}{self._query} {version}".encode("ascii")

    def is_usable(self) -> bool:
        """Whether it is open and silent. A server that sends something before the next request is out of step."""
        pending = isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()
        return bool(self.sock) and not pending and not wait_for_read(self.sock, 0)


class _TLSConnection(_Connection):
    """The same over TLS."""

    default_port = PORTS["https"]

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(host, port)
        self._context = context

    def connect(self) -> None:
        """Connect, through a tunnel if there is one, and do the TLS handshake."""
        super().connect()
        self.sock.settimeout(min(CONNECT_TIMEOUT, seconds_until(self._deadline)))
        self.sock = self._context.wrap_socket(self.sock, server_hostname=self._tunnel_host or self.host)


def _connect(address: tuple[str, int], timeout: float, _source_address: object = None) -> socket.socket:
    """Connect to the first address of the host that answers, within `timeout` seconds. http.client calls it.

    Fault: a firewall that drops packets. The standard library waits the full time for each address.
    """
    deadline = time.monotonic() + timeout
    failure: OSError = OSError("the host has no address")
    for *_, found in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        try:
            place = str(found[0]), address[1]
            return socket.create_connection(place, min(CONNECT_TIMEOUT, seconds_until(deadline)))
        except OSError as error:
            failure = error
    raise failure


def _connect_to_proxy(*args: Any) -> socket.socket:
    try:
        return _connect(*args)
    except TimeoutError:
        raise
    except OSError as error:
        raise requests.exceptions.ProxyError("the proxy is not there") from error


def _credentials(proxy: SplitResult) -> dict[str, str]:
    """Return the header with the credentials of a proxy's URL, where they are percent-encoded."""
    login = f"{unquote(proxy.username or '')}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {b64encode(login).decode()}"} if proxy.username else {}
