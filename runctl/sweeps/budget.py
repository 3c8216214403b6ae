"""What a sweep has cost so far: what has ended, and what still runs or is brought up, until now."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection

from runctl.cost import cost_usd
from runctl.errors import StorageError
from runctl.outcome import Attempt
from runctl.rundir import RunDir
from runctl.standing import attempt_cost_usd
from runctl.sweeps.book import Book
from runctl.sweeps.job import Job

#: States of jobs of which nothing has run in this command.
_NOT_RUN = ("waiting", "not started")


def spent_usd(book: Book, jobs: Collection[Job]) -> float:
    """US dollars, as far as prices are known.

    Args:
        book: knows what jobs cost that are not among these.
        jobs: of this command, in any state.
    """
    total = book.spent_usd(job.run_id for job in jobs)
    for job in jobs:
        if job.state == "running" or (job.cost_usd is None and job.url and job.state not in _NOT_RUN):
            total += _until_now_usd(job)
        else:
            total += job.cost_usd or 0.0
    return total


def _until_now_usd(job: Job) -> float:
    """What the attempts of a job have cost whose prices are known, and the host that is to carry out its next one."""
    total = 0.0
    with contextlib.suppress(StorageError):
        rundir = RunDir(job.url)
        attempts = rundir.attempts()
        total += sum(attempt_cost_usd(one, time.time()) or 0.0 for one in attempts)
        if job.state == "running" and (not attempts or attempts[-1].state.ended):
            total += _coming_up_usd(rundir, attempts)
    return total


def _coming_up_usd(rundir: RunDir, attempts: list[Attempt]) -> float:
    """What a rented host has cost that was granted for the next attempt, and whose agent has not spoken yet."""
    submitted = rundir.submission(attempts[-1].number + 1 if attempts else 1)
    where = submitted[1].address if submitted is not None and submitted[1] is not None else {}
    if "launched_at" not in where or where.get("stays"):  # one that stays was rented for something else
        return 0.0
    since = where.get("billed_from", where["launched_at"])
    return cost_usd(where.get("price_usd_per_hour"), max(0.0, time.time() - since)) or 0.0
