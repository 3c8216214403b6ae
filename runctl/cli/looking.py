"""Many run directories looked at, several at once, for no longer than somebody waits."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from runctl.errors import RunctlError

T = TypeVar("T")
_AT_ONCE = 16


def at_once(urls: Sequence[str], look: Callable[[str], T], within_s: float) -> tuple[dict[str, T], dict[str, str]]:
    """Look at each.

    Args:
        urls: of run directories.
        look: what there is to be seen in one of them.
        within_s: how long all of them may take together.

    Returns:
        What was seen, by run directory, and of those that did not answer in time or at all, why.
    """
    answers: queue.SimpleQueue[tuple[str, T | None, str]] = queue.SimpleQueue()
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for url in urls:
        waiting.put(url)

    def work() -> None:
        while True:
            try:
                url = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                answers.put((url, look(url), ""))
            except RunctlError as error:
                answers.put((url, None, str(error)))
            except Exception as error:  # noqa: BLE001 (whatever one run directory holds, the others are to be shown)
                answers.put((url, None, f"{url} cannot be read: {error}"))

    for _ in range(min(_AT_ONCE, len(urls))):
        # Daemons: one that hangs on a dead network does not keep the command.
        threading.Thread(target=work, daemon=True).start()
    found: dict[str, T] = {}
    silent = {url: f"its run directory did not answer within {within_s:g} s" for url in urls}
    deadline = time.monotonic() + within_s
    for _ in urls:
        try:
            url, seen, why = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if why:
            silent[url] = why
        else:
            assert seen is not None
            found[url] = seen
            del silent[url]
    return found, silent
