"""`runctl.attach` without a launcher: killed, stopped and resumed, the weights are those of an undisturbed run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

import runctl
from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.manifest import verify
from runctl.errors import ConfigError

STEPS = 120


def wait_for_a_checkpoint(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not Catalog(folder).steps():
        assert time.monotonic() < deadline, "no checkpoint within a minute"
        time.sleep(0.02)


def kill_tree(pid: int) -> None:
    """SIGKILL for a process and all below it, at once."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("nproc", [pytest.param(None, marks=pytest.mark.soak), 2])
def test_killed_and_resumed_the_weights_are_bit_identical(training, nproc: int | None) -> None:
    _, undisturbed = training("undisturbed").run(STEPS, nproc)
    killed = training("killed")
    chance = random.Random(nproc)
    for _ in range(2):
        process = killed.start(STEPS, nproc)
        wait_for_a_checkpoint(killed.checkpoints)
        time.sleep(chance.uniform(0, 0.5))
        kill_tree(process.pid)
        process.wait()
    start, resumed = killed.run(STEPS, nproc)
    assert start > 0
    assert resumed == undisturbed


@pytest.mark.slow
def test_any_pytorch_user_can_open_the_checkpoint(training) -> None:
    plain = training("plain")
    plain.run(12)
    folder = Catalog(plain.checkpoints).path(12)
    state = torch.load(folder / "data.pt", weights_only=True)
    assert {"epoch", "step", "model_state_dict", "optimizer_state_dict", "loss", "config", "timestamp"} <= set(state)
    assert state["step"] == 12
    assert "0.weight" in state["model_state_dict"]
    assert verify(folder).world_size == 1


@pytest.mark.slow
def test_an_ended_training_begins_and_ends_at_its_last_step_on_every_rank(training) -> None:
    plain = training("plain")
    _, first = plain.run(20, 2)
    start, second = plain.run(20, 2)  # which would time out if a rank waited for a checkpoint that is there already
    assert (start, second) == (20, first)


@pytest.mark.slow
def test_a_flipped_byte_is_refused_and_the_checkpoint_before_is_used(training) -> None:
    _, undisturbed = training("undisturbed").run(STEPS)
    harmed = training("harmed")
    process = harmed.start(STEPS, step_s=0.05)
    wait_for_a_checkpoint(harmed.checkpoints)
    while len(Catalog(harmed.checkpoints).steps()) < 2:
        time.sleep(0.02)
    kill_tree(process.pid)
    process.wait()
    steps = Catalog(harmed.checkpoints).steps()
    newest = Catalog(harmed.checkpoints).path(steps[-1]) / "data.pt"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    start, resumed = harmed.run(STEPS)
    assert (start, resumed) == (steps[-2], undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("nproc", [None, pytest.param(2, marks=pytest.mark.soak)])
def test_sigterm_loses_no_step(training, nproc: int | None) -> None:
    stopped = training("stopped")
    process = stopped.start(10_000, nproc)
    wait_for_a_checkpoint(stopped.checkpoints)
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    last = Catalog(stopped.checkpoints).steps()[-1]
    start, _ = stopped.run(last + 5, nproc)
    assert start == last


@pytest.mark.soak
def test_more_ranks_than_before_resume_and_say_what_is_derived(training) -> None:
    grown = training("grown")
    grown.run(10)
    done = subprocess.run(
        grown.command(20, 2), cwd=grown.folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "start 10" in done.stdout
    assert "step-000010 has no state of rank 1" in done.stderr


@pytest.mark.slow
def test_nothing_of_a_plain_run_is_left_in_the_temporary_folder(training, tmp_path: Path) -> None:
    clean = training("clean")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    subprocess.run(
        clean.command(10, None), cwd=clean.folder, env={**os.environ, "TMPDIR": str(temporary)}, timeout=300, check=True
    )
    assert [path for path in temporary.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("every", ["often", "5 bananas", "0steps", "0s", "10", ""])
def test_an_interval_that_is_none_is_said_at_once(every: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"every={every}: "):
        runctl.attach(model=torch.nn.Linear(1, 1), folder=tmp_path / "none", every=every)
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_auto_takes_checkpoints_and_says_how_often(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import time, torch, runctl\n"
        "ck = runctl.attach(model=torch.nn.Linear(8, 8), every='auto')\n"
        "for step in ck.steps(10**9):\n"
        "    time.sleep(0.01)\n"
    )
    with (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen([sys.executable, "train.py"], cwd=tmp_path, stderr=err, start_new_session=True)
    try:
        wait_for_a_checkpoint(tmp_path / "checkpoints")
        while b"a checkpoint every" not in (tmp_path / "err").read_bytes():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        kill_tree(process.pid)
        process.wait()
    said = (tmp_path / "err").read_text()
    assert said.count("a checkpoint every") == 1
    assert "stall, one interruption in 24 h" in said
