"""A Redis user with the documented rights and no others."""

from __future__ import annotations

import redis

from wxauth.storage.acl import CLUSTER_RIGHTS, RIGHTS

LOGIN = "restricted:pw"


def grant(admin: redis.Redis, *changes: str) -> None:
    """Give the user on this node the documented rights, with `changes` to them. A cluster has more rights."""
    more = CLUSTER_RIGHTS.split() if admin.info()["cluster_enabled"] else []
    name, _, password = LOGIN.partition(":")
    rules = ("reset", "on", f">{password}", *RIGHTS.split(), *more, *changes)
    # redis-py's acl_setuser writes its own rules.
    admin.execute_command("ACL", "SETUSER", name, *rules)  # type: ignore[no-untyped-call]


def restricted_url(url: str) -> str:
    """Return the URL with the login of the user."""
    return url.replace("://", f"://{LOGIN}@")
