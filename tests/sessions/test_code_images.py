"""The image of a user_code: fetched once by all workers, known by its first bytes, kept for the life of the code."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
import redis
import requests
import urllib3

from tests.conftest import APP_SECRET, APPID, KINDS
from tests.support.scans import ask, outcome
from wxauth.clock import Clock
from wxauth.keys import KeyRing
from wxauth.models import Secret
from wxauth.sandbox.fake_wechat import FakeWeChat
from wxauth.sessions.code_images import CodeImages
from wxauth.sessions.device_codes import LIFE, DeviceCodes
from wxauth.storage.client import RedisClient
from wxauth.wechat.access_tokens import AccessTokens
from wxauth.wechat.client import WeChatClient
from wxauth.wechat.transport import MAX_IMAGE, Transport

kinds = tuple(KINDS)
PATH = "/wxa/getwxacodeunlimit"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 200
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(1000)
#: WeChat's errcodes for this interface (`wechat.md`, section 9), and the error for each.
ERRCODES = {
    -1: "WeChatBusy",
    45011: "WeChatRateLimited",
    40097: "WeChatError",
    40129: "WeChatError",
    40169: "WeChatError",
    47001: "WeChatMisconfigured",
    85096: "WeChatError",
    41030: "WeChatMisconfigured",
    45009: "WeChatMisconfigured",
    48001: "WeChatMisconfigured",
}


class Drawing(FakeWeChat):
    """Answers the interface of images with `image`, and notes the bodies that it was asked with."""

    def __init__(self) -> None:
        super().__init__({APPID: Secret(APP_SECRET)})
        self.image: bytes | dict[str, Any] = PNG
        self.mimetype = "image/jpeg"
        self.seconds = 0.0
        self.asked: list[dict[str, Any]] = []

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        if PATH not in (request.url or "") or self._next_errors:
            return super().send(request, *args, **kwargs)
        self.asked.append(json.loads(request.body or b""))
        time.sleep(self.seconds)
        body = self.image if isinstance(self.image, bytes) else json.dumps(self.image).encode()
        raw = urllib3.HTTPResponse(
            io.BytesIO(body), {"Content-Type": self.mimetype}, status=200, preload_content=False
        )
        return self.build_response(request, raw)


@pytest.fixture
def drawing() -> Drawing:
    return Drawing()


@pytest.fixture
def worker(
    redis_client: RedisClient, codes: DeviceCodes, ring: KeyRing, drawing: Drawing, clock: Clock
) -> Callable[..., CodeImages]:
    """Return a function that makes workers, which share one Redis and one WeChat."""

    def make(page: str = "", timeout: float = 4.0) -> CodeImages:
        apps = {APPID: Secret(APP_SECRET)}
        wechat = WeChatClient(apps, Transport("https://api.weixin.qq.com", drawing), timeout, 100)
        return CodeImages(redis_client, codes, AccessTokens(redis_client, ring, wechat, clock), wechat, page)

    return make


@pytest.fixture
def images(worker: Callable[..., CodeImages]) -> CodeImages:
    return worker()


@pytest.mark.parametrize("image", [PNG, JPEG], ids=["PNG", "JPEG"])
@pytest.mark.parametrize("mimetype", ["image/jpeg", "image/png", "application/json", "text/plain"])
def test_image_is_known_by_its_first_bytes_under_any_content_type(
    codes: DeviceCodes, images: CodeImages, drawing: Drawing, image: bytes, mimetype: str
) -> None:
    drawing.image, drawing.mimetype = image, mimetype
    assert images.get(ask(codes, APPID)[1]) == image


def test_scene_is_the_user_code_and_the_page_is_that_of_the_settings(
    codes: DeviceCodes, worker: Callable[..., CodeImages], drawing: Drawing
) -> None:
    """Without a page WeChat opens the first one of the mini program."""
    first, second = ask(codes, APPID)[1], ask(codes, APPID)[1]
    worker("pages/scan/index").get(first)
    worker().get(second)
    assert drawing.asked == [{"scene": first, "page": "pages/scan/index"}, {"scene": second}]


def test_image_is_fetched_once_by_all_workers(
    codes: DeviceCodes, worker: Callable[..., CodeImages], drawing: Drawing
) -> None:
    user_code, drawing.seconds = ask(codes, APPID)[1], 0.2
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(worker().get(user_code))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [PNG] * 5
    assert worker().get(user_code) == PNG
    assert len(drawing.asked) == 1


def test_image_is_kept_no_longer_than_its_code(
    codes: DeviceCodes, images: CodeImages, raw_redis: redis.Redis, clock: Clock
) -> None:
    _, user_code = ask(codes, APPID)
    clock.advance(LIFE - 20)
    images.get(user_code)
    assert 0 < int(raw_redis.ttl(f"{codes.name_of(user_code)}:i")) <= 20
    clock.advance(21)
    assert outcome(lambda: images.get(user_code)) == "DeviceCodeNotFound"


def test_image_of_an_unknown_code_asks_nothing_of_wechat(images: CodeImages, drawing: Drawing) -> None:
    assert outcome(lambda: images.get("BCDFGHJK")) == "DeviceCodeNotFound"
    assert drawing.asked == []


def test_redis_holds_no_lock_after_the_fetch(codes: DeviceCodes, images: CodeImages, raw_redis: redis.Redis) -> None:
    _, user_code = ask(codes, APPID)
    images.get(user_code)
    name = codes.name_of(user_code)
    held = {key.decode() for key in cast(list[bytes], raw_redis.keys("wxa:d:*"))}
    assert held == {name, f"{name}:i"}


@pytest.mark.parametrize("mimetype", ["image/jpeg", "application/json", "text/plain"])
@pytest.mark.parametrize(("errcode", "error"), ERRCODES.items())
def test_errcode_under_any_content_type_is_that_error(
    codes: DeviceCodes, images: CodeImages, drawing: Drawing, errcode: int, error: str, mimetype: str
) -> None:
    """Nothing is kept: the next GET asks again."""
    _, user_code = ask(codes, APPID)
    drawing.image, drawing.mimetype = {"errcode": errcode, "errmsg": "x"}, mimetype
    assert outcome(lambda: images.get(user_code)) == error
    drawing.image = PNG
    assert images.get(user_code) == PNG


def test_refused_access_token_is_replaced(codes: DeviceCodes, images: CodeImages, drawing: Drawing) -> None:
    images.get(ask(codes, APPID)[1])
    drawing.fail_next(40001)
    assert images.get(ask(codes, APPID)[1]) == PNG


NO_IMAGES: dict[str, bytes] = {
    "empty": b"",
    "HTML": b"<html>502</html>",
    "GIF": b"GIF89a" + bytes(100),
    "a list": b"[]",
    "JSON without an errcode": b'{"errcode": 0}',
    "half of a signature": PNG[:7],
    "too large": PNG[:8] + bytes(MAX_IMAGE),
}


@pytest.mark.parametrize("body", NO_IMAGES.values(), ids=NO_IMAGES.keys())
def test_answer_that_is_no_image_is_not_of_wechat_and_is_not_kept(
    codes: DeviceCodes, images: CodeImages, drawing: Drawing, body: bytes
) -> None:
    _, user_code = ask(codes, APPID)
    drawing.image = body
    assert outcome(lambda: images.get(user_code)) == "WeChatUnreachable"
    drawing.image = PNG
    assert images.get(user_code) == PNG


def test_image_of_400_kilobytes_is_accepted(codes: DeviceCodes, images: CodeImages, drawing: Drawing) -> None:
    drawing.image = PNG[:8] + bytes(400 * 1024)
    assert images.get(ask(codes, APPID)[1]) == drawing.image


def test_worker_that_waits_longer_than_the_timeout_says_that_wechat_is_busy(
    codes: DeviceCodes, worker: Callable[..., CodeImages], drawing: Drawing
) -> None:
    _, user_code = ask(codes, APPID)
    worker().get(ask(codes, APPID)[1])  # the access token is there
    drawing.seconds = 1.5
    first = threading.Thread(target=lambda: worker().get(user_code))
    first.start()
    time.sleep(0.3)
    assert outcome(lambda: worker(timeout=0.4).get(user_code)) == "WeChatBusy"
    first.join()
    assert len(drawing.asked) == 2
