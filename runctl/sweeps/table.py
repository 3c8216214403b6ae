"""The table of a whole sweep, at its end."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from runctl import terminal
from runctl.config.sweeps import Objective
from runctl.spec import RunState
from runctl.sweeps.job import Job
from runctl.sweeps.objective import rank

#: Lines of the terminal that the rows leave for the rest of the table, and for what is said below it.
_MARGIN = 10
_FEWEST_ROWS = 8
#: Between two columns.
_GAP = 3
#: What a job's label has at least, on however narrow a terminal.
_LEAST_LABEL = 12
_STYLES = {
    RunState.SUCCEEDED.value: "green",
    RunState.FAILED.value: "red",
    RunState.INTERRUPTED.value: "red",
    RunState.STOPPED.value: "yellow",
    "not started": "yellow",
}


def show(jobs: Sequence[Job], objectives: Sequence[Objective]) -> None:
    """Show it on standard error, the best first.

    A terminal gets as many rows as it is high, and each in one line; a file gets all of it.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminals = sys.stderr.isatty()
    metrics = [one.metric for one in objectives]
    priced = any(job.cost_usd for job in jobs)
    headings = ["state", *metrics, "step", "time", *(["cost"] if priced else [])]
    console = Console(file=sys.stderr)
    shown = ordered(jobs, objectives)
    if terminals:
        shown = _fitting(shown, max(_FEWEST_ROWS, console.height - _MARGIN))
    rows = [_row(job, metrics, priced=priced) for job in shown]
    room = max((len(job.label) for job in shown), default=0)
    least = min(room, _LEAST_LABEL)
    # A narrow terminal does without the last ones, rather than with all of them cut.
    while terminals and len(headings) > 1 + len(metrics) and _taken(headings, rows) + least > console.width:
        spare = 1 + len(metrics)
        headings, rows = _without(headings, spare), [_without(row, spare) for row in rows]
    taken = _taken(headings, rows)
    if terminals:
        room = min(room, max(_LEAST_LABEL, console.width - taken))
    else:
        console = Console(file=sys.stderr, width=room + taken)
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("job", overflow="ellipsis", no_wrap=True)
    for heading in headings:
        left = heading == "state"
        table.add_column(heading, justify="left" if left else "right", overflow="ellipsis", no_wrap=True)
    for job, (state, *cells) in zip(shown, rows, strict=True):
        styled = Text(state, style=_STYLES.get(job.state, ""))
        table.add_row(Text(job.label_within(room)), styled, *map(Text, cells))
    console.print(table)
    if len(shown) < len(jobs):
        terminal.tell(f"{len(shown)} of {len(jobs)} jobs are shown; all of them stand in the file below")


def ordered(jobs: Sequence[Job], objectives: Sequence[Objective]) -> list[Job]:
    """The best first; as they came where there is nothing to judge them by."""
    if not objectives:
        return list(jobs)
    first = objectives[0]
    return sorted(jobs, key=lambda job: rank(first, job.values.get(first.metric)))


def _row(job: Job, metrics: Sequence[str], *, priced: bool) -> list[str]:
    values = [job.values.get(metric) for metric in metrics]
    return [
        job.state + (" (before)" if job.done_before else ""),
        *("" if value is None else terminal.short(value) for value in values),
        "" if job.step is None else str(job.step),
        terminal.duration(job.time_s) if job.time_s else "",
        *(["" if job.cost_usd is None else f"{job.cost_usd:.4f}"] if priced else []),
    ]


def _taken(headings: list[str], rows: list[list[str]]) -> int:
    """Columns of the terminal that all but the labels take."""
    return sum(max(len(one) for one in column) + _GAP for column in zip(headings, *rows, strict=True)) + 2


def _without(cells: list[str], place: int) -> list[str]:
    return [*cells[:place], *cells[place + 1 :]]


def _fitting(jobs: list[Job], room: int) -> list[Job]:
    """So many of them, in their order: the first ones, and in up to a third of the room those that went wrong."""
    if len(jobs) <= room:
        return jobs
    wrong = [place for place, job in enumerate(jobs) if job.failed and job.state != "not started"][: room // 3]
    right = [place for place in range(len(jobs)) if place not in wrong][: room - len(wrong)]
    return [jobs[place] for place in sorted([*wrong, *right])]
