"""How fast the training goes, and how far it has to."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from runctl.hostdir import HostDir

_WINDOW_S = 60.0


class Pace:
    """Steps a second over the last minute, and the steps there will be where the training says so.

    Args:
        host_dir: where rank 0 leaves word of its loop's length.
    """

    def __init__(self, host_dir: HostDir) -> None:
        self._host_dir = host_dir
        self._seen: deque[tuple[float, int]] = deque()

    def progress(self, step: int | None) -> dict[str, Any]:
        """What the heartbeat tells: `steps_per_s`, and `total_steps` or `epochs`.

        Args:
            step: the last one completed, or None.
        """
        now = time.monotonic()
        if step is None or (self._seen and step < self._seen[-1][1]):
            self._seen.clear()  # the ranks were restarted
        if step is not None:
            self._seen.append((now, step))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()
        told: dict[str, Any] = dict(self._host_dir.told("length").get(0) or {})
        if len(self._seen) > 1:
            (before, first), (_, last) = self._seen[0], self._seen[-1]
            told["steps_per_s"] = round((last - first) / (now - before), 4)
        return told
