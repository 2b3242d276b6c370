"""The nouns of this house: a secret, a user, an identity. Plain values; nothing is computed or sent here."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import NoReturn


class Secret:
    """A text that can't be printed, formatted, pickled or compared by accident; `reveal` is the only way in."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself. Call it where it is used, and keep no second copy."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not to be pickled")


@dataclass(frozen=True, slots=True)
class User:
    """One person in one mini program. An openid means nothing without its appid."""

    appid: str
    openid: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """What WeChat answers for a code: who it is, and the key that seals this user's data."""

    user: User
    session_key: Secret
    unionid: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class PhoneNumber:
    """A user's phone number, as WeChat tells it. It goes to whoever asked, and is kept nowhere."""

    #: With the country's code where that is not China's.
    number: str = field(repr=False)
    pure_number: str = field(repr=False)
    country_code: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """A user's newest session_key, since when (Unix seconds), and the one before. WeChat keeps one for each user."""

    newest: Secret
    since: int
    previous: Secret | None = None
