"""The cost book: what each attempt cost."""

from __future__ import annotations

from dataclasses import replace

from runctl.cost import Rates, bill
from runctl.outcome import Attempt


def runctl_attempt_ended(attempt: Attempt, price_usd_per_hour: float | None, rates: Rates | None) -> None:
    """Write the attempt's cost into its record: its host, as the price changed, and its disks."""
    price = price_usd_per_hour if attempt.price_usd_per_hour is None else attempt.price_usd_per_hour
    attempt.cost_usd = bill(replace(attempt, price_usd_per_hour=price), rates, attempt.started_at).usd
