"""What a sweep shows: lines, a table of what runs on a terminal, and the table of everything at the end."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from runctl import terminal
from runctl.config.sweeps import Objective
from runctl.errors import StorageError
from runctl.rundir import RunDir
from runctl.sweeps.job import Job
from runctl.sweeps.objective import rank

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

#: How often the steps of what runs are looked up (seconds): on this machine, and in object storage.
_LOOK_S = 1.0
_LOOK_FAR_S = 10.0
#: Lines of the terminal that the table leaves alone.
_MARGIN = 6


class Board:
    """Shows where jobs stand.

    Args:
        jobs: all of them, by their runs; there may come more.
        live: whether several run at once, whose output would be a muddle.
    """

    def __init__(self, jobs: Mapping[str, Job], *, live: bool) -> None:
        self._jobs = jobs
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._steps: dict[str, int | None] = {}
        self._looked: dict[str, float] = {}
        self._began: dict[str, float] = {}
        terminals = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        if live and terminals:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(file=sys.stderr), auto_refresh=False, transient=True)
            self._live.start()

    def tell(self, line: str) -> None:
        """One line of ours."""
        with self._lock:
            if self._live is None:
                terminal.tell(line)
            else:
                self._live.console.print(f"runctl: {line}", markup=False, highlight=False, soft_wrap=True)

    def refresh(self) -> None:
        """Show where what runs stands now."""
        if self._live is None:
            return
        running = [job for job in self._jobs.values() if job.state == "running"]
        for job in running:
            self._look(job)
        with self._lock:
            self._live.update(self._meanwhile(running), refresh=True)

    def close(self) -> None:
        """Leave the terminal to others."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _look(self, job: Job) -> None:
        now = time.monotonic()
        self._began.setdefault(job.run_id, now)
        if now - self._looked.get(job.run_id, 0.0) < (_LOOK_FAR_S if "://" in job.url else _LOOK_S):
            return
        self._looked[job.run_id] = now
        with contextlib.suppress(StorageError):
            self._steps[job.run_id] = (RunDir(job.url).heartbeat() or {}).get("step")

    def _meanwhile(self, running: list[Job]) -> Table:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE, pad_edge=False)
        for heading in ("job", "step", "for"):
            table.add_column(heading, overflow="ellipsis", no_wrap=True)
        room = max(1, (self._live.console.height if self._live is not None else 24) - _MARGIN)
        for job in running[:room]:
            step = self._steps.get(job.run_id)
            took = terminal.duration(time.monotonic() - self._began[job.run_id])
            table.add_row(f"{job.number} {job.label}", "" if step is None else str(step), took)
        counts = Counter(job.state for job in self._jobs.values())
        table.caption = " · ".join(f"{count} {state}" for state, count in counts.items())
        return table


def show(jobs: Sequence[Job], objectives: Sequence[Objective]) -> None:
    """The table of everything, on standard error, the best first."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    metrics = [one.metric for one in objectives]
    for heading in ("job", "state", *metrics, "step", "time", "cost"):
        table.add_column(heading, overflow="fold", justify="left" if heading in ("job", "state") else "right")
    for job in ordered(jobs, objectives):
        values = [job.values.get(metric) for metric in metrics]
        table.add_row(
            job.label,
            job.state + (" (before)" if job.done_before else ""),
            *("" if value is None else terminal.short(value) for value in values),
            "" if job.step is None else str(job.step),
            terminal.duration(job.time_s) if job.time_s else "",
            "" if job.cost_usd is None else f"{job.cost_usd:.4f}",
        )
    console = Console(file=sys.stderr, width=None if sys.stderr.isatty() else _width(jobs))
    console.print(table)


def ordered(jobs: Sequence[Job], objectives: Sequence[Objective]) -> list[Job]:
    """The best first; as they came where there is nothing to judge them by."""
    if not objectives:
        return list(jobs)
    first = objectives[0]
    return sorted(jobs, key=lambda job: rank(first, job.values.get(first.metric)))


def _width(jobs: Sequence[Job]) -> int:
    """Wide enough that no row of a file breaks."""
    return max((len(job.label) for job in jobs), default=0) + 120
