"""`python -m benchmarks.hit TOKEN`: `/verify` and the decorator's path taken apart, within one process, no server.

What a server adds is the contender "nothing but Granian". To be run by `layers`, which sets the environment.
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import sys
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from flask import Flask, Response
from werkzeug.test import EnvironBuilder

from benchmarks.contenders.bare import app as bare
from benchmarks.contenders.decorator import app as decorated
from tests.servers import wait_until
from wxauth import Settings
from wxauth.web import guard
from wxauth.web.app import create_app

#: Short slices and many of them: on a busy machine, too, one will have been left alone.
CALLS: Final = 20
REPEATS: Final = 1500
PROFILED: Final = 5000
MOST_FUNCTIONS: Final = 16

Call = Callable[[], object]


def microseconds(call: Call) -> float:
    """What a call takes when nothing comes between: the best of some repeats."""
    return min(timeit.repeat(call, timer=time.thread_time, number=CALLS, repeat=REPEATS)) / CALLS * 1e6


def request(app: Flask, path: str, header: str) -> Call:
    """A call of `app` as a server makes it."""
    environ = EnvironBuilder(path, headers=[("Authorization", header)]).get_environ()

    def answer() -> None:
        # A server makes the mapping anew for each request, and Werkzeug keeps things in it.
        parts = app.wsgi_app(dict(environ), lambda status, headers, error=None: len)
        for _ in parts:
            pass
        if hasattr(parts, "close"):
            parts.close()

    return answer


def hit(app: Flask, token: str) -> Call:
    """A call of resolve that is answered from the cache."""
    cache = app.extensions["wxauth"].cache

    def is_at_hand() -> bool:
        cache.resolve(token)
        return token in cache._kept

    wait_until(is_at_hand, "the session is at hand")
    return lambda: cache.resolve(token)


def verify(token: str, header: str) -> dict[str, float]:
    service = create_app(Settings.from_env(os.environ))
    parts = {
        "the token out of the header": microseconds(lambda: guard.token_from_header(header)),
        "`resolve`, from the cache": microseconds(hit(service, token)),
    }
    whole = microseconds(request(service, "/verify", header))
    return parts | {"the headers of the answer, and the rest": whole - sum(parts.values()), "in all": whole}


def decorator(token: str, header: str) -> dict[str, float]:
    resolve = hit(decorated, token)
    with decorated.test_request_context("/me", headers={"Authorization": header}):
        parts = {
            "bare Flask, the same view": microseconds(request(bare, "/me", header)),
            "the token out of the request": microseconds(guard.bearer_token),
            "`resolve`, from the cache": microseconds(resolve),
            "the finish of the answer": microseconds(lambda: guard._finish(Response())) - microseconds(Response),
        }
    whole = microseconds(request(decorated, "/me", header))
    return parts | {"proxies and hooks, less what the answer saves": whole - sum(parts.values()), "in all": whole}


def functions(call: Call) -> dict[str, float]:
    """Those that take most of `call` themselves, by cProfile, scaled to what the call takes without it."""
    profile = cProfile.Profile()
    profile.runcall(timeit.timeit, call, number=PROFILED)
    stats: Any = pstats.Stats(profile)
    own: dict[tuple[str, int, str], float] = {key: row[2] for key, row in stats.stats.items()}
    scale = microseconds(call) / sum(own.values())
    longest = sorted(own, key=lambda key: own[key], reverse=True)[:MOST_FUNCTIONS]
    return {_named(key): own[key] * scale for key in longest}


def _named(key: tuple[str, int, str]) -> str:
    path, _, name = key
    return name if path == "~" else f"{'/'.join(Path(path).parts[-2:])} {name}"


if __name__ == "__main__":
    presented = f"Bearer {sys.argv[1]}"
    found = {"verify": verify(sys.argv[1], presented), "decorator": decorator(sys.argv[1], presented)}
    found["functions"] = functions(request(decorated, "/me", presented))
    print(json.dumps(found))
