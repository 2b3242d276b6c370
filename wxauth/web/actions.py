"""What an application does with sessions: log in, log out, ban. Each method acts for the current application."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from blinker import NamedSignal
from flask import current_app

from ..errors import BadRequest, InsufficientScope, WxAuthError
from ..metrics import LOGINS
from ..models import PhoneNumber, Secret, User
from ..sessions.store import WxSession
from .requests import label
from .services import services

#: Seconds that a login waits for its turn at Redis: before its code is used, and after that. A refusal after that
#: costs the user a new code.
TURN_WAIT: Final = 1.0
TURN_WAIT_AFTER_CODE: Final = 2.0

#: Sent by the application after a login, with `session`.
logged_in = NamedSignal("wxauth-logged-in")
#: Sent by the application after a logout, ban or purge, with `user`. Not if the limit or the time ended a session.
logged_out = NamedSignal("wxauth-logged-out")


class Actions:
    """The methods need Flask's application context, which every request has."""

    def log_in(
        self, code: str, appid: str | None = None, device: str | None = None, replacing: WxSession | None = None
    ) -> tuple[Secret, WxSession]:
        """Exchange the code of `wx.login`. Return the token for the client, and its session.

        `appid` may be None if one app is configured. `device` is any text: see `label`. The login ends the session
        `replacing`. Counts against WXAUTH_LOGIN_RATE of the address. Raises BadRequest, RateLimited, UserBanned,
        WeChatError, ServerBusy or StoreUnavailable.
        """
        current = services()
        with _counting_failed_logins():
            current.check_caller()
            with current.login_turn(TURN_WAIT):
                current.rate_limits.check_login()
            identity = current.wechat.exchange(self.known_appid(appid), code)
            with current.login_turn(TURN_WAIT_AFTER_CODE, is_code_used=True):
                token, session = current.store.create(identity, label(device), replacing)
        _report_login(session, replacing)
        return token, session

    def ticket(self, session: WxSession) -> Secret:
        """Return a ticket, for a page in a `<web-view>`: it works once, for 60 seconds.

        Raises InsufficientScope if the session is not from wx.login, TokenInvalid if it has just ended.
        """
        require_login_session(session)
        return services().tickets.issue(session)

    def log_in_with_ticket(
        self, ticket: str, device: str | None = None, replacing: WxSession | None = None
    ) -> tuple[Secret, WxSession]:
        """Return a token for a ticket, and its session, which ends with the session that asked for the ticket.

        Counts against WXAUTH_LOGIN_RATE. Raises TicketInvalid, UserBanned, RateLimited, ServerBusy or
        StoreUnavailable.
        """
        current = services()
        with _counting_failed_logins():
            current.check_caller()
            with current.login_turn(TURN_WAIT):
                current.rate_limits.check_login()
                token, session = current.tickets.redeem(ticket, label(device), replacing)
        _report_login(session, replacing)
        return token, session

    def log_in_by_scan(self, device_code: str, client_id: str) -> tuple[Secret, WxSession]:
        """Return the token that a user has granted to a device_code, and its session. Raises OAuthError."""
        token, session = services().device_codes.poll(device_code, client_id)
        _report_login(session, None)
        return token, session

    def phone_number(self, session: WxSession, code: str) -> PhoneNumber:
        """Return the phone number for a code of the phone button. WeChat bills each success.

        Counts against WXAUTH_LOGIN_RATE of the address and WXAUTH_PHONE_RATE of the user. Raises PhoneCodeInvalid if
        another user tapped the button, RateLimited, WeChatError or StoreUnavailable.
        """
        services().rate_limits.check_phone(session.user)
        return services().user_api.phone_number(session.user, code)

    def check_session_key(self, session: WxSession) -> None:
        """Return if WeChat accepts `session.session_key`. Raises SessionKeyStale, WeChatError or StoreUnavailable."""
        services().user_api.check_session_key(session.user)

    def reset_session_key(self, session: WxSession) -> None:
        """Replace the user's session_key at WeChat and here.

        Raises SessionKeyStale if the key kept here is not WeChat's, WeChatError or StoreUnavailable.
        """
        services().user_api.reset_session_key(session.user)

    def log_out(self, session: WxSession) -> None:
        """End this session, for its holder. Like all methods below, raises StoreUnavailable."""
        self._end(session.user, services().store.revoke, session)

    def revoke(self, session: WxSession) -> None:
        """End this session, for the operator. Its token raises SessionRevoked from now on."""
        self._end(session.user, services().store.revoke, session, "revoked")

    def log_out_one(self, session: WxSession, id: str) -> None:
        """End the session `id` of the same user. Raises SessionNotFound."""
        self._end(session.user, services().store.end, session.user, id, session.id)

    def log_out_everywhere(self, session: WxSession, *, keep_current: bool = False) -> None:
        """End all sessions of the user, or all but this one."""
        if keep_current:
            self._end(session.user, services().store.end_others, session)
        else:
            self._end(session.user, services().store.end_all, session.user, "everywhere", session.id)

    def log_out_user(self, user: User) -> None:
        """End all sessions of a user."""
        self._end(user, services().store.end_all, user)

    def end_session(self, user: User, id: str) -> None:
        """End the session `id` of a user, for the operator. Raises SessionNotFound."""
        self._end(user, services().store.end, user, id)

    def forget(self, user: User) -> None:
        """End all sessions of a user who closed the account. The metric counts them as `purge`."""
        self._end(user, services().store.end_all, user, "purge")

    def ban(self, user: User) -> None:
        """End all sessions of a user and refuse the user's logins."""
        self._end(user, services().store.ban, user)

    def _end(self, user: User, end: Callable[..., object], *args: object) -> None:
        """End sessions of `user` by calling `end`, then send `logged_out`."""
        end(*args)
        _send(logged_out, user=user)

    def known_appid(self, appid: str | None) -> str:
        """Return the configured app that `appid` names. None means the only one. Raises BadRequest."""
        apps = services().settings.apps
        found = next(iter(apps)) if appid is None and len(apps) == 1 else appid
        if found is None or found not in apps:
            raise BadRequest("Send the appid of a mini program that is configured here.")
        return found


#: For the routes.
auth: Final = Actions()


def require_login_session(session: WxSession) -> None:
    """Raise InsufficientScope if the session is not from wx.login."""
    if session.kind != "login":
        raise InsufficientScope


@contextlib.contextmanager
def _counting_failed_logins() -> Iterator[None]:
    try:
        yield
    except WxAuthError as error:
        LOGINS.labels(error.code).inc()
        raise


def _report_login(session: WxSession, replacing: WxSession | None) -> None:
    LOGINS.labels("ok").inc()
    # A login by ticket does not end the session that asked for the ticket.
    if replacing and replacing.id != session.parent:
        _send(logged_out, user=replacing.user)
    _send(logged_in, session=session)


def _send(signal: NamedSignal, **fields: Any) -> None:
    if signal.receivers:
        # They are registered for the application itself, not for Flask's proxy.
        signal.send(current_app._get_current_object(), **fields)  # type: ignore[attr-defined]  # typed as Flask
