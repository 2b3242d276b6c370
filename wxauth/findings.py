"""What one look at a set-up has found, and how grave it is. Knows nothing of what is looked at, nor of who reads it.

Nothing that is found out holds a secret, nor a value that was pasted where a secret may have been meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

OK: Final = "ok"
SKIPPED: Final = "skipped"
WARNING: Final = "warning"
FAILURE: Final = "failure"

#: As exit codes: what can't be found out is nobody's fault.
GRAVITY: Final[Mapping[str, int]] = {OK: 0, SKIPPED: 0, WARNING: 1, FAILURE: 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: `status` is one of GRAVITY, `value` what was measured, `app` whom it is about."""

    check: str
    status: str
    english: str
    chinese: str | None = None
    value: str | float | None = None
    app: str | None = None


def worst(findings: list[Finding]) -> str:
    """The gravest status among them."""
    return max(
        (finding.status for finding in findings if GRAVITY[finding.status]), key=GRAVITY.__getitem__, default=OK
    )
