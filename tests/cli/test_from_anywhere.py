"""Runs that were left to themselves, and runs that another machine launched: followed, stopped, waited for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
SCRIPT = """
import time
for step in range(1, 1800):
    print(f"step={step} loss={1 / step:.4f}", flush=True)
    time.sleep(0.1)
"""


class Machine:
    """A user's machine: a home of its own, and the two commands."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.home = home
        self.env = {
            **os.environ, "HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"), "XDG_CONFIG_HOME": str(home / "config"),
        }  # fmt: skip

    def run(self, command: str, *words: str, code: int = 0, timeout_s: float = 60) -> str:
        done = subprocess.run(
            [str(BIN / command), *words], cwd=self.home, env=self.env, capture_output=True, text=True,
            timeout=timeout_s, check=False,
        )  # fmt: skip
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout

    def standing(self, run: str) -> dict:
        return json.loads(self.run("runctl", "show", run, "--json"))["run"]

    def wait_for_step(self, run: str, step: int) -> None:
        deadline = time.monotonic() + 60
        while (self.standing(run)["step"] or 0) < step:
            assert time.monotonic() < deadline
            time.sleep(0.3)


@pytest.fixture
def mine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path / "mine")
    (machine.home / "train.py").write_text(SCRIPT)
    return machine


@pytest.mark.slow
def test_a_detached_run_on_this_machine_is_followed_and_stopped(mine: Machine) -> None:
    # Captured: a launch that left a descriptor with the run would not return before its end.
    mine.run("runctl-launch", "script=train.py", "detach=true", "run.id=alone", timeout_s=30)
    mine.wait_for_step("alone", 3)
    assert json.loads(mine.run("runctl", "ps", "--json"))[0]["state"] == "running"
    follower = subprocess.Popen(
        [str(BIN / "runctl"), "logs", "-f", "alone"], cwd=mine.home, env=mine.env, stdout=subprocess.PIPE, text=True
    )
    assert follower.stdout is not None and follower.stdout.readline().startswith("step=1 ")
    assert "asked to stop" in mine.run("runctl", "stop", "alone")
    rest = follower.stdout.read()  # it ends by itself with the run
    assert follower.wait(30) == 0
    now = mine.standing("alone")
    assert (now["state"], now["reason"], now["exit_code"]) == ("stopped", "stopped by runctl stop", 143)
    assert rest.splitlines()[-1].startswith(f"step={now['step']} ")
    assert "stopped" in mine.run("runctl", "wait", "alone", code=143)
    assert "has ended already" in mine.run("runctl", "stop", "alone")


def test_an_attached_run_is_stopped_from_another_terminal(mine: Machine) -> None:
    launch = subprocess.Popen(
        [str(BIN / "runctl-launch"), "script=train.py", "run.id=here"], cwd=mine.home, env=mine.env,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert launch.stdout is not None and launch.stdout.readline().startswith("step=1 ")
    mine.run("runctl", "stop", "here", "--now")
    _, said = launch.communicate(timeout=30)
    assert launch.returncode == 143
    assert "stopped by runctl stop" in said


@pytest.mark.slow
def test_another_machine_follows_and_stops_a_run_it_did_not_start(
    mine: Machine, tmp_path: Path, s3: object, fresh_bucket: str
) -> None:
    mine.env.update(os.environ | {name: mine.env[name] for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME")})
    root = f"s3://{fresh_bucket}/runs"
    mine.run("runctl-launch", "script=train.py", "detach=true", "run.id=shared", f"run.root={root}")
    theirs = Machine(tmp_path / "theirs")
    place = f"{root}/shared"
    theirs.wait_for_step(place, 3)
    assert theirs.standing("shared")["state"] == "running"  # known by its id from now on
    assert [one["run_id"] for one in json.loads(theirs.run("runctl", "ps", "--json"))] == ["shared"]
    follower = subprocess.Popen(
        [str(BIN / "runctl"), "logs", "-f", "shared", "--grep", "step"], cwd=theirs.home, env=theirs.env,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert follower.stdout is not None and follower.stdout.readline().startswith("step=1 ")
    theirs.run("runctl", "stop", "shared")
    shown = follower.stdout.read().splitlines()
    assert follower.wait(30) == 0
    now = mine.standing("shared")
    assert now["state"] == "stopped" and shown[-1].startswith(f"step={now['step']} ")
    assert json.loads(theirs.run("runctl", "reindex", root, "--json")) == {root: 1}
