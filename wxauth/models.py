"""Plain values that all folders share: Secret, User, Identity, PhoneNumber, SessionKeys."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import NoReturn


class Secret:
    """A text that cannot be printed, formatted or pickled. Only `reveal` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text. Call this where the text is used, and do not keep a copy."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")

    def __html__(self) -> NoReturn:
        """Refuse Flask's JSON and templates, which call this."""
        raise TypeError("a Secret is in no answer: write .reveal() for a text that must be, such as a new token")


@dataclass(frozen=True, slots=True)
class User:
    """One person in one mini program. An openid is unique only together with its appid."""

    appid: str
    openid: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """WeChat's answer to a code: the user, and the key that encrypts the user's data."""

    user: User
    session_key: Secret
    unionid: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class PhoneNumber:
    """A user's phone number in WeChat's form. It is in the answer to the request only, and never stored."""

    #: With the country code, except for numbers of China.
    number: str = field(repr=False)
    pure_number: str = field(repr=False)
    country_code: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """A user's newest session_key, since when it is known (Unix seconds), and the previous one."""

    newest: Secret
    since: int
    previous: Secret | None = None
