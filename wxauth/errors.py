"""Every error that this package raises. Each class owns its HTTP status, problem code and action.

    WxAuthError
    ├── ConfigurationError          errors: all mistakes in the configuration
    ├── StoreUnavailable            reason, hint: Redis gave no usable answer. It never means "no such session"
    ├── ServerBusy                  too many slow request bodies, or logins at the same time
    ├── CredentialError
    │   ├── TokenMissing            the request has no token
    │   ├── TokenInvalid            malformed, forged, unknown or expired, or ended by its own holder
    │   │   ├── SessionReplaced     the user logged in elsewhere, and the limit ended the session
    │   │   ├── SessionRevoked      ended from another device, or by the operator
    │   │   └── SessionBanned       ended by a ban
    │   ├── LoginTooOld             the route asks for a fresher login
    │   ├── InsufficientScope       the session, or the client, is of a kind that may not do this
    │   │   └── CrossSiteRequest    a page of another site used the client's credential in the browser
    │   └── ClientUnauthorized      a client's id or secret is missing or wrong
    ├── RequestError                detail
    │   ├── BadRequest
    │   │   └── ConflictingClients  the credentials of two clients in one request
    │   ├── NotFound
    │   │   ├── SessionNotFound     the user has no such session
    │   │   └── DeviceCodeNotFound  unknown or expired
    │   │       └── DeviceCodeAnswered
    │   ├── MethodNotAllowed
    │   ├── TooLarge
    │   └── UnsupportedMediaType
    ├── OAuthError                  RFC 6749 and 8628: the answers of the token endpoint
    │   ├── AuthorizationPending    no phone has answered yet
    │   ├── SlowDown                the client polls too often
    │   ├── AccessDenied            the user has denied it, or is banned
    │   ├── ExpiredToken            the device_code has expired
    │   ├── InvalidGrant            the device_code is unknown, used, or of another client
    │   └── UnsupportedGrantType
    ├── RateLimited                 retry_after, source: too many requests of one address or user
    ├── UserBanned                  banned by the operator; SessionBanned is one too
    └── WeChatError                 errcode, rid
        ├── CodeInvalid             40029
        │   ├── PhoneCodeInvalid    40029 for the code of the phone button
        │   └── TicketInvalid       a ticket that is unknown, used or expired
        ├── CodeUsed                40163
        ├── UserBlocked             40226
        ├── WeChatRateLimited       45011
        ├── SessionKeyStale         87007, 87009, or user data that no kept session_key opens
        ├── AccessTokenRefused      40001, 40014, 42001: about the access token, not about the request
        ├── WeChatBusy              -1, or too many calls to WeChat in flight
        ├── WeChatMisconfigured     hint, address: only the operator can fix it
        └── WeChatUnreachable       reason: no answer, or an answer that is not WeChat's

No message contains a secret, a token, a code or an openid, so every error may be logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

REALM: Final = 'realm="wxauth"'


class WxAuthError(Exception):
    """The base class of all errors of this package. Its own code and status stand for a bug.

    `action` tells the client what to do: `login`, `ask` (the user, and log in if the user wants it), `retry` or
    `none`. `challenge` is the value of WWW-Authenticate, `retry_after` the seconds of Retry-After. `oauth_error` is
    the code of RFC 6749 for OAuth clients.
    """

    code: str = "internal_error"
    status: int = 500
    action: str = "none"
    detail: str = "The reason is in the log of the service."
    oauth_error: str | None = None
    challenge: str | None = None
    retry_after: int | None = None
    more_headers: tuple[tuple[str, str], ...] = ()

    def headers(self) -> list[tuple[str, str]]:
        """Return the headers that this error adds to its answer."""
        found = {"WWW-Authenticate": self.challenge, "Retry-After": self.retry_after}
        return [*((name, str(value)) for name, value in found.items() if value is not None), *self.more_headers]


class ConfigurationError(WxAuthError):
    """The configuration has mistakes. `errors` lists all of them, each with its variable and the fix."""

    def __init__(self, errors: Sequence[str]) -> None:
        lines = ["wxauth cannot start. Fix these errors first:", *(f"  - {error}" for error in errors)]
        super().__init__("\n".join(lines))
        self.errors = tuple(errors)


class StoreUnavailable(WxAuthError):
    """Redis is down, slow, full, read-only or loading. Nothing is known about any session."""

    code, status, action = "store_unavailable", 503, "retry"
    detail = "It is not known whether the session is live. Try again."
    retry_after = 1

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(f"the session store cannot be reached: {reason}")
        self.reason = reason
        self.hint = hint


class ServerBusy(WxAuthError):
    """Too many request bodies arrive slowly, too many logins wait for Redis, or no user_code is free."""

    code, status, action = "server_busy", 503, "retry"
    detail = "Too many requests arrive at the same time. Try again."
    retry_after = 1


class CredentialError(WxAuthError):
    """The caller did not prove its identity."""


class TokenMissing(CredentialError):
    """The request has no token."""

    code, status, action = "token_missing", 401, "login"
    detail = "Send the token of a login in the header Authorization: Bearer <token>."
    challenge = f"Bearer {REALM}"


class TokenInvalid(CredentialError):
    """The token belongs to no live session. Its subclasses say who ended the session."""

    code, status, action = "token_invalid", 401, "login"
    detail = "The token belongs to no live session. Log in again."
    challenge: str | None = f'Bearer {REALM}, error="invalid_token"'


class SessionReplaced(TokenInvalid):
    """The user logged in elsewhere, and the limit of sessions ended this one, the oldest."""

    code, action = "session_replaced", "ask"
    detail = "This account has logged in on another device. Ask the user before the next login."


class SessionRevoked(TokenInvalid):
    """The session was ended from another device or by the operator."""

    code, action = "session_revoked", "ask"
    detail = "This session was ended from elsewhere. Ask the user before the next login."


class UserBanned(WxAuthError):
    """The operator banned this user."""

    code, status = "user_banned", 403
    detail = "This account may not log in here."


class SessionBanned(UserBanned, TokenInvalid):
    """The session was ended by a ban."""

    action = "none"
    challenge: str | None = None


class LoginTooOld(CredentialError):
    """The session is live, but its login is more than `max_age` seconds old (RFC 9470)."""

    code, status, action = "login_too_old", 401, "login"
    detail = "The login is too old for this request. Log in again."
    challenge = f'Bearer {REALM}, error="insufficient_user_authentication"'

    def __init__(self, max_age: int) -> None:
        super().__init__(f"the login is older than {max_age} seconds")
        self.challenge = f'{type(self).challenge}, max_age="{max_age}"'


class InsufficientScope(CredentialError):
    """The credential is good, but a session or a client of this kind may not do this (RFC 6750)."""

    code, status = "insufficient_scope", 403
    detail = "A session or a client of this kind may not do this."
    challenge = f'Bearer {REALM}, error="insufficient_scope"'


class CrossSiteRequest(InsufficientScope):
    """A page of another site made a browser send the request with a client's credential (CSRF)."""

    detail = "A page of another site may not use this credential."


