"""What a drill tells of lost steps: one that an attempt did, and the next one that began did again."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

from runctl.drill import report, sweep_report
from runctl.encoding import dumps
from runctl.outcome import Attempt
from runctl.spec import RunState

#: The second was lost while it came up.
ATTEMPTS = [
    Attempt(1, "aws", "one", state=RunState.INTERRUPTED, step=1000),
    Attempt(2, "aws", "two", state=RunState.INTERRUPTED),
    Attempt(3, "aws", "three", state=RunState.SUCCEEDED, resumed_from_step=990, step=2000),
]
JOB = {"run_id": "run", "overrides": {}, "state": "succeeded", "step": 2000, "metrics": {}}


class Books:
    """A stage on which a run had three hosts."""

    provider = "AWS"

    def hosts(self) -> list[Any]:
        return [
            SimpleNamespace(id=f"i-{one.number}", run_id="run", attempt=one.number, where="here", launched_at=0.0,
                            ended_at=3600.0, price_usd_per_hour=1.0, on_demand_usd_per_hour=2.0)
            for one in ATTEMPTS
        ]  # fmt: skip

    def checkpoints(self, run_id: str) -> list[str]:
        return ["step-000990"]

    def read(self, name: str) -> bytes | None:
        if name == "sweeps/train/sweep.json":
            return dumps({"jobs": [JOB]}).encode()
        found = re.fullmatch(r"run/attempts/([123])\.json", name)
        return None if found is None else dumps(ATTEMPTS[int(found[1]) - 1]).encode()


def test_an_attempt_that_never_began_did_nothing_again() -> None:
    told = report.gather(Books(), "run", steps={}, took_s=1.0)  # type: ignore[arg-type]
    assert [line.lost for line in told.lines] == [10, 0, 0]
    assert [line.end for line in told.lines] == ["interrupted", "interrupted", "succeeded"]
    of_sweep = sweep_report.gather(Books(), "sweeps/train", took_s=1.0, now=0.0)  # type: ignore[arg-type]
    assert [(line.lost, len(line.ends)) for line in of_sweep.lines] == [(10, 3)]
