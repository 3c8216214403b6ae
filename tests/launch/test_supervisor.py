"""When another host is worth renting, how an attempt is asked to stop, and when one ended that does not say so."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runctl import unrecorded
from runctl.errors import PlatformError, StorageError
from runctl.outcome import Attempt
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, Plan, Program, RunHandle, RunIdentity, RunState
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


# --- an attempt whose agent could not say when it ended ---

HOUR = 3600.0


class Slept:
    """A run whose launcher slept for eight hours.

    Args:
        folder: where it lies; on a bucket, as far as anybody can tell.
        heard_after_s: of the agent, at last; None for never.
    """

    def __init__(self, folder: Path, heard_after_s: float | None) -> None:
        self.rundir = RunDir(str(folder))
        self.began = time.time() - 8 * HOUR
        self.asked = 0
        self.attempt = Attempt(1, "aws", "h", "spot", started_at=self.began, billed_from=self.began)
        self.rundir.write_spec(LaunchSpec(RunIdentity("run", "run", ""), Program("train.py", None)))
        if heard_after_s is not None:
            self.rundir.write_attempt(self.attempt)
            told = {"state": "running", "attempt": 1, "at": self.began + heard_after_s}
            for name in ("status.json", "heartbeat.json"):
                self.rundir.store.write(name, json.dumps(told).encode())

    def submitted(self, lives_s: float) -> None:
        plan = Plan("run", 1, "aws", (), {}, 1, 1, ".", "", requests=({"orders": {"lives_s": lives_s}},))
        handle = RunHandle("aws", "run", 1, {"instance": "i-1", "launched_at": self.began})
        self.rundir.write_submission(plan, handle)

    def ended_after_s(self, lives: bool | Exception, state: RunState = RunState.INTERRUPTED) -> float:
        """When the attempt counts as ended, given what the platform says of its host."""
        handle = RunHandle("aws", "run", 1, {"instance": "i-1"})

        def find(_: Plan) -> RunHandle | None:
            self.asked += 1
            if isinstance(lives, Exception):
                raise lives
            return handle if lives else None

        platform: Any = SimpleNamespace(terms=SimpleNamespace(rented=True), why=lambda _: "AWS took it back", find=find)
        plan = Plan("run", 1, "aws", (), {}, 1, 1, ".", "")
        record = unrecorded.settled(platform, self.rundir, self.attempt, plan=plan, handle=handle, state=state)
        assert record.ended_at is not None
        return record.ended_at - self.began


@pytest.fixture
def on_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have run directories of this test count as those of a bucket: their hosts speak there by themselves."""
    monkeypatch.setattr(RunDir, "url", property(lambda self: "s3://made" + self.store.url))


@pytest.mark.usefixtures("on_s3")
def test_a_host_that_went_while_its_launcher_slept_cost_until_it_went(tmp_path: Path) -> None:
    assert Slept(tmp_path / "gone", 600.0).ended_after_s(lives=False) == pytest.approx(600.0 + 180.0)


@pytest.mark.usefixtures("on_s3")
def test_a_host_that_is_only_silent_or_of_which_nothing_is_known_cost_until_now(tmp_path: Path) -> None:
    eight_hours = pytest.approx(8 * HOUR, abs=60)
    assert Slept(tmp_path / "silent", 600.0).ended_after_s(lives=True) == eight_hours
    assert Slept(tmp_path / "unknown", 600.0).ended_after_s(PlatformError("no answer")) == eight_hours
    assert Slept(tmp_path / "never", None).ended_after_s(lives=False) == eight_hours
    heard_now = Slept(tmp_path / "now", 8 * HOUR)
    assert heard_now.ended_after_s(lives=False) == eight_hours
    assert heard_now.asked == 0, "an interruption that is seen costs no question"


def test_a_host_cost_no_longer_than_until_its_own_deadline(tmp_path: Path) -> None:
    mirrored = Slept(tmp_path / "pod", 600.0)
    mirrored.submitted(lives_s=2 * HOUR)
    assert mirrored.ended_after_s(lives=False) == pytest.approx(2 * HOUR), "what lies here is as old as the last round"
    failed = Slept(tmp_path / "failed", None)
    failed.submitted(lives_s=3 * HOUR)
    assert failed.ended_after_s(lives=False, state=RunState.FAILED) == pytest.approx(3 * HOUR)
