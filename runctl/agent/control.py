"""What is asked for through the run directory, from anywhere: a stop, a checkpoint, more time."""

from __future__ import annotations

import threading

from runctl import extension, saves
from runctl.agent.inbox import Inbox, Request
from runctl.errors import StorageError
from runctl.extension import Extension
from runctl.rundir import RunDir, StopRequest
from runctl.saves import SaveRequest


class ControlWatch(threading.Thread):
    """Looks every few seconds, in a thread of its own: storage may be slow, or gone for a while.

    Args:
        rundir: where it is asked for.
        attempt: the attempt that may be meant.
        inbox: what hears of a stop.

    Attributes:
        extension: the last that was asked for, or None.
        save: likewise of a checkpoint, whether or not it has been saved.
    """

    INTERVAL_S = 3.0

    def __init__(self, rundir: RunDir, attempt: int, inbox: Inbox) -> None:
        super().__init__(name="runctl-control", daemon=True)
        self._rundir = rundir
        self._attempt = attempt
        self._inbox = inbox
        self._ended = threading.Event()
        self.extension: Extension | None = None
        self.save: SaveRequest | None = None

    def run(self) -> None:
        """Look, until `end`; each stop is passed on once."""
        heard: StopRequest | None = None
        while not self._ended.is_set():
            stop = None
            try:
                stop = self._rundir.stop_request(self._attempt)
                self.save = saves.asked(self._rundir, self._attempt) or self.save
                self.extension = extension.asked(self._rundir, self._attempt) or self.extension
            except StorageError:
                pass  # it works again some time, and the limits of the host hold without it
            if stop is not None and stop != heard:
                heard = stop
                self._inbox.post(Request(stop.reason, stop.now))
            self._ended.wait(self.INTERVAL_S)

    def end(self) -> None:
        """Look no more, without waiting for a look that goes on."""
        self._ended.set()
