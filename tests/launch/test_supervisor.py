"""When another host is worth renting, and how an attempt is asked to stop."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runctl.errors import StorageError
from runctl.outcome import Attempt
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, Program, RunHandle, RunIdentity, RunState
from runctl.stops import Stop
from runctl.supervisor import Supervisor

UNREACHED = "interrupted: its host i-1 was not up within platform.bring_up=15m: SSM never saw it"
TAKEN = "interrupted: AWS took i-1 back"


def ended(number: int, why: str, step: int | None = None) -> Attempt:
    return Attempt(number, "aws", "i-1", state=RunState.INTERRUPTED, end_reason=why, step=step)


@pytest.mark.parametrize(
    ("before", "now", "goes_on"),
    [
        (None, UNREACHED, True),
        (TAKEN, UNREACHED, True),
        (UNREACHED, TAKEN, True),
        (UNREACHED, UNREACHED, False),
        (TAKEN, TAKEN, True),
        ("host fault: x", "host fault: x", False),
    ],
)
def test_two_hosts_in_a_row_that_are_never_heard_of_are_enough(
    tmp_path: Path, before: str | None, now: str, goes_on: bool
) -> None:
    rundir = RunDir(str(tmp_path))
    if before is not None:
        rundir.write_attempt(ended(1, before))
    spec = LaunchSpec(RunIdentity("run", "run", ""), Program("train.py", None), retry_on=("interrupted", "host_fault"))
    nothing: Any = SimpleNamespace()
    supervisor = Supervisor(spec, nothing, nothing, rundir, print, output=None)
    assert supervisor._goes_on(ended(2, now)) is goes_on


def test_a_stop_that_cannot_be_asked_for_is_asked_for_again_and_said_once() -> None:
    told: list[str] = []
    asked: list[tuple[str, bool]] = []
    failing = [True]

    def cancel(_: RunHandle, reason: str, *, now: bool) -> None:
        if failing[0]:
            raise StorageError("no answer")
        asked.append((reason, now))

    platform: Any = SimpleNamespace(cancel=cancel)
    stop = Stop(platform, RunHandle("aws", "run", 1, {}), told.append)
    stop.ask_again()
    stop.ask("user")
    stop.ask_again()
    assert stop.is_asked and asked == [] and len(told) == 1
    failing[0] = False
    for _ in range(3):
        stop.ask_again()
    assert asked == [("user", False)]
