"""What is to be said of a sweep below its table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from runctl.errors import ExitCode
from runctl.sweeps.job import Job
from runctl.sweeps.turn import Common


def on(jobs: Sequence[Job], common: Common, *, stopped: bool, coming: int) -> Iterator[str]:
    """Lines for the user.

    Args:
        jobs: all of them.
        common: what they have in common.
        stopped: whether a signal ended the sweep.
        coming: how many jobs the sweeper wanted that came to nothing for that.
    """
    other = [job for job in jobs if job.done_before and job.code not in (None, common.code)]
    if other:
        yield (
            f"{len(other)} of them were done with other code of this project than it has now, and are not done again; "
            "sweep.fresh=true begins all of them anew"
        )
    again = [job for job in jobs if job.done_before and job.failed]
    if again:
        yield f"{len(again)} of them had failed before: sweep.retry_failed=true goes on with them"
    limit = next((job.reason for job in jobs if job.exit_code == ExitCode.LIMIT and job.state == "not started"), None)
    if limit is not None:
        yield limit
    if stopped:
        yield _left_undone(jobs, coming)
    for one in common.settings.objectives:
        ended = [job for job in jobs if job.state == "succeeded"]
        if ended and all(job.values.get(one.metric) is None for job in ended):
            yield f"sweep.metric={one.metric}: no job has told of it; print it as in `step=1 {one.metric}=0.5`"


def _left_undone(jobs: Sequence[Job], coming: int) -> str:
    states = Counter(job.state for job in jobs if not job.done_before)
    counts = {"stopped": states["stopped"], "not started": states["not started"] + coming}
    parts = [f"{count} {state}" for state, count in counts.items() if count]
    if not parts:
        return "all of it had ended when it was stopped"
    return f"{', '.join(parts)}: the same command goes on with {'them' if sum(counts.values()) > 1 else 'it'}"
