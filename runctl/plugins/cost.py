"""The cost book: what each attempt cost."""

from __future__ import annotations

from runctl.cost import cost_usd
from runctl.outcome import Attempt


def runctl_attempt_ended(attempt: Attempt, price_usd_per_hour: float | None) -> None:
    """Write the attempt's cost into its record."""
    billed_s = (attempt.ended_at or attempt.started_at) - attempt.started_at
    attempt.cost_usd = cost_usd(price_usd_per_hour, max(0.0, billed_s))
