"""The cost of an attempt and of a run."""

from __future__ import annotations

import pytest

from runctl.cost import cost_usd, total_usd
from runctl.outcome import Attempt
from runctl.plugins import cost as book


def test_cost_is_price_times_billed_hours() -> None:
    assert cost_usd(3.6, 1) == 0.001
    assert cost_usd(2.5, 3600) == 2.5
    assert cost_usd(0.0, 1e6) == 0.0
    assert cost_usd(1.0, 0) == 0.0


def test_cost_is_rounded_to_a_hundredth_of_a_cent() -> None:
    assert cost_usd(1.0, 1) == 0.0003
    assert cost_usd(12.345678, 1800) == 6.1728


def test_an_unknown_price_is_an_unknown_cost() -> None:
    assert cost_usd(None, 3600) is None


@pytest.mark.parametrize(("price", "billed_s"), [(-0.1, 1), (1, -1)])
def test_negative_price_or_duration_is_an_error(price: float, billed_s: float) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        cost_usd(price, billed_s)


def test_the_total_is_unknown_as_soon_as_a_part_is() -> None:
    assert total_usd([0.1, 0.2]) == 0.3
    assert total_usd([0.1, None]) is None
    assert total_usd([]) == 0


def test_the_cost_book_fills_in_the_attempt() -> None:
    attempt = Attempt(1, "aws", "host", started_at=1000.0, ended_at=4600.0)
    book.runctl_attempt_ended(attempt, 0.5)
    assert attempt.cost_usd == 0.5


def test_the_cost_book_never_bills_backwards() -> None:
    for ended_at in (None, 900.0):  # no end on record, and a clock that was set back
        attempt = Attempt(1, "aws", "host", started_at=1000.0, ended_at=ended_at)
        book.runctl_attempt_ended(attempt, 0.5)
        assert attempt.cost_usd == 0.0


def test_a_rented_host_costs_its_own_price_from_when_it_is_billed() -> None:
    attempt = Attempt(1, "aws", "h", started_at=1600.0, ended_at=4600.0, price_usd_per_hour=2.0, billed_from=1000.0)
    book.runctl_attempt_ended(attempt, 0.5)
    assert attempt.cost_usd == 2.0
