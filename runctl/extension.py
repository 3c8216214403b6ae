"""More time for an attempt that lives, asked for through its run directory.

control/extend.json   how long the attempt may train altogether
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from runctl.encoding import dumps
from runctl.rundir import RunDir
from runctl.spec import Plan, RunHandle

_NAME = "control/extend.json"


@dataclass(frozen=True)
class Extension:
    """More time.

    Attributes:
        attempt: that is meant; others keep the limit of the launch.
        max_time_s: how long it may train altogether.
        at: when it was asked for (seconds since the epoch).
    """

    attempt: int
    max_time_s: float
    at: float


def ask(rundir: RunDir, attempt: int, max_time_s: float) -> None:
    """Ask an attempt to take so long altogether; it looks every few seconds."""
    rundir.store.write(_NAME, dumps(Extension(attempt, max_time_s, time.time())).encode())


def asked(rundir: RunDir, attempt: int) -> Extension | None:
    """What an attempt was asked last, or None.

    Raises:
        StorageError: if that cannot be read.
    """
    found = rundir.read_as(Extension, _NAME)
    return found if found is not None and found.attempt == attempt else None


def put_off_s(rundir: RunDir, attempt: int) -> float:
    """By how long an attempt's limit of time, and with it its host's deadline, was put off (seconds).

    Raises:
        StorageError: if that cannot be read.
    """
    more = asked(rundir, attempt)
    return 0.0 if more is None else more.max_time_s - (rundir.read_spec().limits.max_time_s or more.max_time_s)


def host_ends_at(rundir: RunDir, attempt: int) -> float | None:
    """When the host of an attempt ends itself (seconds since the epoch), put off or not; None where that is not known.

    Raises:
        StorageError: if the run directory cannot be read.
    """
    submitted = rundir.submission(attempt)
    at = None if submitted is None or submitted[1] is None else deadline(submitted[0], submitted[1])
    return None if at is None else at + put_off_s(rundir, attempt)


def deadline(plan: Plan, handle: RunHandle) -> float | None:
    """When a rented host ends itself, as it was rented (seconds since the epoch); None where nothing was said."""
    lives_s = plan.orders.get("lives_s")
    return None if lives_s is None else handle.address["launched_at"] + lives_s
