"""How often a checkpoint is worth its cost: Daly's own figures, the limits, and what a running training learns."""

from __future__ import annotations

import math

import pytest

from runctl.checkpoint.interval import CEILING_S, FIRST_S, FLOOR_S, AutoInterval, best_s

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


@pytest.mark.parametrize(
    ("interruption_s", "minutes"),
    # The captions of figures 3, 4 and 5 of Daly's paper, all with a dump of 5 minutes.
    [(24 * HOUR, 117), (6 * HOUR, 57), (15 * MINUTE, 9.1)],
)
def test_dalys_own_figures_are_met(interruption_s: float, minutes: float) -> None:
    found = best_s(5 * MINUTE, interruption_s) / MINUTE
    assert round(found, 1 if minutes < 10 else 0) == minutes


def test_a_value_worked_out_by_hand() -> None:
    # δ = 2 s, M = 10,000 s: √(2·2·10,000) = 200, δ/2M = 10⁻⁴, so 200·(1 + 0.01/3 + 10⁻⁴/9) − 2.
    assert best_s(2, 10_000) == pytest.approx(200 + 2 / 3 + 0.02 / 9 - 2)


@pytest.mark.parametrize("cost_s", [0.001, 0.15, 5])
def test_a_cheap_save_leaves_youngs_first_order(cost_s: float) -> None:
    assert best_s(cost_s, DAY) == pytest.approx(math.sqrt(2 * cost_s * DAY), rel=0.005)


def test_a_save_that_costs_nothing_may_be_taken_always() -> None:
    assert best_s(0, DAY) == 0


def test_where_no_interval_pays_it_is_the_mean_time_itself() -> None:
    assert best_s(120, 60) == 60
    assert best_s(1000, 60) == 60
    assert best_s(119.999, 60) < 60, "just below Daly's condition the series still counts"


@pytest.mark.parametrize("cost_s", [0.1, 1, 10, 60])
def test_no_other_interval_loses_less(cost_s: float) -> None:
    def lost(interval_s: float) -> float:
        # Daly's complete cost function without the restart's constant factor.
        return math.expm1((interval_s + cost_s) / HOUR) / interval_s

    best = best_s(cost_s, HOUR)
    assert all(lost(best) <= lost(best * factor) for factor in (0.8, 0.9, 1.1, 1.25))


def test_before_anything_is_measured_the_first_save_comes_soon() -> None:
    auto = AutoInterval(DAY)
    assert auto.seconds == FIRST_S
    assert auto.news() is None, "there is nothing to tell yet"


def test_the_first_save_is_told_once() -> None:
    auto = AutoInterval(8 * HOUR)
    auto.saved(0.15, 2.0)
    assert auto.seconds == pytest.approx(best_s(0.15, 8 * HOUR))
    assert auto.news() == "a checkpoint every 92.9 s (auto: 0.15 s stall, one interruption in 8 h)"
    for _ in range(50):
        auto.saved(0.16, 2.1)
        assert auto.news() is None


def test_a_stall_that_stays_another_moves_the_interval_and_is_told() -> None:
    auto = AutoInterval(8 * HOUR)
    auto.saved(0.1, 1.0)
    assert auto.news() is not None
    told = []
    for _ in range(5):
        auto.saved(1.6, 1.0)
        told.append(auto.news())
    assert auto.seconds == pytest.approx(best_s(1.6, 8 * HOUR))
    assert len([text for text in told if text]) == 1


def test_one_slow_copy_moves_nothing() -> None:
    auto = AutoInterval(8 * HOUR)
    for stall_s in (0.15, 0.15, 30.0, 0.15):
        auto.saved(stall_s, 1.0)
    assert auto.seconds == pytest.approx(best_s(0.15, 8 * HOUR))


def test_a_stall_of_nothing_is_taken_no_more_often_than_the_floor() -> None:
    auto = AutoInterval(60)
    auto.saved(0.001, 0.05)
    assert auto.seconds == FLOOR_S
    assert auto.news() == "a checkpoint every 10 s (auto: 1 ms stall, one interruption in 60 s; " \
        "no more often than every 10 s)"  # fmt: skip


def test_a_rare_interruption_is_no_reason_to_save_less_than_every_hour() -> None:
    auto = AutoInterval(1000 * DAY)
    auto.saved(10, 20)
    assert auto.seconds == CEILING_S
    assert "no less often than every 60 min" in str(auto.news())


def test_a_save_is_not_due_before_the_one_before_it_is_written() -> None:
    auto = AutoInterval(60)
    auto.saved(0.01, 45.0)
    assert auto.seconds == 45.0
    assert "writing one takes 45 s" in str(auto.news())
    for _ in range(5):
        auto.saved(0.01, 12.0)
    assert auto.seconds == 12.0
    auto.saved(0.01, 2 * CEILING_S)
    assert auto.seconds == 2 * CEILING_S, "nothing can be saved while a writer is at it"


def test_saves_come_no_more_often_than_uploads_are_done() -> None:
    auto = AutoInterval(HOUR)
    auto.saved(0.01, 1.0)
    auto.uploaded(300.0)
    assert auto.seconds == 300.0
    assert "uploading one takes 5 min" in str(auto.news())
    auto.uploaded(290.0)
    assert auto.news() is None


def test_a_storage_that_hardly_moves_does_not_end_the_saves() -> None:
    auto = AutoInterval(HOUR)
    auto.saved(0.01, 1.0)
    auto.uploaded(DAY)
    assert auto.seconds == CEILING_S
