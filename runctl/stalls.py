"""When a training counts as stalled: no new step for a minute, and for ten times what its steps take (pure)."""

from __future__ import annotations

from collections import deque

LEAST_S = 60.0
TIMES = 10.0
_REMEMBERED = 50


class StepWatch:
    """Learns from the news of steps how often there are any, and says when there have been none for too long.

    What counts is how often a new step is heard of, not how fast steps are: many trainings tell of every hundredth.
    """

    def __init__(self) -> None:
        self._step: int | None = None
        self._at = 0.0
        self._gaps_s: deque[float] = deque(maxlen=_REMEMBERED)

    def note(self, step: int | None, at: float) -> None:
        """Take in the newest step, as often as it is looked at.

        Args:
            step: the last one completed; None, or one before the last, of ranks that began anew.
            at: when it was heard of (seconds).
        """
        if step == self._step:
            return
        if step is not None and self._step is not None and step > self._step:
            self._gaps_s.append(at - self._at)
        self._step, self._at = step, at

    def stalled_s(self, now: float) -> float | None:
        """For how long there has been no step, if that is too long; before the second step nothing is."""
        if self._step is None or not self._gaps_s:
            return None
        usual_s = sorted(self._gaps_s)[len(self._gaps_s) // 2]
        waited_s = now - self._at
        return waited_s if waited_s > max(LEAST_S, TIMES * usual_s) else None
