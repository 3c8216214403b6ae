"""A training that is killed at any moment and any place goes on to bit-identical weights."""

from __future__ import annotations

import itertools
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_points import AGENT, LAUNCHER, RANKS, ROLES, UPLOADER, WRITER
from kills import LOCAL, REMOTE, Expected, Kill, Point, endure, undisturbed
from real_launches import Launcher

SEED = int(os.environ.get("RUNCTL_SOAK_SEED", "0"))
KILLS = int(os.environ.get("RUNCTL_SOAK_KILLS", "200"))
KILLS_A_TEST = 10
PLACES_A_TEST = 6
LOCAL_ROLES = tuple(role for role in ROLES if role != UPLOADER)


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Expected:
    with tempfile.TemporaryDirectory(prefix="rt-") as scratch:  # short, for the paths of sockets
        return undisturbed(Launcher(tmp_path_factory.mktemp("project"), Path(scratch)))


@pytest.mark.parametrize("point", dict.fromkeys(LOCAL + REMOTE), ids=lambda point: f"{point.function} of {point.role}")
def test_every_place_of_a_kill_is_there(point: Point) -> None:
    assert point.statements() > 0


def at(victim: str, points: tuple[Point, ...], name: str, role: str, statement: int) -> Kill:
    point = next(point for point in points if point.function.endswith(f":{name}") and point.role == role)
    return Kill(victim, point=point, statement=statement, elsewhere=point.elsewhere)


MOMENTS = [
    # Not late: the undisturbed launch, by which moments are reckoned, may have met a busier machine.
    Kill(victim, moment=random.Random(f"moment of {victim}").uniform(0.15, 0.6))
    for victim in (LAUNCHER, AGENT, RANKS[1])
]
SAVING_AND_RESTORING = [
    at(WRITER, LOCAL, "_HashingFile.write", WRITER, 100),
    at(RANKS[1], LOCAL, "Checkpointer._load", RANKS[1], 2),
]
SNAPSHOTS = [
    at(RANKS[1], LOCAL, "Meeting.leave_rank_state", RANKS[1], 1),
    at(RANKS[0], LOCAL, "Snapshot.take", RANKS[0], 12),
]
UPLOADING_AND_DOWNLOADING = [
    at(AGENT, REMOTE, "RemoteCatalog._replace", UPLOADER, 6),
    at(AGENT, REMOTE, "FsspecStore.get_file", AGENT, 4),
]
UPLOADER_GOES = [at(UPLOADER, REMOTE, "FsspecStore.put_file", UPLOADER, 2)]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kills", "remote"),
    [
        pytest.param(MOMENTS, False, id="at random moments", marks=pytest.mark.soak),
        pytest.param(SAVING_AND_RESTORING, False, id="while it saves and restores"),
        pytest.param(SNAPSHOTS, False, id="while it takes a snapshot", marks=pytest.mark.soak),
        pytest.param(UPLOADING_AND_DOWNLOADING, True, id="while it uploads and downloads"),
        pytest.param(UPLOADER_GOES, True, id="its uploader alone", marks=pytest.mark.soak),
    ],
)
def test_killed_it_goes_on_to_the_weights_of_an_undisturbed_run(
    s3, launcher: Launcher, expected: Expected, kills: list[Kill], remote: bool
) -> None:
    bucket = f"s3://{s3.bucket()}/runs" if remote else None
    assert endure(launcher, expected, bucket, kills, count=len(kills), tries=3) == []


def drawn(points: tuple[Point, ...], victims: tuple[str, ...], share: int, chance: random.Random) -> Iterator[Kill]:
    """Kills without end: two at a random moment, three at a place, and so on; now and then on another host.

    Every phase comes with every victim before one comes again; the shares of a soak go on from one another.
    """
    pairs = list(itertools.product(sorted({point.phase for point in points}), victims))
    random.Random(SEED).shuffle(pairs)
    begin = share * PLACES_A_TEST % len(pairs)
    pairs_from_there = itertools.cycle(pairs[begin:] + pairs[:begin])
    for number in itertools.count():
        elsewhere = chance.random() < 0.3
        if number % 5 < 2:
            yield Kill(chance.choice(victims), moment=chance.random(), elsewhere=elsewhere)
        else:
            phase, victim = next(pairs_from_there)
            point = chance.choice([point for point in points if point.phase == phase])
            before = chance.randrange(point.calls) * point.statements()
            statement = before + chance.randint(1, point.statements())
            yield Kill(victim, point=point, statement=statement, elsewhere=elsewhere or point.elsewhere)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", range(-(-KILLS // KILLS_A_TEST)), ids=lambda number: f"seed {SEED} part {number}")
def test_soak_of_kills(s3, launcher: Launcher, expected: Expected, number: int) -> None:
    bucket = f"s3://{s3.bucket()}/runs" if number % 2 else None
    points, victims = (REMOTE, ROLES) if bucket else (LOCAL, LOCAL_ROLES)
    queue = drawn(points, victims, number // 2, random.Random(f"{SEED} {number}"))
    endure(launcher, expected, bucket, queue, count=KILLS_A_TEST, tries=1)
