"""The service that the clients talk to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.support.clients import BACKEND, CLIENT_SECRET
from tests.support.servers import RedisServer
from tests.support.service import Service, WeChatServer, environment


@dataclass
class Running:
    """The service and the fake WeChat behind it."""

    url: str
    wechat: WeChatServer


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """One worker: a logout holds in it at once."""
    with ExitStack() as stack:
        redis, wechat = stack.enter_context(RedisServer()), stack.enter_context(WeChatServer())
        more = {"WXAUTH_CLIENTS": f"{BACKEND}:{CLIENT_SECRET}", "WEB_CONCURRENCY": "1"}
        yield Running(stack.enter_context(Service(environment(redis.url, wechat.url, **more))).url, wechat)
