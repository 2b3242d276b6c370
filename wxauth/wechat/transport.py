"""The door to `requests`: one GET or POST to WeChat within a deadline. Knows bytes and time, not what they mean.

`requests` bounds each read, not their sum, so a server that drips a byte a second holds its caller for ever. Here
every read on the socket is given what is left of the one deadline. Only the look-up of the host's name is outside it.
"""

from __future__ import annotations

import http.cookiejar
import io
import json
import logging
import socket
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from ..errors import WeChatUnreachable
from ..logs import HidesQueries
from ..models import Secret

CONNECT_TIMEOUT: Final = 1.0
MAX_ANSWER: Final = 64 * 1024
#: With headers, chunk sizes and whatever else a server may send.
MAX_TRAFFIC: Final = 2 * MAX_ANSWER
PIECE: Final = 8 * 1024
POOL_SIZE: Final = 64

Fields = Mapping[str, str | bool | Secret]

_deadline: ContextVar[float] = ContextVar("wxauth_deadline")

for name in ("urllib3.connection", "urllib3.connectionpool", "urllib3.util.retry"):
    logging.getLogger(name).addFilter(HidesQueries())


class Transport:
    """A pool of connections to one host. No redirects, no cookies, no `.netrc`, no proxy out of the environment."""

    def __init__(self, base_url: str, adapter: BaseAdapter | None = None) -> None:
        self._base_url = base_url
        self._session = _Session()
        self._session.trust_env = False
        self._session.headers.update({"Accept-Encoding": "identity", "User-Agent": "wxauth"})
        self._session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, adapter or DeadlineAdapter(pool_maxsize=POOL_SIZE))

    def get(self, path: str, query: Fields, deadline: float) -> bytes:
        """The body of a 200 answer of at most 64 KiB, before `deadline` (a `time.monotonic()` value).

        Raises WeChatUnreachable for everything else.
        """
        return self._ask("GET", path, query, None, deadline)

    def post(self, path: str, query: Fields, body: Fields, deadline: float) -> bytes:
        """As `get`, with `body` sent as JSON. Like a GET it is sent once."""
        return self._ask("POST", path, query, json.dumps(_revealed(body)).encode(), deadline)

    def _ask(self, method: str, path: str, query: Fields, body: bytes | None, deadline: float) -> bytes:
        try:
            return self._exchange(method, path, query, body, deadline)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            reason = _cause(error)
        # Out here, so that the error has no __context__: the text of every connection error holds the whole URL.
        raise WeChatUnreachable(reason)

    def _exchange(self, method: str, path: str, query: Fields, body: bytes | None, deadline: float) -> bytes:
        _deadline.set(deadline)
        remaining = max(deadline - time.monotonic(), 0.001)
        with self._session.request(
            method,
            self._base_url + path,
            params=_revealed(query),
            data=body,
            headers={"Content-Type": "application/json"} if body is not None else None,
            timeout=(min(CONNECT_TIMEOUT, remaining), remaining),
            allow_redirects=False,
            stream=True,
        ) as response:
            if response.status_code != requests.codes.ok:
                raise WeChatUnreachable(f"http_{response.status_code}")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise WeChatUnreachable("encoded")
            return _bounded(response.raw)


def _revealed(fields: Fields) -> dict[str, Any]:
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in fields.items()}


def _bounded(raw: urllib3.HTTPResponse) -> bytes:
    body = b""
    for piece in raw.stream(PIECE, decode_content=False):
        body += piece
        if len(body) > MAX_ANSWER:
            raise WeChatUnreachable("too_large")
    if raw.length_remaining:
        raise WeChatUnreachable("cut_off")
    return body


def _cause(error: Exception) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "tls"
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return "timeout"
    return "connection"


class _Session(requests.Session):
    """Even where no redirect is followed, requests reads its body and works out where it leads to."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class _DeadlineReader(io.RawIOBase):
    """Reads one answer from a socket, and allows each read only what is left of the deadline and of MAX_TRAFFIC."""

    def __init__(self, sock: Any) -> None:
        super().__init__()
        self._sock = sock
        # The socket stays open as long as this stream of its own does, even where http.client closes it early.
        self._raw = sock.makefile("rb", buffering=0)
        self._left = MAX_TRAFFIC

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._left <= 0:
            raise OSError("this is more than an answer")
        self._sock.settimeout(_time_left())
        count: int = self._raw.readinto(buffer) or 0
        self._left -= count
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineSocket:
    """A socket whose stream keeps the deadline; in all else the socket itself."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineReader(self._sock))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _PlainConnection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _connected(self)

    def connect(self) -> None:
        super().connect()
        self.sock = _DeadlineSocket(self.sock)


class _TLSConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _connected(self)

    def connect(self) -> None:
        super().connect()
        self.sock = _DeadlineSocket(self.sock)


def _connected(connection: HTTPConnection) -> socket.socket:
    """A socket to the first address of the host that answers; urllib3 would give each of them the full time."""
    failure: OSError = OSError("the host has no address")
    for *_, address in socket.getaddrinfo(connection.host, connection.port, type=socket.SOCK_STREAM):
        try:
            sock = socket.create_connection((str(address[0]), connection.port), min(CONNECT_TIMEOUT, _time_left()))
        except OSError as error:
            failure = error
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(min(CONNECT_TIMEOUT, _time_left()))
            return sock
    if isinstance(failure, TimeoutError):
        raise urllib3.exceptions.ConnectTimeoutError(connection, "no address answered in time")
    raise urllib3.exceptions.NewConnectionError(connection, "no address answered")


def _time_left() -> float:
    """What is left of the deadline, or TimeoutError."""
    remaining = _deadline.get() - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("the deadline has passed")
    return remaining


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class DeadlineAdapter(HTTPAdapter):
    """requests' own adapter, over connections that keep the deadline."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TLSPool}
