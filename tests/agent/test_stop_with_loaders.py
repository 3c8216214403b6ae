"""A stop with data loader workers, in training, in an evaluation, or while the first step still compiles."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
from real_launches import Launcher

from runctl.checkpoint.catalog import Catalog

SEED = int(os.environ.get("RUNCTL_SOAK_SEED", "0"))
SCRIPT = """
    import os, time
    import torch, torch.distributed as dist
    from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
    import runctl

    if __name__ == "__main__":
        dist.init_process_group("gloo")
        rank = dist.get_rank()
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        data = TensorDataset(torch.randn(4000, 4))
        sampler = DistributedSampler(data)
        loader = DataLoader(data, 4, sampler=sampler, num_workers=2)
        ck = runctl.attach(model=model, optimizer=optimizer, loader=loader)
        phase = os.environ["PHASE"]
        for epoch in ck.epochs(50):
            sampler.set_epoch(epoch)
            for (batch,) in ck.batches():
                if phase == "first step" and ck.step == 0:
                    open(f"ready-{rank}", "w")
                    time.sleep(2)
                model(batch).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                with open(f"steps-{rank}", "a") as done:
                    done.write(".")
                if phase == "evaluation" and ck.step == 5:
                    open(f"ready-{rank}", "w")
                    time.sleep(2)
                if phase == "training" and ck.step == 20:
                    open(f"ready-{rank}", "w")
                time.sleep(0.01)
"""


PHASES = ("training", "evaluation", "first step")
STOPS_IN_SOAK = 20


def stop(launcher: Launcher, phase: str, after_s: float) -> None:
    """Stop a training some time after it has come to a phase, and see that each step it did is in a checkpoint."""
    launch = launcher.start(script=SCRIPT, ranks=2, env={"PHASE": phase})
    launch.ready("ready-0", "ready-1")
    time.sleep(after_s)
    launch.process.send_signal(signal.SIGTERM)
    assert launch.end() == 143, launch.err
    done = [len((launcher.project / f"steps-{rank}").read_text()) for rank in (0, 1)]
    assert done[0] == done[1] > 0
    assert Catalog(launch.run_dir / "checkpoints").steps() == [done[0]]
    assert "exited unexpectedly" not in launch.err
    assert launch.of_this_run() == []


@pytest.mark.slow
@pytest.mark.parametrize("phase", [PHASES[0], pytest.param(PHASES[1], marks=pytest.mark.soak)])
def test_a_stop_loses_no_optimizer_step(launcher: Launcher, phase: str) -> None:
    stop(launcher, phase, 0)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(STOPS_IN_SOAK), ids=lambda number: f"seed {SEED} stop {number}")
def test_no_stop_of_many_loses_an_optimizer_step(launcher: Launcher, number: int) -> None:
    stop(launcher, PHASES[number % len(PHASES)], random.Random(f"{SEED} {number}").uniform(0, 2.5))
