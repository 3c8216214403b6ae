"""Whatever of a launch is killed, and whenever: the same launch again ends with the weights of an undisturbed run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest
from real_launches import Launch, Launcher, wait_until

from runctl.checkpoint.catalog import Catalog
from runctl.rundir import RunDir

STEPS = 250
WORDS = ("checkpoint.every=5steps", f"args.steps={STEPS}")
SCRIPT = """
    import hashlib, os, random, sys, time
    import torch, torch.distributed as dist
    from torch import nn
    import runctl

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1), nn.Linear(8, 1)))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    torch.manual_seed(rank), random.seed(rank)
    ck = runctl.attach(model=model, optimizer=optimizer)
    begin = ck.step
    for step in ck.steps(int(sys.argv[1].split("=")[1])):
        x = torch.randn(16, 8) + random.random()
        loss = nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ck.log(loss=loss)
        time.sleep(float(os.environ.get("STEP_S", "0")))
        if rank == 0 and step == begin + 3:
            open("begun", "w")
    if rank == 0:
        weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
        open("digest", "w").write(hashlib.sha256(weights).hexdigest())
    dist.destroy_process_group()
"""


def start(launcher: Launcher, step_s: float = 0.0) -> Launch:
    return launcher.start(*WORDS, script=SCRIPT, ranks=2, run_id="killed", env={"STEP_S": str(step_s)})


def victims(launch: Launch) -> dict[str, int]:
    """What can be killed of a training that runs."""
    status = [(w.pid, " ".join(w.cmdline())) for w in psutil.Process(launch.agent()).children(recursive=True)]
    ranks = [pid for pid, words in status if "training/worker.py" in words]
    writers = [pid for pid, words in status if "runctl.training.writer" in words]
    return {
        "launcher": launch.process.pid,
        "agent": launch.agent(),
        "torchrun": launch.torchrun(),
        "rank": ranks[-1],
        "first rank": ranks[0],
        "writer": writers[0],
    }


def undisturbed(launcher: Launcher, folder: Path) -> str:
    launch = launcher.start(*WORDS, script=SCRIPT, ranks=2, run_id="undisturbed")
    assert launch.end() == 0, launch.err
    digest = (launcher.project / "digest").read_text()
    (launcher.project / "digest").unlink()
    (launcher.project / "begun").unlink()
    return digest


def test_killed_anywhere_the_run_resumes_to_bit_identical_weights(launcher: Launcher, tmp_path: Path) -> None:
    expected = undisturbed(launcher, tmp_path)
    chance = random.Random(7)
    for number, name in enumerate(("launcher", "agent", "torchrun", "rank", "writer")):
        launch = start(launcher, step_s=0.05)
        kill_one(launch, name, chance.uniform(0, 0.6))
        assert len(RunDir(str(launch.run_dir)).attempts()) == number + 1
    last = start(launcher)
    assert last.end() == 0, last.err
    assert (launcher.project / "digest").read_text() == expected
    steps = [entry["step"] for entry in RunDir(str(last.run_dir)).metrics()]
    assert steps == list(range(1, STEPS + 1)), "no step is counted twice, and none is missing"
    assert last.json("outcome.json")["resumed_from_step"] > 0


def kill_one(launch: Launch, name: str, after_s: float) -> None:
    """Kill one process of a launch a moment after its training has begun, and see that all the others go."""
    begun = launch.project / "begun"
    wait_until(lambda: begun.exists() and _has_writer(launch), 60, "the training has begun")
    begun.unlink()
    victim = victims(launch)[name]
    time.sleep(after_s)
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    launch.end()
    wait_until(lambda: not launch.of_this_run(), 20, f"nothing is left after {name} was killed")


def _has_checkpoint(launch: Launch) -> bool:
    assert launch.process.poll() is None, launch.err
    return bool(Catalog(launch.run_dir / "checkpoints").steps())


def _has_writer(launch: Launch) -> bool:
    with contextlib.suppress(psutil.Error, StopIteration, IndexError, FileNotFoundError):
        return bool(victims(launch))
    return False


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_loses_no_step(launcher: Launcher, signum: signal.Signals) -> None:
    launch = start(launcher, step_s=0.05)
    launch.ready("begun")
    launch.process.send_signal(signum)
    assert launch.end() == (130 if signum == signal.SIGINT else 143)
    assert launch.json("outcome.json")["state"] == "stopped"
    stopped_at = launch.json("status.json")["step"]
    assert Catalog(launch.run_dir / "checkpoints").steps()[-1] == stopped_at
    again = start(launcher)
    assert again.end() == 0, again.err
    outcome = again.json("outcome.json")
    assert (outcome["resumed_from_step"], outcome["steps_lost"]) == (stopped_at, 0)


def test_a_limit_stops_at_a_checkpoint(launcher: Launcher) -> None:
    launch = launcher.start(
        "limits.max_time=12s", "checkpoint.every=1h", "args.steps=100000", script=SCRIPT, ranks=2,
        env={"STEP_S": "0.05"},
    )  # fmt: skip
    assert launch.end() == 124, launch.err
    status = launch.json("status.json")
    assert status["checkpoints"] == [status["step"]]


def test_an_exception_in_the_script_leaves_what_was_saved(launcher: Launcher) -> None:
    launch = launcher.start(
        script="""
            import torch, runctl
            ck = runctl.attach(model=torch.nn.Linear(2, 2))
            for step in ck.steps(10):
                if step == 4:
                    ck.save()
                    raise ValueError("no more")
        """
    )
    assert launch.end() == 1
    assert launch.json("outcome.json")["checkpoints"] == ["step-000004"]
    assert "step-000004 is saved" in launch.err


def test_all_checkpoints_corrupt_is_an_error_and_never_step_zero(launcher: Launcher) -> None:
    launch = start(launcher, step_s=0.05)
    wait_until(lambda: _has_checkpoint(launch), 60, "a checkpoint")
    launch.process.send_signal(signal.SIGINT)
    launch.end()
    for step in Catalog(launch.run_dir / "checkpoints").steps():
        (launch.run_dir / "checkpoints" / f"step-{step:06d}" / "data.pt").write_bytes(b"")
    for _ in range(2):
        again = start(launcher)
        assert again.end() != 0
        assert "none is usable" in again.err
        assert not (launcher.project / "digest").exists()


def test_what_would_not_load_fails_at_the_first_save_and_names_its_key(launcher: Launcher) -> None:
    launch = launcher.start(
        script="""
            import torch, runctl
            class Odd:
                def state_dict(self):
                    return {"where": {"path": __import__("pathlib").Path("x")}}
                def load_state_dict(self, state):
                    pass
            ck = runctl.attach(model=torch.nn.Linear(2, 2), odd=Odd())
            for step in ck.steps(3):
                pass
        """
    )
    assert launch.end() == 1
    assert "odd_state_dict.where.path" in launch.err
