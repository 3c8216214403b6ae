"""The cost book: what each attempt cost."""

from __future__ import annotations

from runctl.cost import cost_usd
from runctl.outcome import Attempt


def runctl_attempt_ended(attempt: Attempt, price_usd_per_hour: float | None) -> None:
    """Write the attempt's cost into its record."""
    begin = attempt.started_at if attempt.billed_from is None else attempt.billed_from
    billed_s = (attempt.ended_at or attempt.started_at) - begin
    price = price_usd_per_hour if attempt.price_usd_per_hour is None else attempt.price_usd_per_hour
    attempt.cost_usd = cost_usd(price, max(0.0, billed_s))
