"""A training that is killed at any moment and any place goes on to bit-identical weights."""

from __future__ import annotations

import itertools
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import kills
import pytest
from fault_points import AGENT, LAUNCHER, RANKS, ROLES, TORCHRUN, UPLOADER, WRITER
from kills import LOCAL, REMOTE, Expected, Kill, KilledRun, Point
from real_launches import Launcher

SEED = int(os.environ.get("RUNCTL_SOAK_SEED", "0"))
KILLS = int(os.environ.get("RUNCTL_SOAK_KILLS", "200"))
KILLS_A_TEST = 10
PLACES_A_TEST = 6
LOCAL_ROLES = tuple(role for role in ROLES if role != UPLOADER)
#: How far into a launch a kill at a random moment may come: its start takes some four seconds, its training as long.
MOMENT_AT_MOST_S = 9.0


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Expected:
    with tempfile.TemporaryDirectory(prefix="rt-") as scratch:  # short, for the paths of sockets
        return kills.undisturbed(Launcher(tmp_path_factory.mktemp("project"), Path(scratch)))


def one(points: tuple[Point, ...], name: str, role: str) -> Point:
    return next(point for point in points if point.function.endswith(f":{name}") and point.role == role)


@pytest.mark.parametrize("point", dict.fromkeys(LOCAL + REMOTE), ids=lambda point: f"{point.function} of {point.role}")
def test_every_place_of_a_kill_is_there(point: Point) -> None:
    assert point.statements() > 0


@pytest.mark.timeout(300)
def test_killed_at_random_moments(launcher: Launcher, expected: Expected) -> None:
    run = KilledRun(launcher, expected)
    chance = random.Random(7)
    for victim in (LAUNCHER, AGENT, TORCHRUN, RANKS[1], WRITER):
        assert run.survives(Kill(victim, after_s=chance.uniform(2, 6)))
    run.comes_to_its_end()


@pytest.mark.timeout(300)
def test_killed_while_it_saves_and_while_it_restores(launcher: Launcher, expected: Expected) -> None:
    run = KilledRun(launcher, expected)
    for victim, name, role, statement in (
        (WRITER, "_HashingFile.write", WRITER, 100),
        (RANKS[1], "Meeting.leave_rank_state", RANKS[1], 1),
        (RANKS[0], "Snapshot.take", RANKS[0], 12),
        (AGENT, "publish", WRITER, 12),
        (WRITER, "Catalog.prune", WRITER, 6),
        (RANKS[1], "Checkpointer._restore", RANKS[0], 2),
        (LAUNCHER, "Catalog.newest", AGENT, 2),
    ):
        assert run.survives(Kill(victim, point=one(LOCAL, name, role), statement=statement))
    run.comes_to_its_end()


@pytest.mark.timeout(300)
def test_killed_while_it_uploads_and_while_it_downloads(s3, launcher: Launcher, expected: Expected) -> None:
    run = KilledRun(launcher, expected, f"s3://{s3.bucket()}/runs")
    for victim, name, role, statement in (
        (AGENT, "RemoteCatalog._replace", UPLOADER, 6),
        (LAUNCHER, "FsspecStore.put_file", UPLOADER, 2),
        (TORCHRUN, "FsspecStore.write", UPLOADER, 1),
        (AGENT, "FsspecStore.get_file", AGENT, 4),
        (UPLOADER, "FsspecStore.put_file", UPLOADER, 2),
    ):
        point = one(REMOTE, name, role)
        assert run.survives(Kill(victim, point=point, statement=statement), elsewhere=point.elsewhere)
    run.comes_to_its_end()


def drawn(points: tuple[Point, ...], victims: tuple[str, ...], share: int, chance: random.Random) -> Iterator[Kill]:
    """Kills without end: two at a random moment, three at a place, and so on.

    Every phase comes with every victim before one comes again; the shares of a soak go on from one another.
    """
    pairs = list(itertools.product(sorted({point.phase for point in points}), victims))
    random.Random(SEED).shuffle(pairs)
    begin = share * PLACES_A_TEST % len(pairs)
    pairs_from_there = itertools.cycle(pairs[begin:] + pairs[:begin])
    for number in itertools.count():
        if number % 5 < 2:
            yield Kill(chance.choice(victims), after_s=chance.uniform(0, MOMENT_AT_MOST_S))
        else:
            phase, victim = next(pairs_from_there)
            point = chance.choice([point for point in points if point.phase == phase])
            before = chance.randrange(point.calls) * point.statements()
            yield Kill(victim, point=point, statement=before + chance.randint(1, point.statements()))


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", range(-(-KILLS // KILLS_A_TEST)), ids=lambda number: f"seed {SEED} part {number}")
def test_soak_of_kills(s3, launcher: Launcher, expected: Expected, number: int) -> None:
    chance = random.Random(f"{SEED} {number}")
    bucket = f"s3://{s3.bucket()}/runs" if number % 2 else None
    points, victims = (REMOTE, ROLES) if bucket else (LOCAL, LOCAL_ROLES)
    queue = drawn(points, victims, number // 2, chance)
    waiting: list[Kill] = []
    run = KilledRun(launcher, expected, bucket)
    done = 0
    while done < KILLS_A_TEST:
        kill = waiting.pop() if waiting and run.newest is not None else next(queue)
        if kill.resuming and run.newest is None:
            waiting.append(kill)
            continue
        fired = run.survives(kill, elsewhere=kill.elsewhere or chance.random() < 0.3)
        print(f"{'killed' if fired else 'not reached'}: {kill}; newest {run.newest}", flush=True)
        done += fired
        if run.ended:
            run.comes_to_its_end()
            run = KilledRun(launcher, expected, bucket)
    run.comes_to_its_end()
