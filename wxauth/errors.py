"""Everything that can go wrong, drawn once. No HTTP here: `problems` says how each error looks from outside.

    WxAuthError
    ├── ConfigurationError          faults: what the operator must mend before the first request
    ├── StoreUnavailable            reason, hint: the store can't be asked (never to be read as "absent")
    ├── CredentialError
    │   ├── TokenMissing            nothing was presented
    │   ├── TokenInvalid            malformed, forged, unknown, expired or revoked: one answer for all
    │   ├── LoginTooOld             max_age: the route asked for a fresher login
    │   └── ClientUnauthorized      a backend's own credential
    ├── RequestError                detail
    │   ├── BadRequest
    │   ├── TooLarge
    │   ├── UnsupportedMediaType
    │   └── SessionNotFound         no such session among the user's own
    ├── RateLimited                 retry_after, amount, window: too many requests from one address, or of one user
    ├── UserBanned                  banned here
    └── WeChatError                 errcode, rid
        ├── CodeInvalid             40029
        │   └── PhoneCodeInvalid    the same, said of the code of the phone button
        ├── CodeUsed                40163
        ├── UserBlocked             40226
        ├── WeChatRateLimited       45011
        ├── SessionKeyStale         87007, 87009, or data that is sealed under no session_key held here
        ├── AccessTokenRefused      40001, 40014, 42001: the access token, not the request
        ├── WeChatBusy              -1, or too many calls waiting already
        ├── WeChatMisconfigured     hint, address: the operator's matter
        └── WeChatUnreachable       reason: no answer, or one that is not WeChat's

No message holds a secret, a token, a code or an openid, so every error may be logged.
"""

from __future__ import annotations

from collections.abc import Sequence


class WxAuthError(Exception):
    """The root: `except WxAuthError` catches whatever this package raises on purpose."""


class ConfigurationError(WxAuthError):
    """The configuration has faults; all of them are listed, not only the first."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(["wxauth can't start; mend these first:", *(f"  - {fault}" for fault in faults)]))
        self.errors = tuple(faults)


class StoreUnavailable(WxAuthError):
    """Redis is down, slow, full, read-only or loading: nothing is known about any session."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(f"the session store can't be asked: {reason}")
        self.reason = reason
        self.hint = hint


class CredentialError(WxAuthError):
    """The caller has not shown who it is."""


class TokenMissing(CredentialError):
    """The request carries no token."""


class TokenInvalid(CredentialError):
    """The token is no live session's. Why it isn't, is nobody's business but ours."""


class LoginTooOld(CredentialError):
    """The session is alive, but its login is more than `max_age` seconds old (RFC 9470)."""

    def __init__(self, max_age: int) -> None:
        super().__init__(f"the login is older than {max_age} seconds")
        self.max_age = max_age


class ClientUnauthorized(CredentialError):
    """A backend's own id and secret are missing or wrong."""


class RequestError(WxAuthError):
    """The request can't be carried out as it stands; `detail` tells its sender why."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadRequest(RequestError):
    """The request is not of the form that the contract asks for."""


class TooLarge(RequestError):
    """The body has more bytes than are read."""


class UnsupportedMediaType(RequestError):
    """The body is in a form that this service does not read."""


class SessionNotFound(RequestError):
    """The user has no live session of that id."""


class RateLimited(WxAuthError):
    """More than `amount` requests in `window` seconds from one `source`, "address" or "user".

    It is worth trying again in `retry_after` seconds.
    """

    def __init__(self, retry_after: int, amount: int, window: int, source: str = "address") -> None:
        super().__init__(f"more than {amount} requests in {window} seconds")
        self.retry_after = retry_after
        self.amount = amount
        self.window = window
        self.source = source


class UserBanned(WxAuthError):
    """The operator has banned this user."""


class WeChatError(WxAuthError):
    """WeChat answered with an errcode that has no entry of its own.

    `errcode` is WeChat's number, `rid` its request id for a support case; both may be absent.
    """

    def __init__(self, errcode: int | None = None, rid: str | None = None) -> None:
        super().__init__(f"WeChat answered {errcode}" if errcode is not None else type(self).__name__)
        self.errcode = errcode
        self.rid = rid


class CodeInvalid(WeChatError):
    """40029: WeChat does not know the code."""


class PhoneCodeInvalid(CodeInvalid):
    """40029: WeChat does not know the phone code, or it is another user's."""


class CodeUsed(WeChatError):
    """40163: the code was exchanged before."""


class UserBlocked(WeChatError):
    """40226: WeChat holds the user for high-risk."""


class WeChatRateLimited(WeChatError):
    """45011: the user logged in too often within this minute."""


class SessionKeyStale(WeChatError):
    """The session_key held here is not WeChat's (any more): 87007, 87009, or data that it does not open."""


class AccessTokenRefused(WeChatError):
    """40001, 40014, 42001: WeChat does not take the access token. The request itself was not looked at."""


class WeChatBusy(WeChatError):
    """-1 after all tries, or too many calls are waiting already."""


class WeChatMisconfigured(WeChatError):
    """AppID, secret, IP list or quota: only the operator can mend it, and `hint` says how.

    `address` is this server's own as WeChat saw it, where it was that which WeChat refused.
    """

    def __init__(self, errcode: int, rid: str | None, hint: str, address: str | None = None) -> None:
        super().__init__(errcode, rid)
        self.hint = hint
        self.address = address


class WeChatUnreachable(WeChatError):
    """No answer within the deadline, or one that can't be WeChat's; `reason` is one word."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason
