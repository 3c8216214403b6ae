"""The day's budget: no launch that could exceed what all runs together may cost within 24 hours.

The launcher's machine keeps it, from the runs that it knows (`runctl ps --all`), before anything is rented: a host
cannot, for it knows of no other.
"""

from __future__ import annotations

import time

from runctl import bills
from runctl.cost import Bill, total_usd, within
from runctl.errors import RunctlError, Vetoed
from runctl.registry import Entry, Registry
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, Plan
from runctl.standing import Standing

_DAY_S = 24 * 3600.0


def runctl_before_submit(spec: LaunchSpec, plan: Plan) -> None:
    """Refuse what could exceed it.

    Raises:
        Vetoed: with the figures.
    """
    most = spec.limits.max_usd_per_day
    if most is None or not plan.offers or all(one.price_usd_per_hour == 0.0 for one in plan.offers):
        return
    now = time.time()
    spent, yet, unknown = _of_others(now)
    this = _at_most(plan, spec)
    if this is None:
        unknown.append("this launch")
    if unknown:
        raise Vetoed(
            f"limits.max_usd_per_day={most:g} cannot be kept: what {', '.join(unknown[:3])} costs is not known; "
            "runctl cost shows what is"
        )
    assert this is not None
    if spent + yet + this > most:
        raise Vetoed(
            f"limits.max_usd_per_day={most:g}: {spent:.2f} USD were spent within the last 24 hours, runs that go on "
            f"may cost {yet:.2f} more, and this launch {this:.2f}: {spent + yet + this:.2f} together; lower "
            "limits.max_time or limits.max_usd, wait, or raise it"
        )


def _at_most(plan: Plan, spec: LaunchSpec) -> float | None:
    """What an attempt may cost within a day; None if that is not known."""
    if plan.estimate_usd is None:
        return None
    hourly = [one.price_usd_per_hour for one in plan.offers if one.price_usd_per_hour is not None]
    lives_h = spec.limits.max_time_s / 3600 if spec.limits.max_time_s is not None else 24.0
    of_day = plan.estimate_usd if lives_h <= 24 else min(plan.estimate_usd, max(hourly, default=0.0) * 24)
    return min(of_day, spec.limits.max_usd) if spec.limits.max_usd is not None else of_day


def _of_others(now: float) -> tuple[float, float, list[str]]:
    """What was spent in the last 24 hours, what runs that go on may spend yet, and whose cost is not known."""
    registry = Registry()
    kept = registry.bills()
    spent, yet, unknown = 0.0, 0.0, []
    for entry in registry.entries():
        seen = Standing.seen(entry)
        ended = seen.ended
        if ended and (seen.ended_at or entry.seen_at) < now - _DAY_S:
            continue
        try:
            of_run = kept[entry.url] if ended and entry.url in kept else bills.of_run(RunDir(entry.url))
            usd = total_usd([within(one, now - _DAY_S, now) for one in of_run])
            more = 0.0 if ended else _more(entry, of_run)
        except RunctlError:
            usd = more = None
        if usd is None or more is None:
            unknown.append(entry.id)
        else:
            spent += usd
            yet += more
    return spent, yet, unknown


def _more(entry: Entry, of_run: list[Bill]) -> float | None:
    """What a run that goes on may cost yet: its newest attempt, for all the time that it may take."""
    rundir = RunDir(entry.url)
    plan = rundir.last_submission()
    if plan is None:
        return 0.0  # this machine's own
    if (most := _at_most(plan, rundir.read_spec())) is None:
        return None
    newest = [one for one in of_run if one.attempt == plan.attempt]
    if newest and newest[0].ended_at is not None:
        return 0.0
    return max(0.0, most - (newest[0].usd or 0.0)) if newest else most
