"""How an answer is handed to the server: what is at hand already goes as a list, and so in one piece.

Flask hands over an iterator each time. Granian takes that for a stream, and for each part gives the interpreter up
and waits for it with every other thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from flask import Response


class WholeResponse(Response):
    """Flask's own, but for what the server gets: a list, unless it is a stream or has somebody to tell of its end."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        parts = super().__call__(environ, start_response)
        # A list has no `close`, so nobody would be told.
        return list(parts) if type(self.response) is list and not self._on_close else parts


def whole(response: Response) -> Response:
    """`response`, made one that is handed over so. Heirs of Flask's class may do more at their end, and stay."""
    if type(response) is Response:
        response.__class__ = WholeResponse
    return response
