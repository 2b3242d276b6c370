"""Approvals of scans are void once another session or the operator has ended sessions of the user.

The ended session may be the one that has approved. So each approval names a mark of its user, which lies under a key
beside the user's hash, and these ends delete the key.
"""

from __future__ import annotations

import secrets
from typing import Final

from ..errors import TokenInvalid
from ..models import User
from . import records
from .store import SessionStore, WxSession, script

APPROVAL: Final = script("approval", shared=False)


class Approvals:
    """The marks of all users. One for each worker. Every method raises StoreUnavailable."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    def mark(self, session: WxSession, seconds: int) -> str:
        """Return a mark for an approval by this session, which can be used for so many seconds.

        Asks Redis whether the session is live, not the cache. Raises TokenInvalid if it has just ended.
        """
        name = records.approvals_name(self._store.hashes(session.user)[0])
        mark: str = self._store.redis.run(APPROVAL, name, secrets.token_hex(8), seconds, parse=bytes.decode)
        # The mark first: if the session is ended after that, the mark goes too.
        hashes = self._store.hashes(session.user)
        if not any(self._store.read_field(user_hash.hash_tag, session.id) for user_hash in hashes):
            raise TokenInvalid
        return mark

    def has(self, user: User, mark: str) -> bool:
        """Whether approvals with this mark count."""
        names = map(records.approvals_name, self._store.hashes(user))
        return any(self._store.redis.read(name) == mark.encode() for name in names)
