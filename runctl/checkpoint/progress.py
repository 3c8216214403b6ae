"""A bar for people who wait: one line of the terminal that is drawn again and again.

Drawn by whoever waits anyway, with rich's columns but without its `Live`: that hides the cursor, which an agent that is
killed would never bring back, and needs a thread of its own.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from runctl.checkpoint.transfer import Transfer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_DRAW_S = 0.1
#: Columns of a terminal below which there is no place for the speed, or for more than the bar.
_WIDE, _NARROW = 72, 56
_CLEAR = "\r\x1b[K"


class _Line:
    """The terminal's last line, which a bar shares with everything else that this process writes there."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.has_bar = False
        #: Somebody has written a part of it, which a bar would wipe out.
        self.is_begun = False


_LINE = _Line()


@contextlib.contextmanager
def apart(*, ends_line: bool) -> Iterator[None]:
    """For who writes on the terminal where a bar of this process may stand: it is taken away first.

    Args:
        ends_line: whether what is written ends with its line; until then no bar is drawn.
    """
    with _LINE.lock:
        if _LINE.has_bar:
            _LINE.has_bar = False
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
        _LINE.is_begun = True
    try:
        yield  # without the lock: a terminal that nobody reads may hold this up, and no bar is to wait for it
    finally:
        _LINE.is_begun = not ends_line


class ProgressBar:
    """How far a transfer has come, on standard error; nothing is drawn where that is no terminal.

    Several threads may draw it: one at a time does, and none waits for that.

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
        if transfer.step is not None:
            self.draw(f"{verb} {what or f'step {transfer.step}'}", transfer.moved_bytes, transfer.size_bytes)

    def draw(self, label: str, moved_bytes: int, size_bytes: int) -> None:
        """Draw it, not too often.

        Args:
            label: what is being done to what.
            moved_bytes: how much of it has arrived.
            size_bytes: how much it is altogether.
        """
        now = time.monotonic()
        late = self._drawn_at is None or now - self._drawn_at >= _DRAW_S
        if not self._shown or not late or not _LINE.lock.acquire(blocking=False):
            return
        try:
            if not _LINE.is_begun:
                text = self._rendered(label, moved_bytes, size_bytes)
                # The cursor goes back to the line's beginning, so that what another process writes comes over the bar.
                sys.stderr.write(f"{_CLEAR}{text}\r")
                sys.stderr.flush()
                self._drawn_at, _LINE.has_bar = now, True
        finally:
            _LINE.lock.release()

    def clear(self) -> None:
        """Take it away."""
        with _LINE.lock:
            self._progress = None
            if self._drawn_at is not None and not _LINE.is_begun:
                sys.stderr.write(_CLEAR)
                sys.stderr.flush()
            self._drawn_at, _LINE.has_bar = None, False

    def say(self, text: str) -> None:
        """Write a line for people above it."""
        lead = _CLEAR if self._drawn_at is not None else ""
        sys.stderr.write(f"{lead}runctl: {text}\n")
        self._drawn_at = None

    def _rendered(self, label: str, moved_bytes: int, size_bytes: int) -> str:
        if self._progress is None or label != self._label:
            self._progress, self._task = _begun(label)
            self._label = label
        assert self._task is not None
        total = max(size_bytes, 1)
        self._progress.update(self._task, completed=min(moved_bytes, total), total=total)
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
