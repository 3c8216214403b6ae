"""How far a checkpoint has come on its way: those who carry its parts add, another looks or is told."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Transfer:
    """The checkpoint that is being carried, if there is one.

    Args:
        changed: called after each change, by whichever thread made it.

    Attributes:
        step: the checkpoint's; None while none is under way.
        moved_bytes: how much of it has arrived.
        size_bytes: how much it is altogether.
    """

    def __init__(self, changed: Callable[[Transfer], None] | None = None) -> None:
        self._changed = changed
        self._adding = threading.Lock()
        self.step: int | None = None
        self.moved_bytes = self.size_bytes = 0

    def begin(self, step: int, size_bytes: int, moved_bytes: int = 0) -> None:
        """A checkpoint sets out, or does once more.

        Args:
            moved_bytes: what an earlier try has carried of it.
        """
        self.step, self.size_bytes, self.moved_bytes = step, size_bytes, moved_bytes
        self._tell()

    def moved(self, size_bytes: int) -> None:
        """More of it has arrived."""
        with self._adding:
            self.moved_bytes += size_bytes
        self._tell()

    def end(self) -> None:
        """It has arrived, or was given up."""
        self.step = None
        self._tell()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed(self)


def readable(size_bytes: float) -> str:
    """A size for people: `3.1 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
