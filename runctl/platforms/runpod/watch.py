"""One pod from its launch to its end: its run directory, what RunPod says of it, and the line to it if there is one."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from runctl.errors import RunctlError
from runctl.platforms.runpod.line import Line
from runctl.platforms.runpod.pods import Pod
from runctl.platforms.watching import COMING_UP_S, HostWatch
from runctl.rundir import RunDir
from runctl.spec import RunHandle, RunState

#: How often RunPod is asked for a pod whose line is broken.
_TROUBLE_S = 5.0

#: How long two rounds may take before a stop, and how often to look whether they are done.
_NEWS_S = 10.0
_LOOK_S = 0.05
#: Tries at putting down what a pod is to fetch.
_TRIES = 4
_NOT_FETCHED = (
    "its agent never spoke; its image must have Python and bash, and the keys that RunPod keeps must open run.root: "
    "the pod's log at https://console.runpod.io/pods tells what was in the way"
)


class PodWatch(HostWatch):
    """Looks after one pod. Subclasses bring it what it needs.

    Args:
        handle: where it is.
        rundir: the run directory.
        look_up: what RunPod says of the pod just now.
        others: as `HostWatch`.
    """

    def __init__(self, handle: RunHandle, rundir: RunDir, *, look_up: Callable[[], Pod], **others: Any) -> None:
        super().__init__(handle, rundir, host=handle.address["instance"], **others)
        self._look_up = look_up
        self._pod: Pod | None = None

    @property
    def handle(self) -> RunHandle:
        """Where the pod is."""
        return self._handle

    @property
    def run_dir(self) -> str:
        """The run directory's place."""
        return self._rundir.url

    @abstractmethod
    def close(self) -> None:
        """Let go of it, without waiting."""

    def _lives(self) -> bool:
        self._pod = self._look_up()
        return self._pod.alive

    def _why_gone(self) -> str:
        assert self._pod is not None
        return f"RunPod took its pod {self._host} back, or it ended ({self._pod.state}), without the agent's last word"


class FetchingWatch(PodWatch):
    """Looks after a pod that fetches what it needs.

    Args:
        put: puts that down, once however often it is called.
        others: as `PodWatch`.
    """

    def __init__(self, *args: Any, put: Callable[[], None], **others: Any) -> None:
        super().__init__(*args, **others)
        self._put = put
        self._lies_there = False
        self._tries = 0

    def close(self) -> None:
        """Nothing is held."""

    @property
    def _is_started(self) -> bool:
        return self._lies_there

    def _bring_up(self) -> RunState:
        if not self._lies_there and self._due("put", COMING_UP_S):
            try:
                self._put()
                self._lies_there = True
                self._next["status"] = 0.0  # from now on it may speak
            except RunctlError as error:
                self._tries += 1
                if self._tries == _TRIES:
                    self.why = f"what its pod {self._host} is to fetch cannot be put down: {error}"
                    return RunState.FAILED
                self._say_trouble(str(error))
        return RunState.PENDING

    def _unseen(self) -> str:
        return _NOT_FETCHED

    def _why_gone(self) -> str:
        return super()._why_gone() + ("" if self._status is not None else f": {_NOT_FETCHED}")


class LineWatch(PodWatch):
    """Looks after a pod that is reached over SSH.

    Args:
        line: to the pod; started with the first look.
        others: as `PodWatch`.
    """

    def __init__(self, *args: Any, line: Line, **others: Any) -> None:
        super().__init__(*args, **others)
        self._line = line
        self._rounds = 0
        if line.is_mirrored:
            self._last_words_s = 0.0  # they would have come over the line

    def look(self) -> RunState:
        """As every watch; and what is in the way of the line is said."""
        if self._line.ident is None:
            self._line.start()
        if self._line.rounds != self._rounds:
            self._rounds, self._next["status"] = self._line.rounds, 0.0  # there may be news
        if self._line.trouble is not None and self._due("trouble", _TROUBLE_S):
            self._next["host"] = 0.0  # the pod may have gone
        if self._gone_since is None and (self._line.lost or self._line.widowed):
            self._gone_since = time.monotonic()
            self._next["status"] = 0.0
        state = super().look()
        trouble = self._line.trouble if self._line.is_mirrored and self._status is not None else None
        if not state.ended and trouble is not None:
            self._say_trouble(trouble)
        return state

    def cancel(self, reason: str, *, now: bool) -> None:
        """As every watch's; an agent whose first word is on its way is waited for, and not given up."""
        if self._status is None and self._line.started:
            # The round that goes on may have looked just before it spoke: the next one brings its word.
            after, until = self._line.rounds + 1, time.monotonic() + _NEWS_S
            while self._line.rounds <= after and time.monotonic() < until and self._line.trouble is None:
                time.sleep(_LOOK_S)
        super().cancel(reason, now=now)

    def close(self) -> None:
        """Let go of the line; a round that goes on is not waited for."""
        self._line.leave()

    def _why_gone(self) -> str:
        if self._line.lost is not None:
            return self._line.lost
        if self._line.widowed is not None:
            return f"{self._line.widowed} on pod {self._host}, without a last word"
        return super()._why_gone()

    @property
    def _is_started(self) -> bool:
        return self._line.started

    def _bring_up(self) -> RunState:
        line = self._line
        if line.broken is not None:
            self.why = f"its host could not be brought up: {self._bring_up_log() or line.broken}"
            return RunState.FAILED
        if line.failed is not None:
            self.why = f"its pod {self._host} cannot be brought what it needs: {line.failed}"
            return RunState.FAILED
        self._trouble = line.trouble or self._trouble
        return RunState.PENDING

    def _unseen(self) -> str:
        return "it never told the address of its SSH: its image must start sshd, and 22/tcp be among its ports"
