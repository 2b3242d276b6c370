"""How a log is judged where a replica took over, which has what it was told in time and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from tests.faults.conftest import Run
from tests.faults.history import Call, violations
from tests.faults.rig import BOUNDS


def assert_clean_after_failover(run: Run, fault: str, calls: Sequence[Call]) -> None:
    """No logout is forgotten, and nothing else goes wrong; a login may be lost, for no replica confirms it."""
    found = violations(calls, BOUNDS)
    logins = [call for call in calls if call.operation == "login" and call.passed]
    logouts = [call for call in calls if call.operation == "logout" and call.passed]
    forgotten, alive = (len(_tokens(calls, found[name])) for name in ("I1", "I2"))
    run.figure(fault, "logins forgotten (I1)", f"{forgotten} of {len(logins)}", "observed")
    run.figure(fault, "logged-out tokens alive again (I2)", f"{alive} of {len(logouts)}", 0)
    rest = {name: breaches[:3] for name, breaches in found.items() if breaches and name != "I1"}
    run.figure(fault, f"violations of I2 to I5 in {len(calls)} calls", sum(map(len, rest.values())), 0)
    assert rest == {}, rest


def _tokens(calls: Sequence[Call], breaches: Sequence[str]) -> set[str]:
    """The tokens that `breaches` tell of."""
    text = "".join(breaches)
    return {call.token_id for call in calls if call.token_id and call.token_id in text}
