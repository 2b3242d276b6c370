"""How an application's answers leave it: in one piece where they are at hand, private where they are for one user."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, Response

from .logs import answering

FOR_ONE_USER: Final = "wxauth.for_one_user"
NO_STORE: Final = ("Cache-Control", "no-store")

Headers = list[tuple[str, str]]


class WholeResponse(Response):
    """Flask's own, but for what the server gets: a list, unless it is a stream or somebody waits for its end.

    Flask hands over an iterator each time. Granian takes that for a stream, and for each part gives the interpreter
    up and waits for it with every other thread.
    """

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        parts = super().__call__(environ, start_response)
        # A list has no `close`, so nobody would be told.
        return list(parts) if self.is_sequence and not self._on_close else parts


def hand_over_whole(app: Flask) -> None:
    """From now on `app` answers so; one that has a class of its own for its answers keeps it."""
    if app.response_class is Response:
        app.response_class = WholeResponse


def made_for_one_user() -> None:
    """Nobody may keep the answer that this thread is making, whatever it will be, for another user."""
    environ = answering.get()
    if environ is not None:
        environ[FOR_ONE_USER] = True


def keeping_private(app: WSGIApplication) -> WSGIApplication:
    """`app`, with `no-store` and `Vary` where the answer was made for one user.

    Not one of Flask's hooks: they cost more than the check, and a later one might say something else.
    """

    def private(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: Headers, *error: Any) -> Any:
            return start_response(status, _private(headers) if FOR_ONE_USER in environ else headers, *error)

        return app(environ, start)

    return private


def _private(headers: Headers) -> Headers:
    kept, varies = [], ["Authorization"]
    for line in headers:
        name = line[0].lower()
        if name == "vary":
            varies.append(line[1])
        elif name != "cache-control":
            kept.append(line)
    return [*kept, NO_STORE, ("Vary", ", ".join(varies))]
