"""A stop of an attempt, asked for until it could be: who asked once does not ask again, and storage may be away."""

from __future__ import annotations

from collections.abc import Callable

from runctl.errors import StorageError
from runctl.platforms.base import Platform
from runctl.spec import RunHandle


class Stop:
    """Asks an attempt to stop, again and again where it cannot be asked just now.

    Args:
        platform: whose it is.
        handle: the attempt.
        tell: takes lines for the user.

    Attributes:
        is_asked: whether somebody wants it to stop.
    """

    def __init__(self, platform: Platform, handle: RunHandle, tell: Callable[[str], None]) -> None:
        self._platform = platform
        self._handle = handle
        self._tell = tell
        self._wish: tuple[str, bool] | None = None
        self._said = ""
        self.is_asked = False

    def ask(self, reason: str, *, now: bool = False) -> None:
        """Ask it to end, gracefully or `now`."""
        self._wish, self.is_asked = (reason, now), True
        self.ask_again()

    def ask_again(self) -> None:
        """Ask once more what could not be asked before."""
        if self._wish is None:
            return
        try:
            self._platform.cancel(self._handle, self._wish[0], now=self._wish[1])
            self._wish = None
        except StorageError as error:
            if str(error) != self._said:
                self._tell(f"the stop cannot be asked for just now, and is as soon as it can: {error}")
            self._said = str(error)
