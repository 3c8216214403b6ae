"""When a run has cost enough, lasted long enough, or done nothing for too long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from runctl.agent import limits
from runctl.agent.limits import LimitWatch
from runctl.agent.order import Order
from runctl.hosts.gpus import GpuLoad
from runctl.outcome import Attempt
from runctl.spec import Limits

NOW = 1_000_000.0


class Clock:
    """A clock that a test sets, for `time.time` and `time.monotonic` alike."""

    def __init__(self) -> None:
        self.now = NOW

    def time(self) -> float:
        return self.now

    monotonic = time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(limits, "time", clock)
    return clock


class Host:
    """What the processes and the GPUs of a host have done."""

    def __init__(self) -> None:
        self.cpu_s: dict[int, float] = {7: 0.0}
        self.gpu: float | None = 0.0


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    host = Host()
    monkeypatch.setattr(limits, "_cpu_seconds", lambda but_pid: dict(host.cpu_s))
    monkeypatch.setattr(GpuLoad, "busiest", lambda self: host.gpu)
    return host


def watch(limits: Limits, *earlier: Attempt, started_at: float = NOW, **order: Any) -> tuple[LimitWatch, list[str]]:
    said: list[str] = []
    given = Order("s3://b/run", 1, "/p", "aws", **{"attached": False, **order})
    return LimitWatch(limits, given, started_at, earlier, said.append), said


def attempt(number: int, cost_usd: float | None = None, **fields: Any) -> Attempt:
    return Attempt(number, "aws", "h", cost_usd=cost_usd, **fields)


def test_money_counts_from_when_the_host_is_billed(clock: Clock) -> None:
    one, said = watch(Limits(max_usd=1.0), price_usd_per_hour=2.0, billed_from=NOW - 600)
    clock.now = NOW + 1190
    assert one.reached() is None
    clock.now = NOW + 1200
    assert one.reached() == "max_usd"
    assert said == []


def test_what_earlier_attempts_cost_is_spent(clock: Clock) -> None:
    # The launcher of the second was gone when it ended: an hour and a half at 10 cents.
    orphan = attempt(2, price_usd_per_hour=0.1, started_at=NOW - 4000, billed_from=NOW - 6400, ended_at=NOW - 1000)
    one, said = watch(Limits(max_usd=1.0), attempt(1, 0.6), orphan, price_usd_per_hour=1.0, billed_from=NOW)
    clock.now = NOW + 0.25 * 3600 - 5
    assert one.reached() is None
    clock.now += 10
    assert one.reached() == "max_usd"
    assert said == []


def test_an_unknown_price_is_told_and_limits_nothing(clock: Clock) -> None:
    one, said = watch(Limits(max_usd=0.01))
    clock.now = NOW + 1e6
    assert one.reached() is None
    assert said == ["limits.max_usd is not kept: the price of this host is not known"]


def test_an_unknown_cost_of_an_earlier_attempt_is_told_and_the_rest_counts(clock: Clock) -> None:
    one, said = watch(Limits(max_usd=1.0), attempt(1, 1.0), attempt(2), price_usd_per_hour=1.0)
    assert one.reached() == "max_usd"
    assert said == ["limits.max_usd counts what is known: the cost of attempt 2 is not"]


def test_a_host_that_costs_nothing_reaches_no_limit_of_money(clock: Clock) -> None:
    one, _ = watch(Limits(max_usd=1.0), price_usd_per_hour=0.0)
    clock.now = NOW + 1e9
    assert one.reached() is None


def test_half_four_fifths_and_all_of_the_money_are_told_once_each(clock: Clock) -> None:
    one, _ = watch(Limits(max_usd=2.0), attempt(2, 0.5), price_usd_per_hour=1.0, billed_from=NOW)
    told = []
    for _ in range(100):
        clock.now += 60
        if alert := one.budget_alert():
            told.append((alert.share, alert.spent_usd, round((clock.now - NOW) / 60)))
    assert told == [(0.5, 1.0, 30), (0.8, 1.6, 66), (1.0, 2.0, 90)]


def test_of_several_shares_at_once_the_largest_is_told(clock: Clock) -> None:
    one, _ = watch(Limits(max_usd=1.0), attempt(1, 0.45), price_usd_per_hour=0.1, billed_from=NOW - 4 * 3600)
    first = one.budget_alert()
    assert first is not None and first.share == 0.8
    assert one.budget_alert() is None
    assert watch(Limits())[0].budget_alert() is None


def test_a_share_that_an_earlier_attempt_has_told_is_not_told_again(clock: Clock) -> None:
    one, _ = watch(Limits(max_usd=1.0), attempt(1, 0.85), price_usd_per_hour=0.1, billed_from=NOW)
    assert one.budget_alert() is None
    clock.now = NOW + 1.6 * 3600
    last = one.budget_alert()
    assert last is not None and last.share == 1.0


def test_more_time_is_more_time(clock: Clock) -> None:
    one, _ = watch(Limits(max_time_s=100))
    assert one.ends_at == NOW + 100
    clock.now = NOW + 90
    one.extend(150)
    clock.now = NOW + 140
    assert (one.reached(), one.ends_at) == (None, NOW + 150)
    clock.now = NOW + 151
    assert one.reached() == "max_time"


def test_time_counts_from_the_begin_of_a_detached_attempt_and_from_the_ranks_of_another(clock: Clock) -> None:
    rented, _ = watch(Limits(max_time_s=100), started_at=NOW - 60)
    own, _ = watch(Limits(max_time_s=100), started_at=NOW - 60, attached=True)
    clock.now = NOW + 50
    assert (rented.reached(), own.reached()) == ("max_time", None)
    own.ranks_started()
    clock.now = NOW + 140
    assert own.reached() is None
    clock.now = NOW + 151
    assert own.reached() == "max_time"


def idle_for(one: LimitWatch, clock: Clock, host: Host, seconds: float, cpu: float = 0.0) -> str | None:
    """Let time pass, in which each process has `cpu` of a core."""
    for _ in range(int(seconds)):
        clock.now += 1
        host.cpu_s = {pid: spent + cpu for pid, spent in host.cpu_s.items()}
        if reached := one.reached():
            return reached
    return None


def test_a_host_that_does_nothing_for_long_enough_is_idle(clock: Clock, host: Host) -> None:
    one, _ = watch(Limits(idle_s=60))
    one.ranks_started()
    assert idle_for(one, clock, host, 55, cpu=0.01) is None
    assert idle_for(one, clock, host, 15, cpu=0.01) == "idle"


@pytest.mark.parametrize(("gpu", "cpu"), [(0.5, 0.0), (0.0, 0.5), (0.05, 0.05)])
def test_a_host_whose_gpu_or_processor_works_is_not(clock: Clock, host: Host, gpu: float, cpu: float) -> None:
    one, _ = watch(Limits(idle_s=60))
    one.ranks_started()
    host.gpu = gpu
    assert idle_for(one, clock, host, 300, cpu=cpu) is None
    host.gpu = 0.0
    assert idle_for(one, clock, host, 70) == "idle"


def test_many_processes_that_each_do_next_to_nothing_are_idle(clock: Clock, host: Host) -> None:
    host.cpu_s = dict.fromkeys(range(64), 0.0)
    one, _ = watch(Limits(idle_s=60))
    one.ranks_started()
    assert idle_for(one, clock, host, 70, cpu=0.01) == "idle"


def test_a_process_that_is_new_counts_with_all_that_it_did(clock: Clock, host: Host) -> None:
    one, _ = watch(Limits(idle_s=20))
    one.ranks_started()
    for pid in range(100, 120):
        assert idle_for(one, clock, host, 6) is None
        host.cpu_s = {pid: 3.0}


def test_time_before_the_ranks_start_is_not_idle(clock: Clock, host: Host) -> None:
    one, _ = watch(Limits(idle_s=60))
    assert idle_for(one, clock, host, 300) is None
    one.ranks_started()
    assert idle_for(one, clock, host, 50) is None


def test_gpus_that_do_not_tell_are_told_once_and_never_idle(clock: Clock, host: Host) -> None:
    host.gpu = None
    one, said = watch(Limits(idle_s=60))
    one.ranks_started()
    assert idle_for(one, clock, host, 300) is None
    assert said == ["limits.idle is not kept: this host's GPUs do not tell how busy they are"]


def test_real_processes_are_seen_at_work() -> None:
    import subprocess
    import sys

    with subprocess.Popen([sys.executable, "-c", "print('up', flush=True)\nwhile True: pass"], stdout=-1) as busy:
        try:
            assert busy.stdout is not None and busy.stdout.readline() == b"up\n"
            before = limits._cpu_seconds(None)[busy.pid]
            time.sleep(2)
            assert limits._cpu_seconds(None)[busy.pid] - before > 0.1
            assert busy.pid not in limits._cpu_seconds(busy.pid)
        finally:
            busy.kill()
