"""How an answer is handed to the server: what is at hand already goes as a list, and so in one piece.

Flask hands over an iterator each time. Granian takes that for a stream, and for each part gives the interpreter up
and waits for it with every other thread. Werkzeug also copies all headers and looks for what to mend in them, which
takes longer than the whole guard; most answers need none of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from wsgiref.types import WSGIEnvironment

from flask import Response
from werkzeug.datastructures import Headers

#: Werkzeug turns what these say into URLs.
LOCATIONS: Final = frozenset(("location", "content-location"))


class WholeResponse(Response):
    """Flask's own, but for what the server gets: a list, unless it is a stream or has somebody to tell of its end."""

    def get_wsgi_response(self, environ: WSGIEnvironment) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        # A list has no `close`, so nobody would be told.
        if type(self.response) is not list or self._on_close:
            return super().get_wsgi_response(environ)
        if self._is_settled(environ["REQUEST_METHOD"]):
            return list(self.iter_encoded()), self.status, list(self.headers)
        parts, status, headers = super().get_wsgi_response(environ)
        return list(parts), status, headers

    def _is_settled(self, method: str) -> bool:
        """Whether Werkzeug would find nothing to mend: an ordinary answer of known length that leads nowhere else."""
        if self.status_code != 200 or method == "HEAD" or type(self.headers) is not Headers:
            return False
        names = {name.lower() for name, _ in self.headers}
        return "content-length" in names and names.isdisjoint(LOCATIONS)


def whole(response: Response) -> Response:
    """`response`, made one that is handed over so. Heirs of Flask's class may do more at their end, and stay."""
    if type(response) is Response:
        response.__class__ = WholeResponse
    return response