class ClientUnauthorized(CredentialError):
    """A client's id or secret is missing or wrong."""

    code, status = "client_unauthorized", 401
    detail = "Send the id and the secret of a configured client by HTTP Basic, or as client_id and client_secret."
    oauth_error = "invalid_client"
    challenge = f"Basic {REALM}"


class RequestError(WxAuthError):
    """The request is wrong. `detail` tells the caller how."""

    detail = "The request does not have the required form."

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or self.detail
        super().__init__(self.detail)


class BadRequest(RequestError):
    """The request does not have the form that the contract requires."""

    code, status = "bad_request", 400


class ConflictingClients(BadRequest):
    """HTTP Basic and the form, or two fields of the form, name different clients."""

    detail = "Send the credential of one client."
    oauth_error = "invalid_request"


class NotFound(RequestError):
    """The address does not exist."""

    code, status = "not_found", 404
    detail = "This address does not exist."


class SessionNotFound(NotFound):
    """The user has no live session with this id."""


class DeviceCodeNotFound(NotFound):
    """No website waits with this user_code: it is unknown or has expired, or is for another app."""

    detail = "This code does not exist, has expired, or was answered."


class DeviceCodeAnswered(DeviceCodeNotFound):
    """A phone has approved or denied this user_code. The caller is not told the difference."""


class MethodNotAllowed(RequestError):
    """The address exists, but not with this method."""

    code, status = "method_not_allowed", 405
    detail = "This address exists, but it does not support the method."


class TooLarge(RequestError):
    """The body has more bytes than the service reads."""

    code, status = "too_large", 413
    detail = "A body may have at most 16 KiB."


class UnsupportedMediaType(RequestError):
    """The body has a type that the service does not read."""

    code, status = "unsupported_media_type", 415


class OAuthError(WxAuthError):
    """An error of the token endpoint, as RFC 6749 (5.2) and RFC 8628 (3.5) name it."""

    status = 400


class AuthorizationPending(OAuthError):
    """The user has not answered yet."""

    code = oauth_error = "authorization_pending"
    detail = "The user has not answered yet. Poll again."


class SlowDown(OAuthError):
    """The client polls too often. The interval is 5 seconds longer from now on."""

    code = oauth_error = "slow_down"
    detail = "Wait 5 seconds longer between two requests from now on."


