"""The number by which a job is judged, from its run's metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from runctl.config.sweeps import Objective


def value_of(objective: Objective, metrics: Sequence[dict[str, Any]]) -> float | None:
    """What a run comes to.

    Args:
        objective: which metric, and which of its values.
        metrics: of the run, in the order of its steps.

    Returns:
        The value, which may be infinite or no number; None if the run never told of it.
    """
    values = [float(entry[objective.metric]) for entry in metrics if objective.metric in entry]
    if not values:
        return None
    if objective.reduce == "last":
        return values[-1]
    numbers = [value for value in values if not math.isnan(value)]
    if objective.reduce == "mean" or not numbers:
        return sum(values) / len(values)
    return max(numbers) if objective.maximize else min(numbers)


def rank(objective: Objective, value: float | None) -> float:
    """Where a value stands among others: the best one first, those that are none last."""
    if value is None or math.isnan(value):
        return math.inf
    return -value if objective.maximize else value
