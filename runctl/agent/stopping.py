"""The stop of one attempt: from the first request to the signal that leaves no choice."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

from runctl import processes
from runctl.agent.checkpoints import Checkpoints
from runctl.agent.inbox import Inbox, Request
from runctl.agent.ranks import Ranks
from runctl.agent.stop import Stop, kill_after_s

#: What is left of a notice's time for the records and the host's own end, when checkpoints and outputs had theirs:
#: seconds at most, and share of the whole.
MARGIN_S, _MARGIN_SHARE = 15.0, 0.25
TICK_S = 0.2


class Stopping:
    """Takes in stop requests, and carries the first one out: ask, signal, kill.

    Args:
        inbox: where requests come from.
        checkpoints: through which ranks that look out for it are asked.
        attached: whether the launcher's end is a request.
        grace_s: how long a stop may take, from the request to the last rank's end.
        announce: called once, with the reason, when ranks are being stopped.

    Attributes:
        stop: the stop, once there is one.
        kill_after_s: between SIGTERM and SIGKILL.
    """

    def __init__(
        self, inbox: Inbox, checkpoints: Checkpoints, *, attached: bool, grace_s: float,
        announce: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._inbox = inbox
        self._checkpoints = checkpoints
        self._attached = attached
        self._grace_s = grace_s
        self._announce = announce
        self.kill_after_s = kill_after_s(grace_s)
        self.stop: Stop | None = None

    def hear(self, ranks: Ranks | None, fds: list[int], timeout_s: float = TICK_S) -> None:
        """Wait a little, and take in the requests that came; the launcher's end is one.

        Args:
            ranks: those that run, or None.
            fds: descriptors whose readability ends the wait.
            timeout_s: seconds to wait at most.
        """
        gone = self._inbox.gone
        for request in self._inbox.wait(fds, timeout_s):
            self.ask(ranks, request)
        if self._inbox.gone and not gone and self._attached:
            self.ask(ranks, Request("launcher_gone"))

    def heard(self) -> bool:
        """Whether a stop has come before the ranks were started."""
        self.hear(None, [], 0)
        return self.stop is not None

    def left_s(self) -> float:
        """Seconds that the last upload, and all else that follows the ranks, may still take.

        Without a stop they may take any time, and after one as well where the host goes with all that is on it; but
        not longer than a notice allows, and no longer at all once somebody wants it to end now.
        """
        return math.inf if self.stop is None else self.stop.end - time.monotonic()

    def ask(self, ranks: Ranks | None, request: Request) -> None:
        """Ask or signal the ranks that still run, once; a request for now leaves them no time."""
        left_s = math.inf
        if request.host_ends_at is not None:
            whole_s = max(0.0, request.host_ends_at - time.time())
            left_s = whole_s - min(MARGIN_S, _MARGIN_SHARE * whole_s)
        if self.stop is not None:
            if request.now:
                self.stop = self.stop.at_once()
            elif request.host_ends_at is not None:
                self.stop = self.stop.within(left_s)
            return
        polite = ranks is not None and not request.now and self._checkpoints.ask_to_stop()
        stop = Stop.begun(request.reason, min(self._grace_s, left_s), polite=polite, detail=request.detail)
        if not self._attached or request.host_ends_at is not None:
            # Where the host goes with all that is on it, what the ranks left gets all the time there is.
            stop = replace(stop, end=time.monotonic() + left_s)
        self.stop = stop.at_once() if request.now else stop
        if ranks is None:
            return
        if not polite:
            ranks.stop()
        self._announce(request.reason)

    def enforce(self, ranks: Ranks) -> None:
        """Once the time is over, signal ranks that were only asked so far, and kill those that were signalled."""
        if self.stop is None or time.monotonic() <= self.stop.next_at:
            return
        if self.stop.polite:
            self.stop = self.stop.signalled()
            ranks.stop()
        else:
            # A checkpoint that is being written already gets the rest of the time.
            processes.end_descendants(but=[self._checkpoints.upload_pid, self._checkpoints.writer_at_work])

    def heeded(self, stop: Stop | None) -> Stop | None:
        """The stop, unless the ranks that were asked came to their own end before they met for it."""
        if stop is not None and stop.polite and self._checkpoints.stopped_at_step() is None:
            return None
        return stop
