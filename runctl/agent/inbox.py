"""What the agent is told: lines of JSON from its launcher, signals, and what threads of its own have heard.

Light: read before anything is imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
from dataclasses import dataclass
from types import FrameType

_REASONS = {signal.SIGTERM: "terminated", signal.SIGINT: "user", signal.SIGHUP: "hangup"}


@dataclass(frozen=True)
class Request:
    """A stop request.

    Attributes:
        reason: a key of the verdict's stops.
        now: whether the ranks are left no time.
        host_ends_at: when the host will be taken away (seconds since the epoch), or None.
        detail: what people are told of it besides.
    """

    reason: str
    now: bool = False
    host_ends_at: float | None = None
    detail: str = ""


class Inbox:
    """Standard input as a launcher writes it, read without a buffer that `select` could not see into.

    Args:
        fd: the pipe from the launcher; None without one, who then never goes.
    """

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._begun = b""
        # Signal handlers and threads put into it: no other queue may be entered again from within itself.
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
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

    def post(self, request: Request) -> None:
        """Add a request, from any thread; it is heard at the next `wait`."""
        self._requests.put(request)

    def wait(self, fds: list[int], timeout_s: float) -> list[Request]:
        """Wait until there is something to do, and take the requests that came.

        Args:
            fds: other descriptors whose readability ends the wait.
            timeout_s: seconds to wait at most.
        """
        watched = [*fds, *([] if self.gone or self._fd is None else [self._fd])]
        waiting = b"\n" in self._begun or not self._requests.empty()
        ready, _, _ = select.select(watched, [], [], 0 if waiting else timeout_s)
        if self._fd in ready:
            self._read()
        *lines, self._begun = self._begun.split(b"\n")
        for line in lines:
            told = json.loads(line)
            self.post(Request(told["reason"], told["now"]))
        requests = []
        with contextlib.suppress(queue.Empty):
            while True:
                requests.append(self._requests.get_nowait())
        return requests

    def _read(self) -> None:
        assert self._fd is not None
        data = os.read(self._fd, 4096)
        self._begun += data
        self.gone = not data

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.post(Request(_REASONS[signal.Signals(signum)]))
