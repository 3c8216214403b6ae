"""Work that takes long before there are ranks or after them, done in a thread so that stops and limits are heard."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

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


def at_once(jobs: Iterable[Callable[[], None]], workers: int, name: str) -> None:
    """Have jobs done, several at once.

    Args:
        jobs: each in a thread; after one that fails none is begun, and those that were are waited for.
        workers: how many threads.
        name: of the threads.

    Raises:
        Exception: what the first of them raised.
    """
    pool = ThreadPoolExecutor(workers, name)
    try:
        futures = [pool.submit(job) for job in jobs]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            future.cancel()
        wait(futures)
        for future in futures:
            if not future.cancelled():
                future.result()
    finally:
        pool.shutdown()
