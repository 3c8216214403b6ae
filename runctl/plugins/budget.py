"""The day's budget: no launch that could exceed what all runs together may cost within 24 hours.

The launcher's machine keeps it, from the runs that it knows (`runctl ps --all`), before anything is rented: a host
cannot, for it knows of no other. Launches of one process, such as a sweep's, know of each other once they are granted
theirs; those of several commands only once their hosts are: two that look for one at the same time may exceed it
together.
"""

from __future__ import annotations

import threading
import time

from runctl import bills, extension
from runctl.cost import Bill, total_usd, within
from runctl.errors import RunctlError, Vetoed
from runctl.hooks import hookimpl
from runctl.registry import Entry, Registry
from runctl.rundir import RunDir, run_url
from runctl.spec import LaunchSpec, Plan
from runctl.standing import LOST, Standing

_DAY_S = 24 * 3600.0
#: A launch that looks for a host asks again every few minutes; one that does not has ended without.
_PROMISE_S = 3600.0
#: What launches of this process may cost that have no host yet: USD, and when that was granted, by run directory.
_promised: dict[str, tuple[float, float]] = {}
_asking = threading.Lock()


def runctl_before_submit(spec: LaunchSpec, plan: Plan) -> None:
    """Refuse what could exceed it.

    Raises:
        Vetoed: with the figures.
    """
    most = spec.limits.max_usd_per_day
    if most is None or not plan.offers or all(one.price_usd_per_hour == 0.0 for one in plan.offers):
        return
    url = RunDir(run_url(spec.run.root, spec.run.id)).url
    with _asking:
        this = _granted(plan, spec, url, most)
        _promised[url] = this, time.time()


@hookimpl(trylast=True)
def runctl_attempt_started(rundir: RunDir) -> None:
    """From here on the registry, which has been told before, knows it."""
    _promised.pop(rundir.url, None)


def _granted(plan: Plan, spec: LaunchSpec, url: str, most: float) -> float:
    """What an attempt may cost within a day.

    Raises:
        Vetoed: if that is too much.
    """
    spent, yet, unknown = _of_others(time.time(), url)
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
    return this


def _at_most(plan: Plan, spec: LaunchSpec) -> float | None:
    """What an attempt may cost within a day; None if that is not known."""
    if plan.estimate_usd is None:
        return None
    hourly = [one.price_usd_per_hour for one in plan.offers if one.price_usd_per_hour is not None]
    lives_h = spec.limits.max_time_s / 3600 if spec.limits.max_time_s is not None else 24.0
    of_day = plan.estimate_usd if lives_h <= 24 else min(plan.estimate_usd, max(hourly, default=0.0) * 24)
    return min(of_day, spec.limits.max_usd) if spec.limits.max_usd is not None else of_day


def _of_others(now: float, this: str) -> tuple[float, float, list[str]]:
    """What was spent in the last 24 hours, what other runs may spend yet, and whose cost is not known.

    Args:
        now: seconds since the epoch.
        this: run directory of the launch; what its next attempt may cost is in its own plan.
    """
    registry = Registry()
    kept = registry.bills()
    promised = {url: usd for url, (usd, at) in _promised.items() if url != this and at > now - _PROMISE_S}
    spent, yet, unknown = 0.0, sum(promised.values()), []
    for entry in registry.entries():
        seen = Standing.seen(entry)
        lost = seen.state == LOST
        ended = seen.ended and not lost
        if ended and (seen.ended_at or entry.seen_at) < now - _DAY_S:
            continue
        try:
            # A host of which nothing is heard may live, and cost something, until it ends itself.
            until = min(now, _ends_at(entry.url, seen.attempt)) if lost else now
            of_run = kept.get(entry.url, []) if ended else []
            if not entry.is_billed_by(of_run):
                of_run = bills.of_run(RunDir(entry.url), until)
            usd = total_usd([within(one, now - _DAY_S, now) for one in of_run])
            over = ended or until < now or entry.url == this or entry.url in promised
            more = 0.0 if over else _more(entry, of_run)
        except RunctlError:
            usd = more = None
        if usd is None or more is None:
            unknown.append(entry.id)
        else:
            spent += usd
            yet += more
    return spent, yet, unknown


def _ends_at(url: str, attempt: int) -> float:
    """When an attempt's host ends itself (seconds since the epoch), if it was told to."""
    at = extension.host_ends_at(RunDir(url), attempt)
    return float("inf") if at is None else at


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
