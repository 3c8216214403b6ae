"""A training of known arithmetic, run under plain python or torchrun, without a launcher."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = """
import hashlib, os, random, sys, time
import numpy as np
import torch, torch.distributed as dist
from torch import nn
import runctl

ddp = "RANK" in os.environ
if ddp:
    dist.init_process_group("gloo")
rank = dist.get_rank() if ddp else 0
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.1), nn.Linear(16, 1))
wrapped = nn.parallel.DistributedDataParallel(model) if ddp else model
optimizer = torch.optim.Adam(wrapped.parameters(), 1e-2)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 20, 0.9)
torch.manual_seed(rank), np.random.seed(rank), random.seed(rank)
ck = runctl.attach(model=wrapped, optimizer=optimizer, scheduler=scheduler, every="5steps")
if rank == 0:  # two ranks that print at once may do so in one line
    print("start", ck.step, flush=True)
for step in ck.steps(int(sys.argv[1])):
    # Every generator takes part, so that one that is not restored changes the weights.
    x = torch.randn(16, 8) + float(np.random.rand()) + random.random()
    loss = nn.functional.mse_loss(wrapped(x), x.sum(1, keepdim=True))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    ck.log(loss=loss)
    time.sleep(float(os.environ.get("STEP_S", "0")))
digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()
if rank == 0:
    print("done", ck.step, digest, flush=True)
if ddp:
    dist.destroy_process_group()
"""


class Training:
    """The script in a folder of its own, started as often as a test likes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        (folder / "train.py").write_text(SCRIPT)

    def command(self, steps: int, nproc: int | None) -> list[str]:
        python = [sys.executable]
        if nproc is not None:
            python += ["-m", "torch.distributed.run", f"--nproc-per-node={nproc}", "--rdzv-backend=c10d",
                       "--rdzv-endpoint=localhost:0"]  # fmt: skip
        return [*python, "train.py", str(steps)]

    def run(self, steps: int, nproc: int | None = None) -> tuple[int, str]:
        """Run to the end: the step it began from, and the digest of the final weights."""
        done = subprocess.run(
            self.command(steps, nproc), cwd=self.folder, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        words = [line.split() for line in done.stdout.splitlines()]
        start = next(int(line[1]) for line in words if line[0] == "start")
        final = next(line for line in words if line[0] == "done")
        assert int(final[1]) == steps
        return start, final[2]

    def start(self, steps: int, nproc: int | None = None, step_s: float = 0.02) -> subprocess.Popen[bytes]:
        """Start it in a session of its own, slowed down."""
        return subprocess.Popen(
            self.command(steps, nproc),
            cwd=self.folder,
            env={**os.environ, "STEP_S": str(step_s), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


@pytest.fixture
def training(tmp_path: Path) -> Callable[[str], Training]:
    def make(name: str) -> Training:
        (tmp_path / name).mkdir()
        return Training(tmp_path / name)

    return make
