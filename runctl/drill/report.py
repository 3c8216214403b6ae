"""What a rehearsal tells at its end: attempts and what ended them, steps lost, stalls, uploads, and the price."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runctl.drill.stages import Stage
from runctl.encoding import from_data
from runctl.outcome import Attempt
from runctl.storage import open_store

#: What names the place of the report.
PLACE = "drill.report"


@dataclass(frozen=True)
class Line:
    """One attempt.

    Attributes:
        began_at_step, ended_at_step: None where no step was told.
        lost: steps that it had done and the next one had to do again.
        stall_s: how long its loop waited for copies.
        cost_usd: what its host would have cost; in spot prices where it was one.
    """

    number: int
    where: str
    end: str
    began_at_step: int
    ended_at_step: int | None
    lost: int
    stall_s: float
    cost_usd: float | None


@dataclass(frozen=True)
class Report:
    """All of it.

    Attributes:
        provider: whose hosts these would have been.
        uploads: checkpoints that arrived.
        took_s: from the launch to its end.
        on_demand_usd: what the same would have cost on demand.
    """

    provider: str
    lines: list[Line]
    uploads: int
    took_s: float
    on_demand_usd: float | None

    @property
    def steps_lost(self) -> int:
        return sum(line.lost for line in self.lines)

    @property
    def stall_s(self) -> float:
        return sum(line.stall_s for line in self.lines)

    @property
    def cost_usd(self) -> float | None:
        costs = [line.cost_usd for line in self.lines]
        return None if None in costs else round(sum(cost for cost in costs if cost is not None), 4)


def gather(stage: Stage, run_id: str, *, steps: dict[str, int], took_s: float) -> Report:
    """Read the run directory and the stage's own books.

    Args:
        stage: that it ran on.
        run_id: the run's.
        steps: the last one seen on a host, which may have left no record.
        took_s: from the launch to its end.
    """
    hosts = {one.attempt: one for one in stage.hosts() if one.run_id == run_id}
    attempts = []
    for number in sorted(hosts):
        body = stage.read(f"{run_id}/attempts/{number}.json")
        if body is not None:  # or else its agent never came up
            attempts.append(from_data(Attempt, json.loads(body)))
    lines, on_demand = [], 0.0
    for place, attempt in enumerate(attempts, 1):
        one = hosts[attempt.number]
        ended = attempt.step if attempt.step is not None else steps.get(one.id)
        # One that ended before it began anything did nothing again.
        after = next((later for later in attempts[place:] if later.begun), None)
        lost = 0 if after is None or ended is None else max(0, ended - (after.resumed_from_step or 0))
        seconds = (one.ended_at or attempt.ended_at or one.launched_at) - one.launched_at
        on_demand += (one.on_demand_usd_per_hour or 0.0) * seconds / 3600
        price = one.price_usd_per_hour
        lines.append(
            Line(
                number=attempt.number,
                where=one.where,
                end=attempt.end_reason or attempt.state.value,
                began_at_step=attempt.resumed_from_step or 0,
                ended_at_step=ended,
                lost=lost,
                stall_s=attempt.stall_s or 0.0,
                cost_usd=None if price is None else price * seconds / 3600,
            )
        )
    return Report(stage.provider, lines, len(stage.checkpoints(run_id)), took_s, round(on_demand, 4))


def show(report: Report, left: list[str]) -> None:
    """Print it for people."""
    rows = [("attempt", "host", "steps", "lost", "stall", "end")]
    for line in report.lines:
        ended = "?" if line.ended_at_step is None else str(line.ended_at_step)
        rows.append(
            (str(line.number), line.where, f"{line.began_at_step}–{ended}", str(line.lost), f"{line.stall_s:.2f} s",
             line.end)
        )  # fmt: skip
    out = sys.stderr
    out.write("\nThe drill:\n" + laid_out(rows))
    out.write(
        f"{counted(len(report.lines), 'attempt')} in {report.took_s:.0f} s · {counted(report.steps_lost, 'step')} lost "
        f"· {report.stall_s:.2f} s of stall · {counted(report.uploads, 'checkpoint')} uploaded\n"
    )
    if report.cost_usd is not None:
        out.write(f"On {report.provider} these hosts would have cost {report.cost_usd:.4f} USD; ")
        out.write(f"on demand alone {report.on_demand_usd:.4f} USD.\n")
    out.write(told_of_left(left))


def write(report: Report, left: list[str], path: Path) -> None:
    """Write it for programs.

    Raises:
        StorageError: if the file cannot be written.
    """
    told = {
        "attempts": [asdict(line) for line in report.lines],
        "steps_lost": report.steps_lost,
        "stall_s": report.stall_s,
        "uploads": report.uploads,
        "took_s": report.took_s,
        "cost_usd": report.cost_usd,
        "on_demand_usd": report.on_demand_usd,
        "left_running": left,
    }
    put(told, path)


def put(told: dict[str, Any], path: Path) -> None:
    """Put a report down as JSON.

    Raises:
        StorageError: if the file cannot be written.
    """
    open_store(str(path.parent), PLACE).write(path.name, (json.dumps(told, indent=2) + "\n").encode())


def laid_out(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines, in columns as wide as they need."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def told_of_left(left: Sequence[str], *, waits: bool = False) -> str:
    """A line on hosts that live although all has ended.

    Args:
        left: the hosts.
        waits: whether they are those of a launcher that was killed, which wait for its next job.
    """
    if not left:
        return "Nothing is left running.\n"
    if waits:
        return f"{', '.join(left)}: waits for the next job of the launcher that was killed, and then ends itself.\n"
    return f"STILL RUNNING: {', '.join(left)}. This is a defect of runctl's; in a drill it costs nothing.\n"


def counted(number: int, what: str) -> str:
    """So many of something."""
    return f"{number} {what}{'' if number == 1 else 's'}"
