"""The record of an attempt whose agent could leave none: what its launcher knows of its end."""

from __future__ import annotations

import contextlib
import os
import time

from runctl import extension
from runctl.errors import ExitCode, RunctlError, StorageError
from runctl.outcome import Attempt
from runctl.platforms.base import Platform
from runctl.rundir import RunDir
from runctl.spec import Plan, RunHandle, RunState

#: How long a host that is gone may have lived after its agent's last word: a launcher that is awake hears of its end,
#: or gives it up, by then.
_HEARD_OF_S = 180.0


def settled(
    platform: Platform, rundir: RunDir, attempt: Attempt, *, plan: Plan, handle: RunHandle, state: RunState
) -> Attempt:
    """The agent's own record, or one for an agent that could not write it.

    Args:
        platform: where it ran.
        rundir: the run's directory.
        attempt: as its launcher knows it.
        plan: as it was submitted.
        handle: what was granted.
        state: how the platform saw it end.

    Raises:
        RunctlError: if the run directory cannot be read, or another launch has the run.
    """
    record = rundir.read_attempt(attempt.number)
    if record is not None and record.state.ended:
        return record
    if not platform.terms.rented:
        # Whoever else holds the lease now carries the run out: then this launch came second.
        rundir.lease.check(besides=os.getpid())
        platform.clean_up(handle)
    record = record or attempt
    why = platform.why(handle)
    record.ended_at = _ended_at(platform, rundir, plan, record, state)
    if state is RunState.INTERRUPTED:
        record.end_reason = f"interrupted: {why}"
        record.exit_code = int(ExitCode.HOST_LOST)
    else:
        record.end_reason = why or f"{state.value}: the agent could not leave a record of the attempt"
        record.exit_code = {RunState.SUCCEEDED: 0, RunState.STOPPED: int(ExitCode.STOPPED)}.get(
            state, int(ExitCode.FAILED)
        )
    record.state = state
    status = rundir.read_status() or {}
    kept = ("step", "metrics", "checkpoints", "resumed_from_step")
    progress = {key: status[key] for key in kept if key in status}
    record.step = _last_step(rundir, record)
    with contextlib.suppress(StorageError):  # told at the end
        rundir.write_status(record.state, record.number, reason=record.end_reason, **progress)
    return record


def _ended_at(platform: Platform, rundir: RunDir, plan: Plan, record: Attempt, state: RunState) -> float:
    """When an attempt ended: now, as far as its launcher knows, which may have slept since.

    A host that is gone was so soon after its agent's last word, and any host at its own deadline. What cannot be asked
    bounds nothing: rather too much is reckoned than too little.
    """
    now = time.time()
    if not platform.terms.rented:
        return now
    ended_at = now
    with contextlib.suppress(RunctlError):
        ended_at = min(ended_at, extension.host_ends_at(rundir, record.number) or now)
    # What lies on a pod alone is known here as of when it was brought last, which says nothing of how long it lived.
    if state is RunState.INTERRUPTED and "://" in rundir.url:
        with contextlib.suppress(RunctlError):
            told = [one for one in (rundir.read_status(), rundir.heartbeat()) if one]
            heard = [float(one.get("at", now)) for one in told if one.get("attempt") == record.number]
            lost_at = max(heard, default=now) + _HEARD_OF_S
            # One that is only silent lives, and costs, until its launcher ends it.
            if lost_at < ended_at and platform.find(plan) is None:
                ended_at = lost_at
    return max(ended_at, record.started_at)


def _last_step(rundir: RunDir, record: Attempt) -> int | None:
    """The last step that the metrics of an attempt tell of."""
    steps = [e["step"] for e in rundir.metrics() if e["attempt"] == record.number and "step" in e]
    return max(steps, default=None)
