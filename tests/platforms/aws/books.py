"""What a cloud's books say of the instances of a test."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any


def check_that_nothing_runs(instances: Callable[[], list[dict[str, Any]]], within_s: float, told: object = "") -> None:
    """No instance lives on, and none was ever there twice for one attempt.

    Args:
        instances: those that are looked at, the ended ones among them.
        told: for the text of a failure.
    """
    deadline = time.monotonic() + within_s
    while left := [one["id"] for one in instances() if one["state"] != "terminated"]:
        assert time.monotonic() < deadline, f"left running: {left}; told: {told}"
        time.sleep(0.1)
    attempts = Counter((one["tags"]["runctl:run"], one["tags"]["runctl:attempt"]) for one in instances())
    assert all(count == 1 for count in attempts.values()), attempts
