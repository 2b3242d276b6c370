"""Fake users with values as long as WeChat's. `node/users.js` makes the same users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

APPID: Final = "wxbenchmark0123456"
#: The signing key of all contenders.
SECRET: Final = "a-secret-of-the-benchmarks-0123456789"  # noqa: S105 - used by the benchmark only


@dataclass(frozen=True, slots=True)
class FakeUser:
    appid: str
    openid: str
    unionid: str
    session_key: str


def fake_user(number: int | str) -> FakeUser:
    return FakeUser(APPID, f"oBENCH{number:0>22}", f"uBENCH{number:0>22}", f"{number:0>21}A==")