class AccessDenied(OAuthError):
    """The user has denied the login, or may not log in."""

    code = oauth_error = "access_denied"
    detail = "The user has denied the login."


class ExpiredToken(OAuthError):
    """The device_code has expired."""

    code = oauth_error = "expired_token"
    detail = "The device_code has expired. Ask for a new one."


class InvalidGrant(OAuthError):
    """The device_code is unknown or used, or belongs to another client."""

    code = oauth_error = "invalid_grant"
    detail = "The device_code is unknown or used, or belongs to another client."


class UnsupportedGrantType(OAuthError):
    """The grant type is not the one of RFC 8628."""

    code = oauth_error = "unsupported_grant_type"
    detail = "The grant_type must be urn:ietf:params:oauth:grant-type:device_code."


class RateLimited(WxAuthError):
    """More than `amount` requests in `window` seconds from one `source`: "address", "user", or "service" for all.

    `retry_after` is the number of seconds until the window ends. The headers are those of the IETF draft "RateLimit
    header fields for HTTP".
    """

    code, status, action = "rate_limited", 429, "retry"
    detail = "Wait for the number of seconds in Retry-After, then try again."

    def __init__(self, retry_after: int, amount: int, window: int, source: str = "address") -> None:
        super().__init__(f"more than {amount} requests in {window} seconds")
        self.retry_after = retry_after
        self.source = source
        policy, state = f'"{source}";q={amount};w={window}', f'"{source}";r=0;t={retry_after}'
        self.more_headers = (("RateLimit-Policy", policy), ("RateLimit", state))


class WeChatError(WxAuthError):
    """WeChat answered with an errcode that has no class of its own.

    `errcode` is WeChat's number, `rid` its request id for a support case. Both may be None.
    """

    code, status = "wechat_error", 502

    def __init__(self, errcode: int | None = None, rid: str | None = None) -> None:
        super().__init__(f"WeChat answered {errcode}" if errcode is not None else type(self).__name__)
        self.errcode = errcode
        self.rid = rid


class CodeInvalid(WeChatError):
    """40029: WeChat does not know the code."""

    code, status, action = "code_invalid", 400, "login"
    detail = "A code is valid for five minutes and one AppID. A phone code or a mock code of DevTools is not valid."


class PhoneCodeInvalid(CodeInvalid):
    """40029: WeChat does not know the phone code, or it belongs to another user."""

    detail = "A phone code is valid once, for five minutes, for its own user. Let the user tap the button again."


class TicketInvalid(CodeInvalid):
    """A ticket is unknown, used or expired, or the session that asked for it has ended."""

    detail = "The ticket is unknown, used or expired. Ask the mini program for a new one."


class CodeUsed(WeChatError):
    """40163: the code was exchanged before."""

    code, status, action = "code_used", 400, "login"
    detail = "A code can be used once. Call wx.login again."


class UserBlocked(WeChatError):
    """40226: WeChat rates the user as high-risk."""

    code, status = "user_blocked", 403
    detail = "WeChat rates this account as high-risk."


class WeChatRateLimited(WeChatError):
    """45011: the user logged in too often within this minute."""

    code, status, action = RateLimited.code, RateLimited.status, RateLimited.action
    detail = RateLimited.detail
    retry_after = 60


class SessionKeyStale(WeChatError):
    """The kept session_key is not WeChat's current one: 87007, 87009, or user data that it does not open."""

    code, status, action = "session_key_stale", 409, "login"
    detail = "The data belongs to another session_key. Log in again, then get the data again."


class AccessTokenRefused(WeChatError):
    """40001, 40014, 42001: WeChat refuses the access token. It did not look at the request itself."""


class WeChatBusy(WeChatError):
    """-1 after all retries, or too many calls to WeChat in flight."""

    code, status, action = "wechat_busy", 503, "retry"
    detail = "WeChat has too many requests. Try again."
    retry_after = 1


class WeChatMisconfigured(WeChatError):
    """AppID, secret, IP list or quota: only the operator can fix it, and `hint` says how.

    `address` is this server's IP address as WeChat saw it, if WeChat refused the address.
    """

    code, status = "wechat_misconfigured", 503
    retry_after = 60

    def __init__(self, errcode: int, rid: str | None, hint: str, address: str | None = None) -> None:
        super().__init__(errcode, rid)
        self.hint = hint
        self.address = address


class WeChatUnreachable(WeChatError):
    """No answer within the deadline, or an answer that is not WeChat's. `reason` is one word."""

    code, status, action = "wechat_unreachable", 503, "retry"
    detail = "WeChat did not answer. Try again."
    retry_after = 2

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason
