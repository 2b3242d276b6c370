"""How the answers of guarded views are handed to the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from flask import Flask, Response, after_this_request
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Response as WerkzeugsResponse

from wxauth import WxAuth, login_required
from wxauth.models import Identity
from wxauth.sessions.store import SessionStore
from wxauth.settings import Settings
from wxauth.web.responses import whole

#: What a server gets to send for the answer of a view.
Answer = Callable[..., Any]


@pytest.fixture
def answer(settings: Settings, store: SessionStore, alice: Identity) -> Answer:
    shop = Flask("shop")
    WxAuth(shop, settings, store=store)
    token = store.create(alice)[0].reveal()

    def answer(view: Callable[[], Any], method: str = "GET", authorization: str = token) -> Iterable[bytes]:
        shop.get("/", endpoint="view")(login_required(view))
        environ = EnvironBuilder(method=method, headers=[("Authorization", authorization)]).get_environ()
        return shop.wsgi_app(environ, lambda status, headers, error=None: lambda part: None)

    return answer


@pytest.mark.parametrize(
    ("view", "body"),
    [
        (lambda: {"a": "b"}, b'{"a":"b"}\n'),
        (lambda: Response(["in ", "parts"]), b"in parts"),
        (lambda: ("", 204), b""),
    ],
    ids=["json", "parts", "nothing"],
)
def test_what_is_at_hand_is_handed_over_whole(answer: Answer, view: Callable[[], Any], body: bytes) -> None:
    """A server that streams what is no list does not do so here."""
    found = answer(view)
    assert isinstance(found, list)
    assert b"".join(found) == body


def test_problems_are_handed_over_whole(answer: Answer) -> None:
    """Also where the view is not called."""
    found = answer(lambda: "ok", authorization="nobody's")
    assert isinstance(found, list)
    assert b"token_invalid" in b"".join(found)


def test_head_has_no_body(answer: Answer) -> None:
    """A list that is empty, as HTTP asks for."""
    assert answer(lambda: "ok", "HEAD") == []


def test_a_stream_stays_one(answer: Answer) -> None:
    """Its parts are made when the server asks for them, one by one."""
    produced = []

    def stream() -> Iterator[str]:
        for part in ("one", "two"):
            produced.append(part)
            yield part

    parts = iter(answer(stream))
    assert (next(parts), produced) == (b"one", ["one"])


def test_who_waits_for_the_end_of_an_answer_is_told_by_the_server(answer: Answer) -> None:
    """A list has no `close`, so such an answer is none."""
    told = []

    def waited_for() -> str:
        @after_this_request
        def wait(response: Response) -> Response:
            response.call_on_close(lambda: told.append("closed"))
            return response

        return "ok"

    found = answer(waited_for)
    assert told == []
    found.close()
    assert told == ["closed"]


class Closes(Response):
    """Somebody's own, who has to be told of the end."""

    closed = False

    def close(self) -> None:
        self.closed = True


class Lazy(list[str]):
    """Likewise, within an answer of Flask's."""

    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_heir_of_flasks_stays_what_it_is(answer: Answer, method: str) -> None:
    """What it does at its end is done."""
    made = Closes("own")
    answer(lambda: made, method).close()
    assert (type(made), made.closed) == (Closes, True)


def test_a_body_that_has_to_be_closed_is(answer: Answer) -> None:
    """It may look like a list."""
    body = Lazy(["part"])
    answer(lambda: Response(body)).close()
    assert body.closed


HEADERS: dict[str, Any] = {
    "none of its own": {},
    "a length of its own": {"content-length": "99"},
    "a path to go to": {"location": "/há?a=ß"},
    "a place": {"Content-Location": "/há"},
    "several": [("X-A", "1"), ("x-a", "2"), ("Set-Cookie", "a=b"), ("Content-Encoding", "x")],
}
BODIES: dict[str, Callable[[], Any]] = {
    "text": lambda: "Grüße",
    "nothing": lambda: "",
    "a list": lambda: ["Grü", b"\xc3\x9f", "e"],
    "a tuple": lambda: ("a", b"b"),
    "a stream": lambda: iter(["a", b"b"]),
}


def received(response: Response, method: str = "GET") -> tuple[Any, ...]:
    """Status, headers and body."""
    started: list[Any] = []

    def start_response(*given: Any) -> Callable[[bytes], object]:
        started.append(given)
        return started.append

    parts = response(EnvironBuilder("/shop/há", method=method).get_environ(), start_response)
    return *started, b"".join(parts)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("status", [103, 200, 204, 206, 304, 404])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_client_gets_what_werkzeug_would_give_it(
    method: str, status: int, headers: Any, body: Callable[[], Any]
) -> None:
    """Byte by byte. Should a later Werkzeug mend more than this one, it is noticed here."""
    ours, werkzeugs = (Response(body(), status, headers) for _ in range(2))
    assert received(whole(ours), method) == received(werkzeugs, method)


@pytest.mark.parametrize("headers", [{"A": "b"}, {"Content-Length": "2"}, [("Content-Length", "2")]], ids=str)
def test_headers_may_have_been_put_in_place_of_werkzeugs(headers: Any) -> None:
    """By a hook; Werkzeug makes its own of them."""
    ours, werkzeugs = whole(Response("ok")), Response("ok")
    ours.headers = werkzeugs.headers = headers
    assert received(ours) == received(werkzeugs)


def test_what_the_server_does_to_its_headers_is_not_done_to_the_answer() -> None:
    response = whole(Response("ok"))
    _, _, headers = response.get_wsgi_response(EnvironBuilder().get_environ())
    headers.append(("X-Of-A-Middleware", "1"))
    assert "X-Of-A-Middleware" not in response.headers


def test_werkzeug_is_not_asked_to_mend_what_needs_no_mending(monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask it takes longer than all that the guard does."""
    monkeypatch.delattr(WerkzeugsResponse, "get_wsgi_headers")
    (status, _), body = received(whole(Response("ok")))
    assert (status, body) == ("200 OK", b"ok")
    with pytest.raises(AttributeError, match="get_wsgi_headers"):
        received(Response("ok"))
