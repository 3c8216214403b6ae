"""What a report tells of one run, from its run directory."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runctl import standing
from runctl.holdings import Holdings
from runctl.metrics import PLACES
from runctl.outcome import Attempt
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec
from runctl.stalls import StepWatch
from runctl.standing import Standing


@dataclass(frozen=True)
class Checkpoint:
    """When a checkpoint was there (seconds since the epoch), and of which step."""

    step: int
    at: float


@dataclass(frozen=True)
class Stall:
    """A time without steps, in an attempt (seconds since the epoch)."""

    attempt: int
    begin: float
    end: float
    step: int


@dataclass(frozen=True)
class RunRecord:
    """One run, as it was when the report was made.

    Attributes:
        now: where it stood.
        lines: all that its attempts told of steps, in order of attempts.
        metrics: of these, what counts: nothing that a later attempt did again.
        usage: how busy its hosts were, in order of time.
        events: what happened, in order.
        checkpoints: by time; those that were pruned count if an event tells of them.
        config: the effective configuration, as YAML.
        git: commit, branch and changed files; empty outside of a checkout.
        diff: what the project had changed since its commit.
        versions: of Python, packages and host.
    """

    spec: LaunchSpec
    now: Standing
    attempts: Sequence[Attempt]
    lines: Sequence[dict[str, Any]]
    metrics: Sequence[dict[str, Any]]
    usage: Sequence[dict[str, Any]]
    events: Sequence[dict[str, Any]]
    checkpoints: Sequence[Checkpoint]
    config: str
    git: dict[str, Any]
    diff: str
    versions: dict[str, Any]

    @property
    def began_at(self) -> float:
        """When it began: what its times are counted from."""
        return self.now.began_at or self.now.looked_at

    def end_of(self, attempt: Attempt) -> float:
        """When an attempt ended, or was looked at (seconds since the epoch)."""
        lost = self.now.heard_at if self.now.state == standing.LOST else None
        return attempt.ended_at or lost or self.now.looked_at

    def metric_names(self) -> list[str]:
        """Every metric, in the order in which they came up."""
        places = (*PLACES, "epoch")
        return list(dict.fromkeys(name for entry in self.metrics for name in entry if name not in places))

    def steps_of(self, attempt: Attempt) -> list[tuple[float, int]]:
        """When an attempt told of which step (seconds since the epoch)."""
        mine = [one for one in self.lines if one["attempt"] == attempt.number and "step" in one]
        return [(float(one["at"]), int(one["step"])) for one in mine]

    def stalls(self) -> list[Stall]:
        """The times in which steps were missing, as `runctl monitor` would have said."""
        found = []
        for attempt in self.attempts:
            watch = StepWatch()
            last: tuple[float, int] | None = None
            for at, step in self.steps_of(attempt):
                if last is not None and step == last[1]:
                    continue  # more news of a step that is known already
                if last is not None and watch.stalled_s(at) is not None:
                    found.append(Stall(attempt.number, last[0], at, last[1]))
                watch.note(step, at)
                last = at, step
        return found


def read(rundir: RunDir) -> RunRecord:
    """Read what there is of a run.

    Raises:
        StorageError: if the run directory cannot be read, or is none.
    """
    spec = rundir.read_spec()
    lines = sorted(rundir.read_lines("metrics.jsonl"), key=lambda entry: int(entry["attempt"]))
    events = rundir.events()
    return RunRecord(
        spec, standing.look(rundir, spec), rundir.attempts(), lines, rundir.metrics(lines), rundir.usage(), events,
        _checkpoints(rundir, events),
        config=_text(rundir, "config.yaml"),
        git=_object(rundir, "provenance/git.json"),
        diff=_text(rundir, "provenance/git.diff"),
        versions=_object(rundir, "provenance/versions.json"),
    )  # fmt: skip


def _checkpoints(rundir: RunDir, events: Sequence[dict[str, Any]]) -> list[Checkpoint]:
    found = {one["step"]: float(one["at"]) for one in events if one["event"] == "checkpoint"}
    found |= {one.step: one.created_at for one in Holdings.of(rundir).listed() if one.created_at is not None}
    return sorted((Checkpoint(step, at) for step, at in found.items()), key=lambda one: one.at)


def _text(rundir: RunDir, name: str) -> str:
    return (rundir.store.read(name) or b"").decode(errors="replace")


def _object(rundir: RunDir, name: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        told = json.loads(_text(rundir, name) or "{}")
        if isinstance(told, dict):
            return told
    return {}
