"""`checkpoint.every=auto` in a whole launch: checkpoints are taken by its own reckoning, and it says which."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from real_launches import Launch, Launcher
from waiting import wait_until

from runctl.agreement import Agreement
from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.interval import FLOOR_S

SCRIPT = """
    import os, time, torch, runctl
    ck = runctl.attach(model=torch.nn.Linear(64, 64))
    for step in ck.steps(1_000_000):
        ck.log(loss=1.0)
        time.sleep(0.02)
"""
SAID = re.compile(r"runctl: a checkpoint every (\S+) (\S+) \(auto: .* stall, one interruption in 20 min;? ?.*\)")


def said(launch: Launch) -> list[str]:
    return [line for line in launch.err.splitlines() if "a checkpoint every" in line]


@pytest.mark.soak
def test_checkpoints_are_taken_and_the_interval_is_told_once(launcher: Launcher) -> None:
    launch = launcher.start(
        "checkpoint.every=auto", "platform.mean_time_to_interruption=20m", "checkpoint.keep_last=10", script=SCRIPT
    )
    catalog = Catalog(Path(launch.run_dir / "checkpoints"))
    # One by the first interval, and one more by the interval that came of it.
    wait_until(lambda: len(catalog.steps()) >= 2 or launch.process.poll() is not None, 60, "two checkpoints")
    assert launch.process.poll() is None, launch.err
    launch.process.send_signal(signal.SIGINT)
    assert launch.end() == 130
    [line] = said(launch)
    assert SAID.fullmatch(line), line
    times = sorted((catalog.path(step) / "manifest.json").stat().st_mtime for step in catalog.steps()[:2])
    assert times[1] - times[0] > FLOOR_S / 2, "no more often than the floor, give or take a slow disk"


@pytest.mark.soak
def test_with_an_interval_of_their_own_launches_say_nothing(launcher: Launcher) -> None:
    launch = launcher.start("checkpoint.every=1s", script=SCRIPT)
    catalog = Catalog(Path(launch.run_dir / "checkpoints"))
    wait_until(lambda: len(catalog.steps()) >= 2, 60, "two checkpoints")
    launch.process.send_signal(signal.SIGINT)
    assert launch.end() == 130
    assert said(launch) == []


@pytest.mark.slow
def test_the_ranks_hear_from_the_agent_what_has_arrived_on_object_storage(s3, launcher: Launcher) -> None:
    launch = launcher.start(
        f"run.root=s3://{s3.bucket()}/runs", "checkpoint.every=20steps", script=SCRIPT, run_id="remote"
    )

    def durable() -> int:
        paths = list(launcher.scratch.glob("runctl-*/remote-*/a1/agreement-0"))
        return Agreement(paths[0]).durable if paths else -1

    step = wait_until(lambda: max(durable(), 0), 60, "a checkpoint that has arrived")
    assert step % 20 == 0
    launch.process.send_signal(signal.SIGINT)
    assert launch.end() == 130
