"""One rented host from its launch to its end: brought up, then followed by its run directory and by its platform.

Everything here is one look at a time, so that the launcher hears its user meanwhile, and everything can be begun again
by another launcher: what starts the keeper starts nothing twice.
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

from runctl.errors import NotAllowed, RunctlError, StorageError
from runctl.outcome import UNREACHED
from runctl.rundir import RunDir
from runctl.spec import RunHandle, RunState

#: How often each source is asked (seconds); a platform bills nothing, but slows down whoever asks too often.
_STATUS_S = 6.0
#: Where the next run waits for the host.
_STATUS_OF_SHARED_S = 2.0
_HOST_S = 30.0
COMING_UP_S = 5.0
_HEARTBEAT_S = 15.0
#: An agent writes a heartbeat every 5 s; after so long without one its host is lost, or cut off.
_SILENCE_S = 180.0
#: For so long the platform may not answer before it counts as ourselves who are cut off, and silence says nothing.
_UNANSWERED_S = 90.0
#: What a host that has ended may still have on its way to storage.
_LAST_WORDS_S = 15.0


class HostWatch(ABC):
    """Looks after one host. Subclasses fill in the methods with an underscore.

    Args:
        handle: where it is.
        rundir: the run directory.
        host: its name for people.
        bring_up_s: how long it may take from its launch to the agent's first word.
        tell: takes lines for the user.
        shared: whether another run waits for the host.

    Attributes:
        why: why it ended, if the agent left no record.
    """

    def __init__(
        self,
        handle: RunHandle,
        rundir: RunDir,
        *,
        host: str,
        bring_up_s: float,
        tell: Callable[[str], None],
        shared: bool = False,
    ) -> None:
        self._handle = handle
        self._rundir = rundir
        self._host = host
        self._bring_up_s = bring_up_s
        self._tell = tell
        self._status_s = _STATUS_OF_SHARED_S if shared else _STATUS_S
        self._next: dict[str, float] = {}
        self._status: dict[str, Any] | None = None
        self._gone_since: float | None = None
        self._began_here = time.monotonic()
        self._trouble: str | None = None
        self._said: set[str] = set()
        self._beat: dict[str, Any] | None = None
        self._heard_at = self._answered_at = time.monotonic()
        self._state = RunState.PENDING
        self._last_words_s = _LAST_WORDS_S
        self.why = ""

    def look(self) -> RunState:
        """Look where the attempt stands, and do the next step of bringing it up if that is due."""
        if self._state.ended:
            return self._state
        with self._kept():
            self._read_status()
        if self._status is not None and RunState(self._status["state"]).ended:
            self._state = RunState(self._status["state"])
            return self._state
        with self._kept():
            self._look_at_host()
        if self._gone_since is not None:
            self._state = self._after_the_end(self._gone_since)
        elif self._status is None:
            self._state = self._come_up()
        elif self._silent_for_s() > _SILENCE_S:
            self.why = f"its host {self._host} has not been heard of for {_SILENCE_S:.0f} s"
            self._state = RunState.INTERRUPTED
        else:
            self._state = RunState(self._status["state"])
        return self._state

    def cancel(self, reason: str, *, now: bool) -> None:
        """Ask the agent to stop; a host that has no agent yet is simply given up.

        Raises:
            StorageError: if that cannot be asked just now.
        """
        looked = self._status is not None
        if not looked:
            self._next["status"] = 0.0  # it may have begun since the last look
            with self._kept():
                self._read_status()
                looked = True
        if looked and self._status is None:
            self.why = "stopped before the training began"
            self._state = RunState.STOPPED
            return
        self._rundir.ask_to_stop(self._handle.attempt, reason, now=now)

    @property
    def is_started(self) -> bool:
        """Whether its keeper has been started, so that it goes on without anybody here."""
        return self._is_started or self._status is not None

    @property
    def is_heard(self) -> bool:
        """Whether its agent has spoken."""
        return self._status is not None

    # --- what each platform does in its own way ---

    @abstractmethod
    def _lives(self) -> bool:
        """Whether the platform says that the host lives."""

    @abstractmethod
    def _why_gone(self) -> str:
        """Why it does not."""

    @property
    @abstractmethod
    def _is_started(self) -> bool:
        """Whether its keeper has been started."""

    @abstractmethod
    def _bring_up(self) -> RunState:
        """The next step towards the agent's first word: PENDING, or FAILED with a `why`."""

    def _unseen(self) -> str:
        """What it may be if the host was never reached; empty if that is not known."""
        return ""

    def _keep_console(self) -> None:  # noqa: B027 (not every platform has one)
        """Keep what the host printed, for it may have no other word; more than once is no error."""

    def _renew(self) -> None:  # noqa: B027 (not every platform's credentials expire)
        """Read the credentials anew: somebody may have signed in again."""

    # --- one look ---

    def _due(self, what: str, every_s: float) -> bool:
        now = time.monotonic()
        if now < self._next.get(what, 0.0):
            return False
        self._next[what] = now + every_s
        return True

    def _read_status(self) -> None:
        expected = self._status is not None or self._is_started or self._gone_since is not None
        if not self._due("status", self._status_s if expected else _HOST_S):
            return
        status = self._rundir.read_status()
        if status is None or status["attempt"] != self._handle.attempt:
            return
        if self._status is None:
            self._heard_at = time.monotonic()
            self._tell(f"the training runs on {self._host}")
        self._status = status

    def _look_at_host(self) -> None:
        every_s = _HOST_S if self._status is not None else 2 * COMING_UP_S
        if self._gone_since is None and self._due("host", every_s):
            lives = self._lives()
            self._answered_at = time.monotonic()
            if not lives:
                self._gone_since = time.monotonic()
                self._next["status"] = 0.0

    def _after_the_end(self, since: float) -> RunState:
        """What became of an attempt whose host has ended, once its last words had time to arrive."""
        if time.monotonic() - since < self._last_words_s:
            return RunState.RUNNING if self._status is not None else RunState.PENDING
        if self._status is None:
            self._keep_console()
            if (log := self._bring_up_log()) is not None:
                self.why = f"its host could not be brought up: {log}"
                return RunState.FAILED
        self.why = self._why_gone()
        return RunState.INTERRUPTED

    def _come_up(self) -> RunState:
        """The next step towards the agent's first word; where that is the last, the console is kept."""
        state = self._bring_up()
        if not state.ended and time.monotonic() - self._began_here > self._bring_up_s:
            self.why = f"its host {self._host} {UNREACHED}={self._bring_up_s / 60:g}m" + (
                f": {trouble}" if (trouble := self._trouble or self._unseen()) else ""
            )
            state = RunState.INTERRUPTED
        if state.ended:
            self._keep_console()
        return state

    def _silent_for_s(self) -> float:
        """Since when nothing was heard of the agent, reckoned by when it was heard here: clocks differ.

        Who hears of nobody, neither of storage nor of the platform, is cut off itself: that says nothing of the agent.
        """
        heard = time.monotonic() - self._answered_at > _UNANSWERED_S
        if self._due("heartbeat", _HEARTBEAT_S):
            could_look = False
            with self._kept():
                beat = self._rundir.heartbeat()
                could_look = True
                heard = heard or beat != self._beat
                self._beat = beat
            heard = heard or not could_look
        if heard:
            self._heard_at = time.monotonic()
        return time.monotonic() - self._heard_at

    def _bring_up_log(self) -> str | None:
        """The end of what a keeper wrote that could not bring its host up."""
        with contextlib.suppress(StorageError):
            data = self._rundir.store.read(bring_up_log(self._handle.attempt))
            if data is not None:
                lines = data.decode(errors="replace").strip().splitlines()[-15:]
                return "\n".join(lines)
        return None

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """A look that fails is said once and tried again: no outage of ours ends a run that lives.

        Credentials that expired meanwhile are read anew: somebody may have signed in again.
        """
        try:
            yield
        except RunctlError as error:
            if isinstance(error, NotAllowed):
                self._renew()
            self._say_trouble(str(error))

    def _say_trouble(self, trouble: str) -> None:
        """Remember what is in the way just now, and say it once."""
        self._trouble = trouble
        if trouble not in self._said:
            self._said.add(trouble)
            self._tell(f"{trouble} (tried again; the run goes on)")


def bring_up_log(attempt: int) -> str:
    """Where the log of a host that could not be brought up lies in the run directory."""
    return f"logs/a{attempt}/bring-up.log"
