"""What a launch costs: price × billed seconds (pure)."""

from __future__ import annotations

SECONDS_PER_HOUR = 3600


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


def total_usd(costs: list[float | None]) -> float | None:
    """Sum of the attempts' costs; None as soon as one of them is not known, for a sum of the rest would lie."""
    known = [cost for cost in costs if cost is not None]
    return round(sum(known), 4) if len(known) == len(costs) else None
