"""A buffer for slow request bodies.

Neither Granian nor gunicorn has a timeout for request bodies, and a body that does not arrive blocks a thread. So
bodies are read before the application is called, in at most an eighth of the worker's threads and at most
MAX_PER_ADDRESS at a time for one address. Requests without a body, such as checks, never wait. The application
answers what was refused, so that the answer has its headers and its form.
"""

from __future__ import annotations

import io
import logging
import queue
import threading
from collections.abc import Iterable, Mapping
from typing import Final
from weakref import WeakValueDictionary
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug.wsgi import get_content_length

from ...errors import ServerBusy
from ...settings import Client
from ..requests import MAX_BODY, client_network, find_client

log = logging.getLogger(__name__)

#: Elsewhere, whether a body is exempt would show whether a guessed secret is right, without a count.
CLIENT_PATHS: Final = ("/introspect", "/revoke", "/users/", "/device_authorization", "/token")
#: In the WSGI environment of a request whose body was not read. The application has to answer ServerBusy.
REFUSED: Final = "wxauth.too_many_bodies"
MAX_PER_ADDRESS: Final = 4
#: Seconds that a request waits for other bodies. In a storm, bodies that came with their headers take less.
MAX_WAIT: Final = 0.5
TOO_MANY_BODIES: Final = "put a proxy in front that reads request bodies first, or raise WXAUTH_THREADS"


class Semaphore:
    """Like `threading.Semaphore`, in a sixth of the time: each login takes three of them.

    FairSemaphore would refuse logins in a storm: all of them would wait for the one thread whose turn it is.
    """

    def __init__(self, value: int) -> None:
        self._free = queue.SimpleQueue[None]()
        for _ in range(value):
            self.release()

    def acquire(self, timeout: float) -> bool:
        """Return False if that is not possible within `timeout` seconds."""
        try:
            self._free.get(timeout=timeout)
        except queue.Empty:
            return False
        return True

    def release(self) -> None:
        """Make it free for any thread."""
        self._free.put(None)


class BodyBuffer:
    """Reads each request body before it calls `app`, and gives `app` nothing else to read.

    Requests with a body hold at most 7/8 of the `threads`, from the body to the answer. So threads remain for checks,
    also while these requests wait for Redis or WeChat. Within that an eighth reads, and at most half of the threads
    wait for other bodies of the same address. The next request is REFUSED. Those of `clients` are not counted: a
    backend sends many at the same time, all from one address.
    """

    def __init__(self, app: WSGIApplication, threads: int, clients: Mapping[str, Client]) -> None:
        self._app = app
        self._clients = clients
        self._requests = Semaphore(max(threads * 7 // 8, 1))
        self._readers = Semaphore(max(threads // 8, 2 * MAX_PER_ADDRESS))
        self._waiting = Semaphore(max(threads // 2, 1))
        self._lock = threading.Lock()
        #: An address is in here while one of its bodies is read.
        self._addresses: WeakValueDictionary[str, Semaphore] = WeakValueDictionary()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        size = _size_to_read(environ)
        if not size:
            return self._pass(environ, start_response, b"")
        try:
            if self._is_for_clients(environ):
                return self._pass(environ, start_response, _read(environ, size))
            _acquire(self._requests, 0)
            try:
                return self._pass(environ, start_response, self._read_in_turn(environ, size))
            finally:
                self._requests.release()
        except ServerBusy:
            log.warning("too_many_bodies", extra={"hint": TOO_MANY_BODIES})
            environ[REFUSED] = True
            return self._pass(environ, start_response, b"")

    def _pass(self, environ: WSGIEnvironment, start_response: StartResponse, body: bytes) -> Iterable[bytes]:
        environ["wsgi.input"] = io.BytesIO(body)
        environ["wsgi.input_terminated"] = True
        if environ.pop("HTTP_TRANSFER_ENCODING", None) is not None:
            # Flask refuses a body that is too large by its length.
            environ["CONTENT_LENGTH"] = str(len(body))
        return self._app(environ, start_response)

    def _is_for_clients(self, environ: WSGIEnvironment) -> bool:
        is_for_clients = environ["PATH_INFO"].startswith(CLIENT_PATHS)
        return is_for_clients and bool(find_client(environ.get("HTTP_AUTHORIZATION", ""), self._clients))

    def _read_in_turn(self, environ: WSGIEnvironment, size: int) -> bytes:
        """Read the body, one of a few of its address. Raises ServerBusy."""
        quota = self._quota(client_network(environ.get("REMOTE_ADDR", "")))
        if not quota.acquire(0):
            self._wait_for(quota)
        try:
            _acquire(self._readers, MAX_WAIT)
            try:
                return _read(environ, size)
            finally:
                self._readers.release()
        finally:
            quota.release()

    def _quota(self, address: str) -> Semaphore:
        with self._lock:
            return self._addresses.setdefault(address, Semaphore(MAX_PER_ADDRESS))

    def _wait_for(self, quota: Semaphore) -> None:
        """Wait for other bodies of the same address. Raises ServerBusy."""
        # So one address can use only a part of the threads.
        _acquire(self._waiting, 0)
        try:
            _acquire(quota, MAX_WAIT)
        finally:
            self._waiting.release()


def _acquire(semaphore: Semaphore, seconds: float) -> None:
    if not semaphore.acquire(seconds):
        raise ServerBusy


def _read(environ: WSGIEnvironment, size: int) -> bytes:
    return bytes(environ["wsgi.input"].read(size))


def _size_to_read(environ: WSGIEnvironment) -> int:
    """Return the announced length, MAX_BODY + 1 for a chunked body, or 0 if Flask refuses the length."""
    if "HTTP_TRANSFER_ENCODING" in environ:
        return MAX_BODY + 1
    length = get_content_length(environ) or 0
    return length if length <= MAX_BODY else 0
