"""A Redis user with the documented rights and no others."""

from __future__ import annotations

import redis

from wxauth.storage.acl import CLUSTER_RIGHTS, RIGHTS

LOGIN = "restricted:pw"


def grant(admin: redis.Redis, *changes: str, without: str = "") -> None:
    """Give the user on this node the documented rights, except to the command `without`, and `changes`."""
    rights = f"{RIGHTS} {CLUSTER_RIGHTS}" if admin.info()["cluster_enabled"] else RIGHTS
    kept = [right for right in rights.split() if right != f"+{without}"]
    name, _, password = LOGIN.partition(":")
    # redis-py's acl_setuser writes its own rules.
    admin.execute_command("ACL", "SETUSER", name, "reset", "on", f">{password}", *kept, *changes)  # type: ignore[no-untyped-call]


def restricted_url(url: str) -> str:
    """Return the URL with the login of the user."""
    return url.replace("://", f"://{LOGIN}@")
