"""A remote attempt's output on the user's terminal, from the run directory, as it arrives there."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

from runctl.checkpoint import progress
from runctl.errors import StorageError
from runctl.rundir import RunDir

#: A segment comes alone as a rule, so a look is one request; when it finds one, the rest is asked for a little later.
_LOOK_S = 3.0
_AGAIN_S = 1.5
_ALL = sys.maxsize
#: What was written last may still be on its way when the attempt's end is known.
_LAST_WORDS_S = 10.0


class Follower:
    """Copies an attempt's console to a descriptor, in a thread.

    Args:
        rundir: where the attempt writes.
        attempt: its number.
        fd: where to.
        begin: the first segment to show; those before it have been seen.
    """

    def __init__(self, rundir: RunDir, attempt: int, fd: int, begin: int = 0) -> None:
        self._rundir = rundir
        self._attempt = attempt
        self._fd: int | None = fd
        self._next = begin
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="runctl-follower", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def leave(self) -> None:
        """Show no more; what has not been shown stays in the run directory."""
        self._fd = None
        self._ended.set()

    def finish(self) -> None:
        """Show what is there yet, now that the attempt has ended."""
        self._ended.set()
        self._thread.join(_LAST_WORDS_S)

    def _run(self) -> None:
        again = True  # there may be much already
        while not self._ended.wait(_AGAIN_S if again else _LOOK_S):
            again = self._show(at_most=_ALL if again else 1) == 1 and not again
        deadline = time.monotonic() + _LAST_WORDS_S / 2
        while self._fd is not None and self._show() and time.monotonic() < deadline:
            pass

    def _show(self, at_most: int = _ALL) -> int:
        """Show segments that have arrived; how many there were."""
        before = self._next
        with contextlib.suppress(StorageError):  # an outage here is none of the training's; the next look tells more
            while self._fd is not None and self._next - before < at_most:
                data = self._rundir.console_segment(self._attempt, self._next)
                if data is None:
                    break
                self._next += 1
                self._write(data)
        return self._next - before

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            with progress.apart(ends_line=data.endswith(b"\n")):
                while view and self._fd is not None:
                    view = view[os.write(self._fd, view) :]
        except OSError:
            self._fd = None  # whoever read has gone; the run goes on
