"""What a sweep shows while it runs: lines, and on a terminal below them a table of what runs."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runctl import terminal
from runctl.errors import StorageError
from runctl.rundir import RunDir
from runctl.sweeps.job import Job

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

#: How often the steps of what runs are looked up (seconds): on this machine, and in object storage.
_LOOK_S = 1.0
_LOOK_FAR_S = 10.0
#: Lines of the terminal that rows leave alone: headings, the line below, and some of what was told.
_MARGIN = 9
#: Between two columns.
_GAP = 3
#: What a job's label has at least, on however narrow a terminal.
_LEAST_LABEL = 12
#: What a line of ours has room for, beside what it says.
_LABEL_IN_LINES = 60
#: In this order the states are counted.
_STATES = ("running", "waiting", "succeeded", "failed", "interrupted", "stopped", "not started")


class Board:
    """Shows where jobs stand; to a terminal that was closed nothing, and that ends no job.

    Args:
        jobs: all of them, by their runs; there may come more.
        live: whether several run at once, whose output would be a muddle.
        metrics: by which they are judged.
        coming: tells how many more will come.
    """

    def __init__(
        self, jobs: Mapping[str, Job], *, live: bool, metrics: Sequence[str] = (), coming: Callable[[], int] = lambda: 0
    ) -> None:
        self._jobs = jobs
        self._metrics = metrics
        self._coming = coming
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._beats: dict[str, dict[str, Any]] = {}
        self._looked: dict[str, float] = {}
        self._began: dict[str, float] = {}
        self._drawn: tuple[int, list[int]] = (0, [])
        terminals = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        if live and terminals:
            from rich.console import Console
            from rich.live import Live

            # One that is not live: what is captured there is what was printed.
            self._canvas = Console(file=sys.stderr)
            # What plugins print to a pipe is for whoever reads it, not for the terminal.
            self._live = Live(
                console=Console(file=sys.stderr), auto_refresh=False, transient=True,
                redirect_stdout=sys.stdout.isatty(),
            )  # fmt: skip
            self._live.start()

    def tell(self, line: str, job: Job | None = None) -> None:
        """One line of ours; what it begins with names the job that it is about."""
        told = line if job is None else f"[{job.label_within(_LABEL_IN_LINES)}] {line}"
        with self._lock, contextlib.suppress(OSError):
            if self._live is None:
                terminal.tell(told)
            else:
                self._make_up_for_resizing(self._live.console)
                self._live.console.print(f"runctl: {told}", markup=False, highlight=False, soft_wrap=True, emoji=False)

    def refresh(self) -> None:
        """Show where what runs stands now."""
        if self._live is None:
            return
        running = [job for job in self._jobs.values() if job.state == "running"]
        for job in running:
            self._look(job)
        with self._lock, contextlib.suppress(OSError):
            from rich.text import Text

            console = self._live.console
            self._make_up_for_resizing(console)
            lines = self._meanwhile(running, self._canvas)
            texts = [Text.from_ansi(line, no_wrap=True, overflow="ellipsis") for line in lines]
            self._drawn = console.width, [min(text.cell_len, console.width) for text in texts]
            self._live.update(Text("\n", no_wrap=True, overflow="ellipsis").join(texts), refresh=True)

    def close(self) -> None:
        """Leave the terminal to others."""
        if self._live is not None:
            with self._lock, contextlib.suppress(OSError):
                self._make_up_for_resizing(self._live.console)
                self._live.stop()
            self._live = None

    def _look(self, job: Job) -> None:
        now = time.monotonic()
        self._began.setdefault(job.run_id, now)
        if now - self._looked.get(job.run_id, 0.0) < (_LOOK_FAR_S if "://" in job.url else _LOOK_S):
            return
        self._looked[job.run_id] = now
        with contextlib.suppress(StorageError):
            self._beats[job.run_id] = RunDir(job.url).heartbeat() or {}

    def _make_up_for_resizing(self, console: Console) -> None:
        """A terminal that became narrower has broken what was drawn into more lines than whoever erases it knows of."""
        width, widths = self._drawn
        if console.width < width:
            more = sum(max(0, (one - 1) // console.width) for one in widths)
            sys.__stderr__.write("\r\x1b[2K\x1b[1A" * more)  # type: ignore[union-attr]
            self._drawn = console.width, widths

    def _meanwhile(self, running: list[Job], console: Console) -> list[str]:
        """The table and what stands below it, line by line, without blanks at their ends."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        rows = [self._row(job) for job in running[: max(1, console.height - _MARGIN)]]
        headings = ("step", *self._metrics, "for")
        taken = [
            max(len(one) for one in column) + _GAP for column in zip(headings, *(row for _, row in rows), strict=True)
        ]
        room = max(_LEAST_LABEL, console.width - sum(taken) - 2)
        table = Table(box=box.SIMPLE, pad_edge=False)
        table.add_column("job", overflow="ellipsis", no_wrap=True)
        for heading in headings:
            table.add_column(heading, justify="right", overflow="ellipsis", no_wrap=True)
        for job, cells in rows:
            number = f"{job.number} "
            table.add_row(Text(number + job.label_within(room - len(number))), *map(Text, cells))
        with console.capture() as captured:
            console.print(table)
            if len(rows) < len(running):
                console.print(f" … and {len(running) - len(rows)} more that run", style="dim", highlight=False)
            console.print(self._counts(), style="dim", highlight=False, no_wrap=True, overflow="ellipsis")
        return [_trimmed(line) for line in captured.get().splitlines()]

    def _row(self, job: Job) -> tuple[Job, list[str]]:
        beat = self._beats.get(job.run_id, {})
        step, total = beat.get("step"), beat.get("total_steps")
        metrics = beat.get("metrics") or {}
        cells = ["" if step is None else f"{step}" if total is None else f"{step}/{total}"]
        cells += ["" if metrics.get(name) is None else terminal.short(metrics[name]) for name in self._metrics]
        return job, [*cells, terminal.duration(time.monotonic() - self._began[job.run_id])]

    def _counts(self) -> str:
        counts = Counter(job.state for job in list(self._jobs.values()))
        counts += Counter(waiting=self._coming())
        states = sorted(counts, key=lambda state: _STATES.index(state) if state in _STATES else len(_STATES))
        return " " + " · ".join(f"{counts[state]} {state}" for state in states)


def _trimmed(line: str) -> str:
    """Without blanks before the codes at its end: a terminal that is made narrower would break them off as a line."""
    while (shorter := re.sub(r" +((?:\x1b\[[\d;]*m)*)$", r"\1", line)) != line:
        line = shorter
    return line
