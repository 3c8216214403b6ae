"""What the attempts of a run cost, from its run directory, and what platforms tell of it.

    attempts/1.rates.json   what the platform told of an attempt's prices once it had ended

What has been told once is kept there, so that the bill of a run that has ended needs no platform any more.
"""

from __future__ import annotations

import contextlib
import time
from typing import Protocol

from runctl.cost import Bill, Rates, bill
from runctl.encoding import dumps, loads
from runctl.errors import RunctlError, StorageError
from runctl.outcome import Attempt
from runctl.rundir import RunDir
from runctl.spec import Plan, RunHandle


class TellsRates(Protocol):
    """A platform, as far as bills go."""

    def rates(self, plan: Plan, handle: RunHandle, begin: float, end: float) -> Rates:
        """What there is to pay for an attempt."""


def of_run(rundir: RunDir, now: float | None = None) -> list[Bill]:
    """The bills of all attempts, of those that live until now.

    Args:
        rundir: the run's.
        now: seconds since the epoch.

    Raises:
        StorageError: if the run directory cannot be read.
    """
    now = time.time() if now is None else now
    attempts = rundir.attempts()
    found = []
    for one, following in zip(attempts, [*attempts[1:], None], strict=True):
        submitted = None if one.market == "own" else rundir.submission(one.number)
        handle = submitted[1] if submitted else None
        estimate = 0.0 if one.market == "own" else submitted[0].estimate_usd if submitted else None
        machine = "" if handle is None else str(handle.address.get("machine", ""))
        rates = None if one.market == "own" else kept(rundir, one.number) or _unasked(handle)
        found.append(bill(one, rates, now, following=following, machine=machine, estimate_usd=estimate))
    return found


def are_settled(bills: list[Bill]) -> bool:
    """Whether nothing of them will change."""
    return bool(bills) and all(one.ended_at is not None and one.usd is not None for one in bills)


def kept(rundir: RunDir, attempt: int) -> Rates | None:
    """What a platform told of an attempt; None if nobody asked."""
    data = rundir.store.read(_name(attempt))
    return None if data is None else loads(Rates, data.decode())


def ask(rundir: RunDir, platform: TellsRates, plan: Plan, handle: RunHandle, attempt: Attempt) -> Rates:
    """Ask a platform what an attempt cost, and keep the answer if the attempt has ended.

    Returns:
        Without an answer, that nothing is known.
    """
    begin = attempt.started_at if attempt.billed_from is None else attempt.billed_from
    try:
        rates = platform.rates(plan, handle, begin, attempt.ended_at or time.time())
    except RunctlError:
        return Rates(disk_usd_per_hour=None)
    if attempt.ended_at is not None and (rates.changes or rates.disk_usd_per_hour is not None):
        with contextlib.suppress(StorageError):  # asked again by whoever wants to know
            rundir.store.write(_name(attempt.number), dumps(rates).encode())
    return rates


def is_complete(rates: Rates, attempt: Attempt) -> bool:
    """Whether a platform told all that there is to know."""
    on_spot = attempt.market == "spot"
    return rates.disk_usd_per_hour is not None and (not on_spot or rates.on_demand_usd_per_hour is not None)


def _unasked(handle: RunHandle | None) -> Rates | None:
    """What is known of a rented host of which nobody has asked: nothing, not even of its disks."""
    return None if handle is None else Rates(disk_usd_per_hour=None)


def _name(attempt: int) -> str:
    return f"attempts/{attempt}.rates.json"
