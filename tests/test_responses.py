"""How an application's answers are handed to the server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from flask import Flask, Response, after_this_request
from werkzeug.test import EnvironBuilder

from wxauth import WxAuth
from wxauth.errors import TokenMissing
from wxauth.sessions import SessionStore
from wxauth.settings import Settings

Closing = list[str]


@pytest.fixture
def closed() -> Closing:
    """What was told that the answer has been sent."""
    return []


@pytest.fixture
def produced() -> list[str]:
    """The parts that the stream has been asked for."""
    return []


@pytest.fixture
def shop(settings: Settings, store: SessionStore, closed: Closing, produced: list[str]) -> Flask:
    shop = Flask("shop")
    WxAuth(shop, settings, store=store)

    shop.get("/json", endpoint="json")(lambda: {"a": "b"})
    shop.get("/own", endpoint="own")(lambda: Response(["in ", "parts"]))
    shop.get("/empty", endpoint="empty")(lambda: ("", 204))

    @shop.get("/problem")
    def problem() -> str:
        raise TokenMissing

    @shop.get("/stream")
    def stream() -> Iterator[str]:
        for part in ("one", "two"):
            produced.append(part)
            yield part

    @shop.get("/waited-for")
    def waited_for() -> str:
        @after_this_request
        def wait(response: Response) -> Response:
            response.call_on_close(lambda: closed.append("waited-for"))
            return response

        return "ok"

    return shop


def answer(app: Flask, path: str, method: str = "GET") -> Iterable[bytes]:
    """What a server gets to send."""

    def start(status: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
        return None

    return app.wsgi_app(EnvironBuilder(path, method=method).get_environ(), start)


@pytest.mark.parametrize(
    ("path", "body"),
    [("/json", b'{"a":"b"}\n'), ("/own", b"in parts"), ("/empty", b"")],
    ids=["json", "own", "empty"],
)
def test_what_is_at_hand_is_handed_over_whole(shop: Flask, path: str, body: bytes) -> None:
    """A server that streams what is no list does not do so here."""
    found = answer(shop, path)
    assert isinstance(found, list)
    assert b"".join(found) == body


def test_problems_are_handed_over_whole(shop: Flask) -> None:
    """They are answers like others."""
    found = answer(shop, "/problem")
    assert isinstance(found, list)
    assert b"token_missing" in b"".join(found)


def test_head_has_no_body(shop: Flask) -> None:
    """A list that is empty, as HTTP asks for."""
    assert answer(shop, "/json", "HEAD") == []


def test_a_stream_stays_one(shop: Flask, produced: list[str]) -> None:
    """Its parts are made when the server asks for them, one by one."""
    parts = iter(answer(shop, "/stream"))
    assert (next(parts), produced) == (b"one", ["one"])


def test_who_waits_for_the_end_of_an_answer_is_told_by_the_server(shop: Flask, closed: Closing) -> None:
    """A list has no `close`, so such an answer is none."""
    found = answer(shop, "/waited-for")
    assert closed == []
    found.close()  # type: ignore[attr-defined]  # what PEP 3333 asks a server to call
    assert closed == ["waited-for"]


class Closes(Response):
    """Somebody's own, who has to be told of the end."""

    def close(self) -> None:
        self.headers["X-Closed"] = "yes"
        super().close()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_heir_of_flasks_stays_what_it_is(shop: Flask, method: str) -> None:
    """A view may return one, and what it does at its end is done."""
    made = Closes("own")
    shop.get("/heir", endpoint="heir")(lambda: made)
    answer(shop, "/heir", method).close()  # type: ignore[attr-defined]  # likewise
    assert (type(made), made.headers["X-Closed"]) == (Closes, "yes")


def test_an_heir_of_the_applications_class_is_closed_too(shop: Flask) -> None:
    """Whoever takes `app.response_class` for a base may close as well."""
    heir = type("Heir", (Closes, shop.response_class), {})
    made = heir("own")
    shop.get("/heir", endpoint="heir")(lambda: made)
    answer(shop, "/heir").close()  # type: ignore[attr-defined]  # likewise
    assert made.headers["X-Closed"] == "yes"


def test_an_application_keeps_a_class_of_its_own(settings: Settings, store: SessionStore) -> None:
    """Whoever has chosen how answers are made is not overruled."""

    class Own(Response):
        pass

    class Shop(Flask):
        response_class = Own

    shop = Shop("shop")
    WxAuth(shop, settings, store=store)
    assert shop.response_class is Own
