"""How an application's answers are handed to the server: what is at hand already goes as a list, and in one piece.

Flask hands over an iterator each time. Granian takes that for a stream, and for each part gives the interpreter up
and waits for it with every other thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from flask import Flask, Response
from werkzeug.wrappers import Response as BaseResponse


class WholeResponse(Response):
    """Flask's own, but for what the server gets: a list, unless it is a stream or somebody waits for its end."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        parts = super().__call__(environ, start_response)
        # A list has no `close`, so nobody would be told; an heir may have one of its own.
        return list(parts) if self.is_sequence and not self._on_close and type(self) is WholeResponse else parts

    @classmethod
    def force_type(cls, response: BaseResponse, environ: WSGIEnvironment | None = None) -> BaseResponse:
        """Heirs of Flask's class stay what they are, as where that is the application's own."""
        if isinstance(response, Response) and type(response) is not Response:
            return response
        return super().force_type(response, environ)


def hand_over_whole(app: Flask) -> None:
    """From now on `app` answers so; one that has a class of its own for its answers keeps it."""
    if app.response_class is Response:
        app.response_class = WholeResponse
