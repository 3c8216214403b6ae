"""The cost of an attempt and of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runctl import bills
from runctl.cost import Rates, bill, changing_cost_usd, cost_usd, total_usd, within
from runctl.outcome import Attempt
from runctl.plugins import cost as book
from runctl.rundir import RunDir
from runctl.spec import Plan, RunHandle, RunState


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
    book.runctl_attempt_ended(attempt, 0.5, None)
    assert attempt.cost_usd == 0.5


def test_the_cost_book_never_bills_backwards() -> None:
    for ended_at in (None, 900.0):  # no end on record, and a clock that was set back
        attempt = Attempt(1, "aws", "host", started_at=1000.0, ended_at=ended_at)
        book.runctl_attempt_ended(attempt, 0.5, None)
        assert attempt.cost_usd == 0.0


def test_a_rented_host_costs_its_own_price_from_when_it_is_billed() -> None:
    attempt = Attempt(1, "aws", "h", started_at=1600.0, ended_at=4600.0, price_usd_per_hour=2.0, billed_from=1000.0)
    book.runctl_attempt_ended(attempt, 0.5, None)
    assert attempt.cost_usd == 2.0


# --- the bill of an attempt ---

HOUR = 3600.0
BEGIN = 1_000_000.0


def spot(number: int = 1, hours: float = 1.0, **fields: Any) -> Attempt:
    return Attempt(
        number, "aws", "h", "spot",
        **{"started_at": BEGIN, "ended_at": BEGIN + hours * HOUR, "state": RunState.INTERRUPTED, "step": 100,
           "price_usd_per_hour": 0.4, **fields},
    )  # fmt: skip


def test_each_second_costs_what_stood_at_that_second() -> None:
    changes = [(BEGIN + HOUR, 0.8), (BEGIN - 50, 0.4), (BEGIN + 1.5 * HOUR, 0.2)]
    assert changing_cost_usd(changes, BEGIN, BEGIN + 2 * HOUR) == pytest.approx(0.4 + 0.4 + 0.1)
    assert changing_cost_usd(changes, BEGIN + HOUR, BEGIN + 1.25 * HOUR) == pytest.approx(0.2)


def test_prices_that_begin_too_late_tell_nothing() -> None:
    assert changing_cost_usd([(BEGIN + 1, 0.4)], BEGIN, BEGIN + HOUR) is None
    assert changing_cost_usd([], BEGIN, BEGIN + HOUR) is None


def test_a_bill_holds_disks_follows_the_price_and_says_what_spot_saved() -> None:
    one = bill(spot(), Rates(((BEGIN, 0.4), (BEGIN + HOUR / 2, 0.2)), 1.0, 0.05), BEGIN)
    assert (one.host_usd, one.disk_usd, one.usd, one.saved_usd) == (0.3, 0.05, 0.35, 0.7)
    assert one.followed
    rough = bill(spot(), Rates((), 1.0, 0.05), BEGIN)
    assert (rough.usd, rough.followed) == (0.45, False)


def test_a_sum_is_unknown_as_soon_as_disk_or_host_is() -> None:
    assert bill(spot(), Rates(disk_usd_per_hour=None), BEGIN).usd is None
    unpriced = bill(spot(price_usd_per_hour=None), Rates(), BEGIN)
    assert (unpriced.usd, unpriced.saved_usd) == (None, None)


def test_a_minute_is_the_least_that_is_billed() -> None:
    assert bill(spot(hours=0.001), Rates(least_billed_s=60.0), BEGIN).billed_s == 60.0


def test_ones_own_machine_costs_nothing() -> None:
    own = bill(Attempt(1, "local", "h", started_at=BEGIN, ended_at=BEGIN + HOUR), Rates(disk_usd_per_hour=None), BEGIN)
    assert (own.usd, own.saved_usd, own.lost_usd) == (0.0, 0.0, 0.0)


def test_what_was_done_again_is_lost_in_its_share_of_the_attempts_steps() -> None:
    again = Attempt(2, "aws", "h", "spot", started_at=BEGIN, resumed_from_step=75)
    one = bill(spot(resumed_from_step=50), Rates(), BEGIN, following=again)
    assert (one.steps_redone, one.lost_usd) == (25, 0.2)


def test_an_attempt_that_was_no_further_than_its_begin_is_lost_as_a_whole() -> None:
    again = Attempt(2, "aws", "h", "spot", started_at=BEGIN, resumed_from_step=50)
    assert bill(spot(step=50, resumed_from_step=50), Rates(), BEGIN, following=again).lost_usd == 0.4


def test_what_was_lost_is_unknown_where_nobody_knows_the_steps_and_nothing_where_nothing_was_done_again() -> None:
    again = Attempt(2, "aws", "h", "spot", started_at=BEGIN, resumed_from_step=75)
    assert bill(spot(step=None), Rates(), BEGIN, following=again).lost_usd is None
    assert bill(spot(), Rates(), BEGIN, following=Attempt(2, "aws", "h", "spot")).lost_usd is None, "it has not begun"
    assert bill(spot(), Rates(), BEGIN).lost_usd == 0.0
    assert bill(spot(state=RunState.SUCCEEDED), Rates(), BEGIN).lost_usd == 0.0


def test_a_part_of_a_bill_falls_into_a_part_of_its_time() -> None:
    one = bill(spot(hours=4), Rates(), BEGIN)
    assert one.usd == 1.6
    assert within(one, BEGIN + HOUR, BEGIN + 2 * HOUR) == 0.4
    assert within(one, BEGIN - 10, BEGIN + 100 * HOUR) == 1.6
    assert within(one, BEGIN + 5 * HOUR, BEGIN + 6 * HOUR) == 0.0


def test_a_host_that_stays_for_a_look_at_a_failure_is_paid_for() -> None:
    one = bill(spot(state=RunState.FAILED), Rates(stays_s=HOUR / 4), BEGIN)
    assert (one.billed_s, one.usd) == (1.25 * HOUR, 0.5)


class Told:
    """A platform that tells of nothing to pay besides the host."""

    def rates(self, plan: Plan, handle: RunHandle, begin: float, end: float) -> Rates:
        return Rates()


@pytest.mark.parametrize(("keep_warm_s", "stays_s"), [(0.0, 900.0), (300.0, 0.0)])
def test_a_host_that_waits_for_the_next_run_is_not_paid_for_a_look_besides(
    tmp_path: Path, keep_warm_s: float, stays_s: float
) -> None:
    orders = {"keep_on_failure_s": 900.0, "keep_warm_s": keep_warm_s}
    plan = Plan("one", 1, "aws", (), {}, 1, 1, "", str(tmp_path), requests=({"orders": orders},))
    rates = bills.ask(RunDir(str(tmp_path)), Told(), plan, RunHandle("aws", "one", 1, {}), spot(state=RunState.FAILED))
    assert rates.stays_s == stays_s
