"""A stop, and how its time is shared out: everything that a stop waits for ends by one moment."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

#: Between SIGTERM and SIGKILL for a script that does not poll for stops, where the stop leaves so much time.
_KILL_AFTER_S = 10.0
#: What is kept back for after the ranks' end, when the last checkpoint is written, swept and uploaded: seconds at
#: most, and share of the whole.
_AFTER_RANKS = (5.0, 0.25)
#: Between SIGTERM and SIGKILL for ranks that were asked, and did not come to a step in time.
_AFTER_ASKING = (2.0, 0.125)
#: For ending the upload and for the last records.
_AT_THE_END = (0.5, 0.1)


@dataclass(frozen=True)
class Stop:
    """A stop request.

    Attributes:
        reason: a key of `verdict._STOPS`.
        at: when it came (seconds since the epoch).
        polite: whether the ranks were only asked so far, and not signalled.
        signal_at: when ranks that were asked are signalled (monotonic seconds, as the next two).
        kill_at: when they are killed.
        end: until when what they left may be written, swept and uploaded.
        detail: what people are told of it besides.
    """

    reason: str
    at: float
    polite: bool = False
    signal_at: float = 0.0
    kill_at: float = 0.0
    end: float = 0.0
    detail: str = ""

    @classmethod
    def begun(cls, reason: str, grace_s: float, *, polite: bool, detail: str = "") -> Stop:
        """A stop that came just now.

        Args:
            grace_s: how long it may take altogether.
            polite: whether the ranks were asked, and not signalled.
            detail: what people are told of it besides.
        """
        now = time.monotonic()
        kill_at = now + grace_s - _share(_AFTER_RANKS, grace_s)
        signal_at = kill_at - _share(_AFTER_ASKING, grace_s)
        if not polite:
            kill_at = now + kill_after_s(grace_s)
        end = now + grace_s - _share(_AT_THE_END, grace_s)
        return cls(reason, time.time(), polite, signal_at, kill_at, end, detail)

    @property
    def next_at(self) -> float:
        """When the ranks meet with what comes next for them."""
        return self.signal_at if self.polite else self.kill_at

    def signalled(self) -> Stop:
        """The stop once the ranks that were asked have been signalled."""
        return replace(self, polite=False)

    def within(self, left_s: float) -> Stop:
        """The stop once it has no longer than so many seconds."""
        sooner = Stop.begun(self.reason, left_s, polite=self.polite)
        return replace(
            self,
            signal_at=min(self.signal_at, sooner.signal_at),
            kill_at=min(self.kill_at, sooner.kill_at),
            end=min(self.end, sooner.end),
        )

    def at_once(self) -> Stop:
        """The stop when nobody wants to wait any longer."""
        now = time.monotonic()
        return replace(self, polite=False, signal_at=now, kill_at=now, end=now)


def kill_after_s(grace_s: float) -> float:
    """What a script that does not poll gets between SIGTERM and SIGKILL, in a stop of so many seconds."""
    return min(_KILL_AFTER_S, grace_s - _share(_AFTER_RANKS, grace_s))


def _share(most: tuple[float, float], grace_s: float) -> float:
    seconds, share = most
    return min(seconds, share * grace_s)
