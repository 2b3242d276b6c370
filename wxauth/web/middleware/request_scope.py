"""The scope of a request: what holds for all of them, also for those that are answered before Flask."""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from ...logs import current_environ
from ..tracing import hide_path


class RequestScope:
    """Makes the request known to logs and tracers, and sends the answer in one chunk."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        before = current_environ.set(environ)
        # For the answers of the other middleware. A route of the application replaces it.
        hide_path(environ)
        try:
            answer = self._app(environ, start_response)
            return answer if isinstance(answer, list) else _complete(answer)
        finally:
            current_environ.reset(before)


def _complete(answer: Iterable[bytes]) -> list[bytes]:
    """Return the answer in one chunk. Hypercorn answers 500 if there is none, as in a 204 or for HEAD."""
    try:
        return [b"".join(answer)]
    finally:
        if close := getattr(answer, "close", None):
            close()
