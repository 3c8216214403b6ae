"""The memory of a process and all that it started, without counting what they share twice."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import psutil

_EVERY_S = 0.1


def tree_bytes(pid: int) -> int:
    """Proportional set size of a process and its descendants: a page of n processes counts 1/n in each.

    Source: Linux, Documentation/filesystems/proc.rst, `smaps_rollup`. Memory files count as well where they are
    mapped; the page cache of files that are only written does not.
    """
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in processes:
            with contextlib.suppress(OSError):  # it ended
                for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
    return total


class Peak:
    """The most memory that a tree of processes takes from `start` to `stop`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """End it.

        Returns:
            The peak in bytes.
        """
        self._done.set()
        self._thread.join()
        return max(self._bytes, tree_bytes(self._pid))

    def _watch(self) -> None:
        while not self._done.wait(_EVERY_S):
            self._bytes = max(self._bytes, tree_bytes(self._pid))
