"""Made-up users, with all that WeChat gives for one, as long as the real thing. `node/identity.js` is its twin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

APPID: Final = "wxbenchmark0123456"
#: For whatever a contender signs with.
SECRET: Final = "a-secret-of-the-benchmarks-0123456789"  # noqa: S105 - it opens nothing


@dataclass(frozen=True, slots=True)
class Visitor:
    appid: str
    openid: str
    unionid: str
    session_key: str


def visitor(number: int | str) -> Visitor:
    return Visitor(APPID, f"oBENCH{number:0>22}", f"uBENCH{number:0>22}", f"{number:0>21}A==")
