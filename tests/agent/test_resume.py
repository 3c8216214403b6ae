"""A launch that was stopped, or that failed, goes on from its newest checkpoint (`test_kills.py` has those killed)."""

from __future__ import annotations

import signal

import light
import pytest
from real_launches import Launch, Launcher
from waiting import wait_until

from runctl.checkpoint.catalog import Catalog

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


def start(launcher: Launcher, step_s: float = 0.0, script: str = light.SCRIPT) -> Launch:
    return launcher.start(*WORDS, script=script, ranks=2, run_id="killed", env={"STEP_S": str(step_s)})


def _has_checkpoint(launch: Launch) -> bool:
    assert launch.process.poll() is None, launch.err
    return bool(Catalog(launch.run_dir / "checkpoints").steps())


@pytest.mark.slow
@pytest.mark.parametrize("signum", [pytest.param(signal.SIGINT, marks=pytest.mark.soak), signal.SIGTERM])
def test_a_stop_loses_no_step(launcher: Launcher, signum: signal.Signals) -> None:
    launch = start(launcher, step_s=0.05, script=SCRIPT)
    launch.ready("begun")
    launch.process.send_signal(signum)
    assert launch.end() == (130 if signum == signal.SIGINT else 143)
    assert launch.json("outcome.json")["state"] == "stopped"
    stopped_at = launch.json("status.json")["step"]
    assert Catalog(launch.run_dir / "checkpoints").steps()[-1] == stopped_at
    again = start(launcher, script=SCRIPT)
    assert again.end() == 0, again.err
    outcome = again.json("outcome.json")
    assert (outcome["resumed_from_step"], outcome["steps_lost"]) == (stopped_at, 0)


@pytest.mark.slow
def test_a_limit_stops_at_a_checkpoint(launcher: Launcher) -> None:
    launch = launcher.start(
        "limits.max_time=25s", "checkpoint.every=1h", "args.steps=100000", script=light.SCRIPT, ranks=2,
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


@pytest.mark.slow
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
