"""The routes, each file a blueprint."""

from __future__ import annotations

from typing import Any

from flask import Blueprint


class RouteBlueprint(Blueprint):
    """A blueprint whose rules follow no setting of the application: no redirects, and no automatic OPTIONS."""

    def add_url_rule(self, rule: str, *args: Any, **options: Any) -> None:
        """Add a rule, as Flask's blueprint does."""
        own = {"merge_slashes": False, "strict_slashes": True, "provide_automatic_options": False}
        super().add_url_rule(rule, *args, **own | options)
