"""What `checkpoint.every=auto` learns from a real writer and from what the agent says of uploads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from runctl.checkpoint import interval
from runctl.checkpoint.policy import RankPolicy
from runctl.spec import Every
from runctl.training.meeting import Meeting
from runctl.training.saver import Saver

STATE = {"model_state_dict": {"weight": torch.ones(1000)}}


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Every], Saver]]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    meetings: list[Meeting] = []
    savers: list[Saver] = []

    def make(every: Every, interruption_s: float = 86400.0) -> Saver:
        meetings.append(Meeting(0, 1))
        policy = RankPolicy(str(tmp_path / "checkpoints"), "r", every=every, mean_time_to_interruption_s=interruption_s)
        savers.append(Saver(policy, meetings[-1]))
        savers[-1].prepare(STATE)
        return savers[-1]

    yield make
    for saver, meeting in zip(savers, meetings, strict=True):
        saver.finish(60.0)
        meeting.host_dir.remove()


def save(saver: Saver, step: int) -> None:
    """Save and have the writer finish."""
    saver._meeting.leave_rank_state(step, {})
    assert saver.save(STATE, step, 0, {}, wait_s=60.0)
    deadline = time.monotonic() + 60
    while saver.busy:
        assert time.monotonic() < deadline
        saver.poll()
        time.sleep(0.01)


@pytest.mark.parametrize("every", [Every("steps", 5), Every("epochs", 1)])
def test_where_steps_or_epochs_decide_nothing_is_due_by_the_clock(begin, every: Every) -> None:
    assert begin(every).interval_s == float("inf")


def test_seconds_stay_what_they_are(begin, capsys: pytest.CaptureFixture[str]) -> None:
    saver = begin(Every("seconds", 42))
    save(saver, 1)
    assert saver.interval_s == 42
    assert capsys.readouterr().err == ""


def test_the_interval_follows_what_saves_cost(begin, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(interval, "FLOOR_S", 0.0)
    saver = begin(Every("auto"), interruption_s=1e9)
    assert saver.interval_s == interval.FIRST_S
    save(saver, 1)
    assert saver.interval_s == pytest.approx(min(interval.best_s(saver.stall_s[0], 1e9), interval.CEILING_S))
    assert capsys.readouterr().err.startswith("runctl: a checkpoint every ")
    save(saver, 2)
    mean = sum(saver.stall_s) / 2
    assert saver.interval_s == pytest.approx(min(interval.best_s(mean, 1e9), interval.CEILING_S))


def test_the_first_save_is_due_a_while_after_the_first_step_and_not_after_attach(begin) -> None:
    saver = begin(Every("auto"))
    saver.saved_at = 0.0
    saver.prepare(STATE)
    assert time.monotonic() - saver.saved_at < interval.FIRST_S


def test_an_upload_that_takes_its_time_puts_the_next_save_off(begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interval, "FLOOR_S", 0.0)
    saver = begin(Every("auto"), interruption_s=1e-3)
    save(saver, 1)
    before = saver.interval_s
    time.sleep(1.0)
    saver.poll()
    assert saver.interval_s == before, "as long as nothing has arrived there is nothing to reckon with"
    saver._meeting.agreement.announce_durable(1)
    saver.poll()
    assert saver.interval_s >= max(1.0, before)
