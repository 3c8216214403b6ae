"""What a sweep has cost so far: what has ended, and what still runs up to now."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection

from runctl.errors import StorageError
from runctl.rundir import RunDir
from runctl.standing import attempt_cost_usd
from runctl.sweeps.book import Book
from runctl.sweeps.job import Job


def spent_usd(book: Book, jobs: Collection[Job]) -> float:
    """US dollars, as far as prices are known.

    Args:
        book: knows what jobs cost that are not among these.
        jobs: of this command, in any state.
    """
    total = book.spent_usd(job.run_id for job in jobs)
    for job in jobs:
        total += _running_usd(job) if job.state == "running" else job.cost_usd or 0.0
    return total


def _running_usd(job: Job) -> float:
    """What the attempts of a job that runs have cost up to now."""
    total = 0.0
    with contextlib.suppress(StorageError):
        for attempt in RunDir(job.url).attempts():
            total += attempt_cost_usd(attempt, time.time()) or 0.0
    return total
