"""What the agent is told: lines of JSON from its launcher, and signals. Light: read before anything is imported."""

from __future__ import annotations

import json
import os
import select
import signal
from dataclasses import dataclass
from types import FrameType

_REASONS = {signal.SIGTERM: "terminated", signal.SIGINT: "user", signal.SIGHUP: "hangup"}


@dataclass(frozen=True)
class Request:
    """A stop request: why, and whether the ranks are left no time."""

    reason: str
    now: bool = False


class Inbox:
    """Standard input as a launcher writes it, read without a buffer that `select` could not see into.

    Args:
        fd: the pipe from the launcher.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._begun = b""
        self._requests: list[Request] = []
        #: Whether the launcher's end is closed: it has gone.
        self.gone = False

    def read_order(self) -> bytes:
        """Wait for the first line; empty if the launcher went without one."""
        while b"\n" not in self._begun and not self.gone:
            self._read()
        line, _, self._begun = self._begun.partition(b"\n")
        return line

    def catch_signals(self) -> None:
        """Turn signals to the agent (a pod's end, `kill`) into stop requests."""
        for signum in _REASONS:
            if signal.getsignal(signum) is not signal.SIG_IGN:  # as nohup has left it
                signal.signal(signum, self._note)

    def wait(self, fds: list[int], timeout_s: float) -> list[Request]:
        """Wait until there is something to do, and take the requests that came.

        Args:
            fds: other descriptors whose readability ends the wait.
            timeout_s: seconds to wait at most.
        """
        watched = [*fds, *([] if self.gone else [self._fd])]
        ready, _, _ = select.select(watched, [], [], 0 if b"\n" in self._begun or self._requests else timeout_s)
        if self._fd in ready:
            self._read()
        *lines, self._begun = self._begun.split(b"\n")
        for line in lines:
            told = json.loads(line)
            self._requests.append(Request(told["reason"], told["now"]))
        requests, self._requests = self._requests, []
        return requests

    def _read(self) -> None:
        data = os.read(self._fd, 4096)
        self._begun += data
        self.gone = not data

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._requests.append(Request(_REASONS[signal.Signals(signum)]))
