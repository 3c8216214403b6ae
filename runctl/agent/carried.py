"""Work that takes long before there are ranks or after them, done in a thread so that stops and limits are heard."""

from __future__ import annotations

import threading
from collections.abc import Callable

from runctl.errors import RunctlError

_LOOK_S = 0.05


def carried(
    work: Callable[[], None], stop: threading.Event, meanwhile: Callable[[], None], stopped: Callable[[], bool]
) -> list[RunctlError]:
    """Have something done.

    Args:
        work: what; it ends soon once `stop` is set.
        stop: set when it is not wanted any more.
        meanwhile: called again and again.
        stopped: whether it is not wanted any more.

    Returns:
        What went wrong.
    """
    errors: list[RunctlError] = []

    def run() -> None:
        try:
            work()
        except RunctlError as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="runctl-work", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK_S)
        meanwhile()
        if stopped():
            stop.set()
    return errors
