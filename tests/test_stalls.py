"""When a training counts as stalled."""

from __future__ import annotations

from runctl.stalls import StepWatch


def stepped(every_s: float, steps: int = 20) -> tuple[StepWatch, float]:
    """A watch that has heard of so many steps, and when it heard of the last."""
    watch = StepWatch()
    for step in range(steps):
        watch.note(step, step * every_s)
    return watch, (steps - 1) * every_s


def test_fast_steps_may_stop_for_a_minute() -> None:
    watch, last = stepped(0.5)
    assert watch.stalled_s(last + 59) is None
    assert watch.stalled_s(last + 61) == 61


def test_slow_steps_may_stop_for_ten_of_them() -> None:
    watch, last = stepped(30.0)
    assert watch.stalled_s(last + 299) is None
    assert watch.stalled_s(last + 301) == 301


def test_one_slow_step_among_many_changes_nothing() -> None:
    watch, last = stepped(1.0)
    watch.note(20, last + 50)
    assert watch.stalled_s(last + 50 + 61) == 61


def test_looking_again_at_the_same_step_is_no_news() -> None:
    watch, last = stepped(1.0)
    for later in range(100):
        watch.note(19, last + later)
    assert watch.stalled_s(last + 100) == 100


def test_before_the_second_step_and_after_a_restart_nothing_is_late() -> None:
    watch = StepWatch()
    assert watch.stalled_s(1e6) is None
    watch.note(1, 0)
    assert watch.stalled_s(1e6) is None
    watch, _ = stepped(1.0)
    watch.note(None, 25)
    assert watch.stalled_s(1e6) is None
    watch.note(3, 30)
    assert watch.stalled_s(80) is None and watch.stalled_s(91) == 61
