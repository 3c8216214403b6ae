"""What the rehearsal of a sweep tells at its end: what became of each job, and what all of them lost and cost."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runctl.drill.report import counted, laid_out, put, told_of_left
from runctl.drill.stages import Stage
from runctl.encoding import from_data
from runctl.outcome import Attempt


@dataclass(frozen=True)
class JobLine:
    """One job.

    Attributes:
        overrides: what tells it from the others.
        state: how it ended.
        ends: of its attempts, in order.
        step: the last one that it completed.
        lost: steps that an attempt had done and the next one had to do again.
        metrics: by which it is judged.
    """

    run_id: str
    overrides: dict[str, str]
    state: str
    ends: list[str]
    step: int | None
    lost: int
    metrics: dict[str, float | None]


@dataclass(frozen=True)
class SweepReport:
    """All of it.

    Attributes:
        provider: whose hosts these would have been.
        hosts: how many were rented.
        took_s: from the command to its end.
        cost_usd: of all hosts; None where a price is not known.
    """

    provider: str
    lines: list[JobLine]
    hosts: int
    took_s: float
    cost_usd: float | None

    @property
    def steps_lost(self) -> int:
        return sum(line.lost for line in self.lines)


def gather(stage: Stage, sweep: str, *, took_s: float, now: float) -> SweepReport:
    """Read the sweep's record, its run directories and the stage's own books.

    Args:
        stage: that it ran on.
        sweep: where its record lies, below the stage's root.
        took_s: from the command to its end.
        now: seconds since the epoch.
    """
    body = stage.read(f"{sweep}/sweep.json")
    jobs: list[dict[str, Any]] = json.loads(body)["jobs"] if body is not None else []
    hosts = stage.hosts()
    costs = [
        None if one.price_usd_per_hour is None
        else one.price_usd_per_hour * ((one.ended_at or now) - one.launched_at) / 3600
        for one in hosts
    ]  # fmt: skip
    cost_usd = None if None in costs else round(sum(one for one in costs if one is not None), 4)
    return SweepReport(stage.provider, [_line(stage, job) for job in jobs], len(hosts), took_s, cost_usd)


def _line(stage: Stage, job: dict[str, Any]) -> JobLine:
    attempts: list[Attempt] = []
    while (body := stage.read(f"{job['run_id']}/attempts/{len(attempts) + 1}.json")) is not None:
        attempts.append(from_data(Attempt, json.loads(body)))
    # One that ended before it began anything did nothing again.
    begun = [one for one in attempts if one.begun]
    lost = sum(max(0, (one.step or 0) - (after.resumed_from_step or 0)) for one, after in itertools.pairwise(begun))
    ends = [one.end_reason or one.state.value for one in attempts]
    return JobLine(job["run_id"], job["overrides"], job["state"], ends, job["step"], lost, job["metrics"])


def show(report: SweepReport, left: list[str], *, waits: bool) -> None:
    """Print it for people.

    Args:
        report: all of it.
        left: hosts that live.
        waits: whether they do so for a launcher that was killed.
    """
    rows = [("job", "state", "step", "attempts", "lost", "ends")]
    for line in report.lines:
        label = " ".join(f"{key.removeprefix('args.')}={value}" for key, value in line.overrides.items())
        step = "" if line.step is None else str(line.step)
        rows.append((label, line.state, step, str(len(line.ends)), str(line.lost), "; ".join(line.ends)))
    out = sys.stderr
    out.write("\nThe drill:\n" + laid_out(rows))
    attempts = sum(len(line.ends) for line in report.lines)
    out.write(
        f"{counted(len(report.lines), 'job')} with {counted(attempts, 'attempt')} on {counted(report.hosts, 'host')} "
        f"in {report.took_s:.0f} s · {counted(report.steps_lost, 'step')} lost\n"
    )
    if report.cost_usd is not None:
        out.write(f"On {report.provider} these hosts would have cost {report.cost_usd:.4f} USD.\n")
    out.write(told_of_left(left, waits=waits))


def write(report: SweepReport, left: list[str], path: Path) -> None:
    """Write it for programs.

    Raises:
        StorageError: if the file cannot be written.
    """
    told = {
        "jobs": [asdict(line) for line in report.lines],
        "steps_lost": report.steps_lost,
        "hosts": report.hosts,
        "took_s": report.took_s,
        "cost_usd": report.cost_usd,
        "left_running": left,
    }
    put(told, path)
