"""What a launch costs: price × billed seconds, attempt by attempt (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runctl.outcome import Attempt
from runctl.spec import RunState

SECONDS_PER_HOUR = 3600
#: What a month is where disks are sold by it: AWS's own examples take 30 days (aws.amazon.com/ebs/pricing).
HOURS_PER_MONTH = 720


@dataclass(frozen=True)
class Rates:
    """What a platform tells of an attempt's prices, besides the one at which its host was rented; None is not known.

    Attributes:
        changes: of the price on spot: (seconds since the epoch, US dollars an hour), the first one from before the
            host's begin; empty where the price does not change, or nobody tells.
        on_demand_usd_per_hour: what the same host costs on demand.
        disk_usd_per_hour: of its disks; 0 where the host's price is all there is to pay.
        least_billed_s: so many seconds are billed at least.
        stays_s: so long the host stays after the attempt's end, for whoever wants to look at a failure.
        until: up to which moment this was asked for (seconds since the epoch).
    """

    changes: tuple[tuple[float, float], ...] = ()
    on_demand_usd_per_hour: float | None = None
    disk_usd_per_hour: float | None = 0.0
    least_billed_s: float = 0.0
    stays_s: float = 0.0
    until: float = 0.0


@dataclass(frozen=True)
class Bill:
    """What one attempt costs, in US dollars; None is not known, and so is every sum of which it is a part.

    Attributes:
        began_at, ended_at: between which its host is billed (seconds since the epoch); no end as long as it lives.
        billed_s: seconds.
        host_usd: of its host, without disks.
        followed: whether the changes of the price on spot are in it; else it is the price at which it was rented.
        usd: of all.
        estimate_usd: what its plan said that it costs at most.
        saved_usd: against the same on demand, without disks; 0 for what is not on spot.
        lost_usd: for steps that the next attempt did again, because the host was taken away.
        steps_redone: how many those are.
    """

    attempt: int
    platform: str
    market: str
    machine: str
    state: str
    began_at: float
    ended_at: float | None
    billed_s: float
    price_usd_per_hour: float | None
    host_usd: float | None
    disk_usd: float | None
    usd: float | None
    followed: bool = False
    estimate_usd: float | None = None
    saved_usd: float | None = None
    lost_usd: float | None = None
    steps_redone: int | None = None


def cost_usd(price_usd_per_hour: float | None, billed_s: float) -> float | None:
    """Cost of one host over one attempt.

    Args:
        price_usd_per_hour: price of the host in US dollars an hour; None where it is not known.
        billed_s: seconds for which the host is billed, not negative.

    Returns:
        US dollars, rounded to a hundredth of a cent, or None where the price is not known.

    Raises:
        ValueError: for a negative price or duration.
    """
    if price_usd_per_hour is None:
        return None
    if price_usd_per_hour < 0 or billed_s < 0:
        raise ValueError(f"price {price_usd_per_hour} and billed seconds {billed_s} must not be negative")
    return round(price_usd_per_hour * billed_s / SECONDS_PER_HOUR, 4)


def changing_cost_usd(changes: Sequence[tuple[float, float]], begin: float, end: float) -> float | None:
    """Cost of one host whose price changes while it is billed.

    Each second costs what stood at that second: aws.amazon.com/ec2/spot/pricing, "you pay the Spot price that's in
    effect for the time period your instances are running".

    Args:
        changes: (seconds since the epoch, US dollars an hour from then on), in any order.
        begin, end: of what is billed (seconds since the epoch).

    Returns:
        US dollars, rounded to a hundredth of a cent; None if no price is known from the begin on.
    """
    ordered = sorted(changes)
    if not ordered or ordered[0][0] > begin:
        return None
    usd = 0.0
    for (at, price), (until, _) in zip(ordered, [*ordered[1:], (end, 0.0)], strict=True):
        usd += price * max(0.0, min(until, end) - max(at, begin)) / SECONDS_PER_HOUR
    return round(usd, 4)


def total_usd(costs: Sequence[float | None]) -> float | None:
    """Sum of costs; None as soon as one of them is not known, for a sum of the rest would lie."""
    known = [cost for cost in costs if cost is not None]
    return round(sum(known), 4) if len(known) == len(costs) else None


def bill(
    attempt: Attempt, rates: Rates | None, now: float, *, following: Attempt | None = None, machine: str = "",
    estimate_usd: float | None = None,
) -> Bill:  # fmt: skip
    """Reckon what an attempt costs.

    Args:
        attempt: its record.
        rates: what its platform told; None where nobody asked, and the host's price is all there is.
        now: until when, as long as it lives (seconds since the epoch).
        following: the attempt after it that began, or may begin yet; None if there is none.
        machine: what its host is.
        estimate_usd: of its plan.
    """
    own, told = attempt.market == "own", rates or Rates()
    begin = attempt.billed_since
    ended_at = now if attempt.ended_at is None else attempt.ended_at + (0.0 if own else told.stays_s)
    end = max(begin, ended_at, begin + (0.0 if own else told.least_billed_s))
    billed_s = end - begin
    price = 0.0 if own and attempt.price_usd_per_hour is None else attempt.price_usd_per_hour
    changed = changing_cost_usd(told.changes, begin, end) if attempt.market == "spot" else None
    host = cost_usd(price, billed_s) if changed is None else changed
    disk = 0.0 if own else cost_usd(told.disk_usd_per_hour, billed_s)
    usd = total_usd([host, disk])
    saved: float | None = 0.0
    if attempt.market == "spot":
        full = cost_usd(told.on_demand_usd_per_hour, billed_s)
        saved = None if full is None or host is None else round(full - host, 4)
    redone, lost = _lost(attempt, following, usd)
    return Bill(
        attempt.number, attempt.platform, attempt.market, machine, attempt.state.value, begin, attempt.ended_at,
        round(billed_s, 3), price, host, disk, usd, changed is not None, estimate_usd, saved, lost, redone,
    )  # fmt: skip


def within(one: Bill, begin: float, end: float) -> float | None:
    """What of a bill falls between two moments (seconds since the epoch), as if it had cost the same all the time."""
    if one.usd is None or one.billed_s <= 0:
        return one.usd
    overlap_s = min(end, one.began_at + one.billed_s) - max(begin, one.began_at)
    return round(one.usd * max(0.0, overlap_s) / one.billed_s, 4)


def _lost(attempt: Attempt, following: Attempt | None, usd: float | None) -> tuple[int | None, float | None]:
    """Steps that were done again, and their share of what the attempt cost for all the steps that it did."""
    if attempt.state is not RunState.INTERRUPTED:
        return 0, 0.0
    if following is None:
        return 0, 0.0  # nothing has been done again
    if attempt.step is None or (following.resumed_from_step is None and not following.state.ended):
        return None, None
    begun = attempt.resumed_from_step or 0
    redone = min(max(0, attempt.step - (following.resumed_from_step or 0)), max(0, attempt.step - begun))
    done = attempt.step - begun
    if usd is None:
        return redone, 0.0 if redone == 0 and done > 0 else None
    return redone, usd if done <= 0 else round(usd * redone / done, 4)
