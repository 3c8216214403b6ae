"""Questions to a platform that are asked at once, and for which nobody waits longer than he wants."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from runctl.errors import ConfigError, RunctlError

T = TypeVar("T")


class Asked(Generic[T]):
    """A question in a thread of its own: not of a pool, whose threads are waited for at the interpreter's end.

    Args:
        whom: the platform.
        what: is asked, for people.
        ask: asks.
    """

    def __init__(self, whom: str, what: str, ask: Callable[[], T]) -> None:
        self._whom = whom
        self._what = what
        self._answers: queue.Queue[tuple[T | None, Exception | None]] = queue.Queue()

        def carry_out() -> None:
            try:
                self._answers.put((ask(), None))
            except Exception as error:  # noqa: BLE001 (raised where the answer is taken)
                self._answers.put((None, error))

        threading.Thread(target=carry_out, name="runctl-look", daemon=True).start()

    def result(self, until: float, unknown: list[str]) -> T | None:
        """The answer, or None if it does not come; then `unknown` says so. It is taken once.

        Args:
            until: when it must have come (`time.monotonic`).
            unknown: takes what is not known.

        Raises:
            ConfigError: as asking.
        """
        try:
            answer, error = self._answers.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            unknown.append(f"{self._what}: {self._whom} has not answered in time")
            return None
        if error is not None and (isinstance(error, ConfigError) or not isinstance(error, RunctlError)):
            raise error
        if error is not None:
            unknown.append(str(error))
        return answer
