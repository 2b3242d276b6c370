"""One GET or POST to WeChat within a deadline. Handles bytes and time; `answers` handles their meaning.

The requests go straight to an adapter of `requests`, without a Session: so there are no redirects, no cookies,
no `.netrc` and no proxy of the environment (each can send the AppSecret to a second host).

`requests` limits the time of each read, not of all reads together. A server that sends one byte a second would hold
a thread for hours. The classes at the end of this module limit the sum. Only the DNS look-up is not limited.
"""

from __future__ import annotations

import http.client
import io
import json
import logging
import socket
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.connection import create_connection

from ..errors import WeChatUnreachable
from ..logs import hide_queries
from ..models import Secret

#: Seconds to connect to one address, and again for the TLS handshake.
CONNECT_TIMEOUT: Final = 1.0
#: Bytes of a body, and of a whole answer with its headers and chunk sizes.
MAX_ANSWER: Final = 64 * 1024
MAX_IMAGE: Final = 512 * 1024
MAX_TRAFFIC: Final = MAX_IMAGE + MAX_ANSWER
HEADERS: Final = CaseInsensitiveDict({"Accept-Encoding": "identity", "User-Agent": "wxauth"})

Fields = Mapping[str, str | bool | Secret]

# At DEBUG these loggers write the query, which holds the AppSecret.
for name in ("urllib3.connection", "urllib3.connectionpool", "urllib3.util.retry"):
    logging.getLogger(name).addFilter(hide_queries)


class Request(NamedTuple):
    """A GET, or a POST with `body` as JSON. The answer has at most `max_answer` bytes."""

    path: str
    query: Fields
    body: Fields | None = None
    max_answer: int = MAX_ANSWER


class Transport:
    """A pool of connections to one host. Safe to share between threads.

    `adapter` replaces the network: the sandbox and the tests pass a fake WeChat. `pool_size` is the number of idle
    connections that are kept.
    """

    def __init__(self, base_url: str, adapter: BaseAdapter | None = None, pool_size: int = 10) -> None:
        self._base_url = base_url
        self._replacement = adapter
        self._pool_size = pool_size
        self.reset()

    def reset(self) -> None:
        """Forget the connections. A forked process must not use those of its parent."""
        self._adapter = self._replacement or DeadlineAdapter(pool_connections=1, pool_maxsize=self._pool_size)

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
    if isinstance(error, requests.exceptions.SSLError):
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


class _PlainConnection(HTTPConnection):
    response_class = _BoundedResponse
    _new_conn = _connect


class _TLSConnection(HTTPSConnection):
    response_class = _BoundedResponse
    _new_conn = _connect


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class DeadlineAdapter(HTTPAdapter):
    """The adapter of `requests`, with connections that keep the deadline."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        self._pool: Any = None
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TLSPool}

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Return the pool. There is only one: all requests go to the same host."""
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(*args, **kwargs)
        return self._pool

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """Return path and query. There is no proxy, which would need more."""
        return request.path_url

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """Return the response without cookies and charset. They are not used."""
        response = requests.Response()
        response.status_code, response.headers, response.raw = resp.status, resp.headers, resp
        response.request = req
        return response
