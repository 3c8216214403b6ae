"""Word that a host is about to be taken away, whoever brings it."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Notice:
    """Word that this host is about to be taken away, or may be.

    Attributes:
        kind: `interruption`, or `rebalance` for a mere recommendation.
        action: what will be done to the host: `terminate`, `stop`, `hibernate`; of a recommendation empty.
        at: when it will be done, or when the recommendation came (seconds since the epoch).
    """

    kind: str
    action: str
    at: float


class Notices(threading.Thread):
    """Looks for notices in a thread of its own, until `end`. Subclasses know where.

    Args:
        tell: called in the thread with each notice, once.
    """

    INTERVAL_S: float

    def __init__(self, tell: Callable[[Notice], None]) -> None:
        super().__init__(name="runctl-notices", daemon=True)
        self._tell = tell
        self._ended = threading.Event()

    def run(self) -> None:
        """Look, until `end`."""
        while not self._ended.is_set():
            self._look()
            self._ended.wait(self.INTERVAL_S)

    def end(self) -> None:
        """Look no more, without waiting for a look that goes on."""
        self._ended.set()

    @abstractmethod
    def _look(self) -> None:
        """Look once, and tell what is new."""
