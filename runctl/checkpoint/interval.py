"""How often a checkpoint is worth its cost, worked out while the training runs (standard library only).

A short interval costs the training more stalls, a long one more work when it is interrupted. The best one in between
is Young's (1974) and Daly's (2006); what they call the cost of a dump is here what the training loop waits for a save,
for everything else is done beside it by other processes. That a checkpoint counts only when it is written and has
arrived, a while after its stall, makes an interruption lose more, but the same more at every interval, so it moves the
best one not at all.

The overhead is flat around its least: an interval half or twice the best costs a quarter more of it. So a mean time to
interruption that is wrong by a factor of four, for it is a guess, does no more harm than that.
"""

from __future__ import annotations

import math
import statistics
from collections import deque

from runctl.durations import readable

#: The first save, so long after the first step: early enough for what an interruption in the first minutes would lose
#: and to find out soon whether what is saved would load, and the only way to measure what a save costs.
FIRST_S = 10.0
#: A small model's stall is a millisecond, for which the formula would have it saved every few seconds. But a save has
#: costs besides: the writer's share of the processor and the disk, a file from each rank, requests to object storage
#: that are paid by the piece. And a restart alone, with its imports and its restore, takes about as long as this.
FLOOR_S = 10.0
#: The mean time is guessed and interruptions come in crowds: nobody should lose more than an hour's work to a wrong
#: guess, and a save once an hour is cheap even with a stall of half a minute (0.8 %).
CEILING_S = 3600.0

_RECENT = 5
_NOTICEABLE = 2.0


def best_s(cost_s: float, mean_time_to_interruption_s: float) -> float:
    """The compute time between two checkpoints at which the least time is lost.

    Young's first order is sqrt(2 δ M). Daly's perturbation solution of the complete cost function goes on to
    sqrt(2 δ M) · [1 + ⅓ (δ / 2M)^½ + ⅑ (δ / 2M)] − δ for δ < 2M; from there on, where no interval pays, it is M.

    Args:
        cost_s: δ, what one checkpoint costs the training (s), 0 or more.
        mean_time_to_interruption_s: M, of interruptions that come independently of each other (s), above 0.

    Returns:
        Seconds from the end of one checkpoint to the begin of the next.

    Sources:
        J. W. Young, A first order approximation to the optimum checkpoint interval, CACM 17 (1974) 530–531.
        J. T. Daly, A higher order estimate of the optimum checkpoint interval for restart dumps, Future Generation
        Computer Systems 22 (2006) 303–312, doi 10.1016/j.future.2004.11.016.
    """
    if cost_s >= 2 * mean_time_to_interruption_s:
        return mean_time_to_interruption_s
    ratio = cost_s / (2 * mean_time_to_interruption_s)
    young_s = math.sqrt(2 * cost_s * mean_time_to_interruption_s)
    return young_s * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost_s


class AutoInterval:
    """The interval of `checkpoint.every=auto`: begins at `FIRST_S` and is worked out anew after each save and upload.

    Args:
        mean_time_to_interruption_s: how long the platform lets a host run on average (s).

    Attributes:
        seconds: from one save to the next.
    """

    def __init__(self, mean_time_to_interruption_s: float) -> None:
        self._interruption_s = mean_time_to_interruption_s
        self._stalls_s: deque[float] = deque(maxlen=_RECENT)
        self._written_s: deque[float] = deque(maxlen=_RECENT)
        self._uploads_s: deque[float] = deque(maxlen=_RECENT)
        self._why = ""
        self._told_s: float | None = None
        self.seconds = FIRST_S

    def saved(self, stall_s: float, took_s: float) -> None:
        """Take in one save.

        Args:
            stall_s: what the training loop waited for it.
            took_s: what the writer took to write it.
        """
        self._stalls_s.append(stall_s)
        self._written_s.append(took_s)
        self._estimate()

    def uploaded(self, took_s: float) -> None:
        """Take in one upload: the time (s) from a checkpoint's commit to its arrival."""
        self._uploads_s.append(took_s)
        self._estimate()

    def news(self) -> str | None:
        """A sentence for people when there is an interval to tell: the first one, and one that is much different."""
        if not self._stalls_s:
            return None
        if self._told_s is not None and 1 / _NOTICEABLE < self.seconds / self._told_s < _NOTICEABLE:
            return None
        self._told_s = self.seconds
        return f"a checkpoint every {readable(self.seconds)} (auto: {self._why})"

    def _estimate(self) -> None:
        if not self._stalls_s:
            return
        # The median, for the first copy and one that met a busy machine say nothing about the next.
        stall_s = statistics.median(self._stalls_s)
        best = best_s(stall_s, self._interruption_s)
        why = f"{readable(stall_s)} stall, one interruption in {readable(self._interruption_s)}"
        bounds = [(min(max(best, FLOOR_S), CEILING_S), why)]
        if best < FLOOR_S:
            bounds[0] = (FLOOR_S, f"{why}; no more often than every {readable(FLOOR_S)}")
        elif best > CEILING_S:
            bounds[0] = (CEILING_S, f"{why}; no less often than every {readable(CEILING_S)}")
        # The slowest of the last ones: a save that is due too early is put off, after all ranks have met for it.
        written_s = max(self._written_s)
        bounds.append((written_s, f"writing one takes {readable(written_s)}"))
        if self._uploads_s:
            # What is committed on this host is worth something as well, so a storage that hardly moves does not end it.
            upload_s = min(statistics.median(self._uploads_s), CEILING_S)
            bounds.append((upload_s, f"uploading one takes {readable(upload_s)}"))
        self.seconds, self._why = max(bounds, key=lambda bound: bound[0])
