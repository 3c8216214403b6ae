"""Ranks that run at their own pace, coupled by a barrier a step as by a gradient, meet at one step."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from runctl import agreement as agreements
from runctl.agreement import Agreement, Kind

RANKS = 3


def meet(path: Path, seed: int) -> list[int]:
    """Run `RANKS` threads of steps; ask for a stop at a random moment; the step at which each one stopped."""
    leader = Agreement.create(path, RANKS)
    barrier = threading.Barrier(RANKS)
    stopped: list[int] = [-1] * RANKS
    chance = random.Random(seed)
    errors: list[BaseException] = []

    def rank(number: int) -> None:
        mine, seen, pending, step = Agreement(path), 0, [], 0
        mine.publish(number, 0)
        try:
            while True:
                barrier.wait(20)
                step += 1
                mine.publish(number, step)
                if mine.raised != seen:
                    new = mine.read(seen, 10)
                    pending += new
                    seen += len(new)
                if any(a.step <= step for a in pending):
                    stopped[number] = step
                    return
                if number == seed % RANKS:
                    time.sleep(0.0003)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(RANKS)]
    for thread in threads:
        thread.start()
    time.sleep(chance.uniform(0.001, 0.02))
    leader.appoint(Kind.STOP)
    for thread in threads:
        thread.join(30)
    assert errors == []
    return stopped


def test_ranks_always_stop_at_the_same_step(tmp_path: Path) -> None:
    for seed in range(30):
        stopped = meet(tmp_path / f"agreement-{seed}", seed)
        assert len(set(stopped)) == 1, stopped
        assert stopped[0] > 0, stopped


def test_an_appointment_that_nobody_decides_times_out(tmp_path: Path) -> None:
    agreement = Agreement.create(tmp_path / "a", 1)
    agreement._words[agreements._RAISED] = 1  # raised, and whoever raised it was killed
    with pytest.raises(TimeoutError, match="no decision"):
        agreement.read(0, 0.05)


def test_a_rank_that_was_away_reads_every_appointment_in_order(tmp_path: Path) -> None:
    agreement = Agreement.create(tmp_path / "a", 2)
    agreement.publish(0, 7)
    agreement.publish(1, 8)
    agreement.appoint(Kind.SAVE)
    agreement.publish(1, 9)
    agreement.appoint(Kind.STOP)
    assert [(a.kind, a.step) for a in agreement.read(0, 1)] == [(Kind.SAVE, 9), (Kind.STOP, 10)]
    assert agreement.read(1, 1)[0].kind is Kind.STOP


def test_a_stop_is_not_forgotten_for_a_save_wanted_after_it(tmp_path: Path) -> None:
    agreement = Agreement.create(tmp_path / "a", 1)
    agreement.want(Kind.STOP)
    agreement.want(Kind.SAVE)
    assert agreement.stop_wanted
    assert agreement.wanted() is Kind.STOP
    assert agreement.wanted() is None


def test_a_stop_is_not_lost_to_whoever_asks_for_saves_just_now(tmp_path: Path) -> None:
    path = tmp_path / "agreement"
    agreement = Agreement.create(path, 1)
    program = "from runctl.agreement import *\nimport sys\nours = Agreement(Path(sys.argv[1]))\n"
    program += "while True: ours.want(Kind.SAVE)"
    with subprocess.Popen([sys.executable, "-c", program, str(path)]) as rank:
        try:
            while agreement.wanted() is not Kind.SAVE:
                assert rank.poll() is None
            for _ in range(20_000):
                agreement.want(Kind.STOP)
                # Of what a rank was about to write, something may come only now.
                assert Kind.STOP in {agreement.wanted() for _ in range(3)}
        finally:
            rank.kill()
