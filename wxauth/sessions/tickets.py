"""Tickets: a page in a `<web-view>` gets a session of its own from the session of its mini program.

A ticket has the form of a token. Its field in the user's hash holds its end, the session that asked for it, and the
user, sealed for the ticket. The login script deletes it: it works once.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from ..errors import TicketInvalid, TokenInvalid
from ..keys import TICKET_PREFIX, InvalidSeal, KeyRing, Token, seal, unseal
from ..models import Secret, User
from . import records
from .records import ENCODE, MICROSECONDS, Record
from .store import NewSession, SessionStore, WxSession, script

#: Seconds.
TICKET_LIFE: Final = 60
DEFAULT_LABEL: Final = "web-view"
#: Bytes in front of the sealed user: the end, and the id of the session.
CLEAR_SIZE: Final = 8 + records.ID_LENGTH

ISSUE: Final = script("ticket")
#: Its replies. Another reply belongs to another command.
ISSUED: Final = {b"issued": True, b"refused": False}


class Tickets:
    """Issues tickets and redeems them. One for each worker. Every method raises StoreUnavailable."""

    def __init__(self, store: SessionStore, ring: KeyRing) -> None:
        self._store = store
        self._ring = ring

    def issue(self, session: WxSession) -> Secret:
        """Return a ticket of a session from wx.login. Raises TokenInvalid if it has just ended."""
        for user_hash in self._store.hashes(session.user):
            # Only one of the user's hashes has the session.
            ticket = self._ring.make(user_hash.hash_tag, prefix=TICKET_PREFIX)
            sealed = self._seal(ticket, session)
            arguments = (_field(ticket), TICKET_LIFE * MICROSECONDS, session.id, sealed)
            if self._store.run(ISSUE, user_hash, *arguments, parse=ISSUED.__getitem__):
                return Secret(ticket.text)
        raise TokenInvalid

    def redeem(
        self, text: str, device: str | None = None, replacing: WxSession | None = None
    ) -> tuple[Secret, WxSession]:
        """Return the token and the session for a ticket, any text. Raises TicketInvalid or UserBanned."""
        ticket, record = self._open(text)
        record = replace(record, device=device or DEFAULT_LABEL, created_at=int(self._store.now()))
        token = self._ring.make(ticket.hash_tag)
        return Secret(token.text), self._store.add(NewSession(token, record, ticket=_field(ticket)), replacing)

    def _seal(self, ticket: Token, session: WxSession) -> bytes:
        payload = [session.appid, session.openid, session.unionid, session.id]
        # The new session ends with its parent at the latest.
        ends_at = session.created_at + self._store.policy.max_ttl
        return seal(ticket.seal_key, f"{ticket.hash_tag} {_field(ticket)}", ends_at, ENCODE(payload).encode())

    def _open(self, text: str) -> tuple[Token, Record]:
        try:
            ticket = self._ring.verify(text, TICKET_PREFIX)
            value = self._store.read_field(ticket.hash_tag, _field(ticket)) or b""
            context = f"{ticket.hash_tag} {_field(ticket)}"
            ends_at, payload = unseal(ticket.seal_key, context, value[CLEAR_SIZE:])
        except (TokenInvalid, InvalidSeal):
            raise TicketInvalid from None
        appid, openid, unionid, parent = json.loads(payload)
        record = Record(User(appid, openid), unionid, None, 0, ends_at, records.TICKET, parent)
        return ticket, record


def _field(ticket: Token) -> str:
    return f"t:{ticket.id}"
