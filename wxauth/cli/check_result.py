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
EXIT_CODES: Final[Mapping[str, int]] = {OK: 0, SKIPPED: 0, WARNING: 1, FAILURE: 2}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found: `status` is one of EXIT_CODES, `value` what was measured, `app` whom it is about."""

    check: str
    status: str
    english: str
    chinese: str | None = None
    value: str | float | None = None
    app: str | None = None


def worst(results: list[CheckResult]) -> str:
    """The gravest status among them."""
    return max(
        (result.status for result in results if EXIT_CODES[result.status]), key=EXIT_CODES.__getitem__, default=OK
    )
