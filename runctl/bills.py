"""What the attempts of a run cost, from its run directory, and what platforms tell of it.

    attempts/1.rates.json   what the platform told of an attempt's prices, when it was rented and when it had ended

What has been told once is kept there, so that the bill of a run that has ended needs no platform any more.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from runctl import extension
from runctl.cost import Bill, Rates, bill
from runctl.encoding import dumps
from runctl.errors import RunctlError, StorageError
from runctl.outcome import Attempt
from runctl.rundir import RunDir
from runctl.spec import Plan, RunHandle, RunState

#: Nothing is known of what was rented, not even of its disks.
_UNKNOWN = Rates(disk_usd_per_hour=None)


class TellsRates(Protocol):
    """A platform, as far as bills go."""

    def rates(self, plan: Plan, handle: RunHandle, begin: float, end: float) -> Rates:
        """What there is to pay for an attempt."""


def of_run(
    rundir: RunDir, now: float | None = None, platform_of: Callable[[str], TellsRates | None] = lambda _: None
) -> list[Bill]:
    """The bills of all attempts, of those that live until now.

    Args:
        rundir: the run's.
        now: seconds since the epoch.
        platform_of: a platform by its kind, to be asked for what it has not told yet; None for one that cannot be.

    Raises:
        StorageError: if the run directory cannot be read.
    """
    now = time.time() if now is None else now
    attempts = rundir.attempts()
    found = []
    for place, one in enumerate(attempts, 1):
        # One that ended before it began anything did nothing again.
        following = next((later for later in attempts[place:] if later.begun or not later.state.ended), None)
        if one.market == "own":
            found.append(bill(one, None, now, following=following, estimate_usd=0.0))
            continue
        submitted = rundir.submission(one.number)
        plan, handle = submitted if submitted is not None else (None, None)
        rates = kept(rundir, one.number)
        if plan is not None and handle is not None and not _is_complete(rates, one):
            platform = platform_of(one.platform)
            rates = rates if platform is None else ask(rundir, platform, plan, handle, one)
        found.append(
            bill(
                one,
                rates or (None if handle is None else _UNKNOWN),
                now if one.state.ended or plan is None or handle is None else _billed_until(rundir, plan, handle, now),
                following=following,
                machine="" if handle is None else str(handle.address.get("machine", "")),
                estimate_usd=None if plan is None else plan.estimate_usd,
            )
        )
    return found


def _billed_until(rundir: RunDir, plan: Plan, handle: RunHandle, now: float) -> float:
    """Until when an attempt that has not ended costs something: its host ends itself, whoever has lost it."""
    at = extension.deadline(plan, handle)
    # Whether that was put off matters, and is read, only of one that would be over.
    return now if at is None or now <= at else min(now, at + extension.put_off_s(rundir, plan.attempt))


def are_settled(bills: list[Bill]) -> bool:
    """Whether nothing of them will change."""
    return bool(bills) and all(one.ended_at is not None and one.usd is not None for one in bills)


def kept(rundir: RunDir, attempt: int) -> Rates | None:
    """What a platform told of an attempt last; None if nobody asked."""
    return rundir.read_as(Rates, _name(attempt))


def ask(rundir: RunDir, platform: TellsRates, plan: Plan, handle: RunHandle, attempt: Attempt) -> Rates:
    """Ask a platform what an attempt costs, and keep the answer.

    Returns:
        Without an answer, what was told before, or that nothing is known.
    """
    begin = attempt.billed_since
    end = time.time() if attempt.ended_at is None else attempt.ended_at
    try:
        stays_s = _stays_s(plan) if attempt.state is RunState.FAILED else 0.0
        rates = platform.rates(plan, handle, begin, max(begin, end + stays_s))
        rates = replace(rates, until=end, stays_s=stays_s)
    except RunctlError:
        rates = _UNKNOWN
    with contextlib.suppress(StorageError):  # asked again by whoever wants to know
        if not rates.changes and rates.disk_usd_per_hour is None:
            return kept(rundir, attempt.number) or rates
        rundir.store.write(_name(attempt.number), dumps(rates).encode())
    return rates


def _stays_s(plan: Plan) -> float:
    """How long its host stays after a failure for whoever wants to look (platform.keep_on_failure).

    One that waits for the next run is paid by that run, or stands among the waits.
    """
    return 0.0 if plan.orders.get("keep_warm_s") else float(plan.orders.get("keep_on_failure_s", 0.0))


def _is_complete(rates: Rates | None, attempt: Attempt) -> bool:
    """Whether there is nothing more to be told of an attempt."""
    if rates is None or attempt.ended_at is None or rates.until < attempt.ended_at:
        return False
    on_spot = attempt.market == "spot"
    return rates.disk_usd_per_hour is not None and (not on_spot or rates.on_demand_usd_per_hour is not None)


def _name(attempt: int) -> str:
    return f"attempts/{attempt}.rates.json"
