"""A bar for people who wait: one line of the terminal that is drawn again and again.

Drawn by whoever waits anyway, with rich's columns but without its `Live`: that hides the cursor, which an agent that is
killed would never bring back, and needs a thread of its own.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from runctl.checkpoint.transfer import Transfer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_DRAW_S = 0.1
#: Columns of a terminal below which there is no place for the speed, or for more than the bar.
_WIDE, _NARROW = 72, 56
_CLEAR = "\r\x1b[K"


class ProgressBar:
    """How far a transfer has come, on standard error; nothing is drawn where that is no terminal.

    Args:
        attached: whether somebody may look on, for the launcher waits for us.
    """

    def __init__(self, *, attached: bool) -> None:
        self._shown = attached and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._label = ""
        self._drawn_at: float | None = None

    def show(self, verb: str, transfer: Transfer, what: str | None = None) -> None:
        """Draw it, if there is something under way; not too often.

        Args:
            verb: what is being done to it: `restoring`.
            transfer: how far it has come.
            what: for people; the checkpoint's step if None.
        """
        step, now = transfer.step, time.monotonic()
        if not self._shown or step is None or (self._drawn_at is not None and now - self._drawn_at < _DRAW_S):
            return
        text = self._rendered(f"{verb} {what or f'step {step}'}", transfer)
        # The cursor goes back to the line's beginning, so that what another process writes comes over the bar.
        sys.stderr.write(f"{_CLEAR}{text}\r")
        sys.stderr.flush()
        self._drawn_at = now

    def clear(self) -> None:
        """Take it away."""
        self._progress = None
        if self._drawn_at is not None:
            self._drawn_at = None
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()

    def say(self, text: str) -> None:
        """Write a line for people above it."""
        lead = _CLEAR if self._drawn_at is not None else ""
        sys.stderr.write(f"{lead}runctl: {text}\n")
        self._drawn_at = None

    def _rendered(self, label: str, transfer: Transfer) -> str:
        if self._progress is None or label != self._label:
            self._progress, self._task = _begun(label)
            self._label = label
        assert self._task is not None
        total = max(transfer.size_bytes, 1)
        self._progress.update(self._task, completed=min(transfer.moved_bytes, total), total=total)
        console = self._progress.console
        with console.capture() as captured:
            console.print(self._progress.get_renderable(), end="")
        return captured.get().partition("\n")[0]


def _begun(label: str) -> tuple[Progress, TaskID]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.table import Column

    console = Console(file=sys.stderr)
    columns: list[ProgressColumn] = [
        TextColumn("runctl: {task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=None),
    ]
    if console.width >= _NARROW:
        columns.append(DownloadColumn(table_column=Column(no_wrap=True)))
    if console.width >= _WIDE:
        columns.append(TransferSpeedColumn(table_column=Column(no_wrap=True)))
    if console.width >= _NARROW:
        columns.append(TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)))
    progress = Progress(*columns, console=console, auto_refresh=False, expand=True)
    return progress, progress.add_task(label, total=None)
