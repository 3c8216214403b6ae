"""`runctl.attach` without a launcher: what it begins from, and where its checkpoints are carried."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.remote import RemoteCatalog
from runctl.storage import open_store

SCRIPT = """
import os, sys, pathlib, time
import torch
from torch import nn
import runctl

class Count:
    done = 0
    def state_dict(self): return {"done": self.done}
    def load_state_dict(self, state):
        refused = pathlib.Path("refused")
        if rank == last and refused.exists() and str(state["done"]) in refused.read_text().split():
            raise KeyError(f"count of {state['done']}")
        self.done = state["done"]

rank, last = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)) - 1
count, model = Count(), nn.Linear(2, 2)
ck = runctl.attach(model=model, count=count, every="10steps", url=os.environ.get("URL"))
print(f"begins at {ck.step} {count.done}", flush=True)
for step in ck.steps(int(sys.argv[1])):
    while ck.saver is not None and ck.saver.busy:  # no save is put off
        ck.saver.poll(), time.sleep(0.01)
    count.done += 1
    if step + 1 == int(os.environ.get("FAILS_AT", "-1")):
        raise RuntimeError("as asked")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(SCRIPT)
    return tmp_path


def train(folder: Path, steps: int, nproc: int = 1, **env: str) -> subprocess.CompletedProcess[str]:
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={nproc}", "--rdzv-backend=c10d",
                "--rdzv-endpoint=localhost:0"] if nproc > 1 else []  # fmt: skip
    return subprocess.run(
        [sys.executable, *torchrun, "train.py", str(steps)], cwd=folder, env={**os.environ, **env},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("nproc", [pytest.param(1, marks=pytest.mark.soak), 2])
def test_what_does_not_load_on_one_rank_is_loaded_on_none(folder: Path, nproc: int) -> None:
    train(folder, 30)
    (folder / "refused").write_text("30")
    again = train(folder, 40, nproc)
    assert again.returncode == 0, again.stderr
    # The ranks share one output, and a line of one may come within a line of the other.
    assert (again.stdout.count("begins at"), again.stdout.count(" 20 20")) == (nproc, nproc)
    assert again.stderr.count("going back to the one before") == 1
    assert Catalog(folder / "checkpoints").steps() == [20, 30, 40]


@pytest.mark.slow
def test_if_none_loads_it_ends_with_an_error(folder: Path) -> None:
    train(folder, 30)
    (folder / "refused").write_text("10 20 30")
    again = train(folder, 40)
    assert again.returncode == 1
    assert "begins at" not in again.stdout
    assert "no checkpoint in" in again.stderr
    assert "step 10: KeyError: 'count of 10'" in again.stderr
    assert Catalog(folder / "checkpoints").steps() == [10, 20, 30]


@pytest.mark.slow
def test_checkpoints_are_carried_to_a_url_and_found_there_from_another_machine(folder: Path, s3) -> None:
    url = f"s3://{s3.bucket()}/plain"
    first = train(folder, 30, URL=url)
    assert first.returncode == 0, first.stderr
    assert RemoteCatalog(open_store(url)).steps()[-1] == 30
    (folder / "checkpoints").rename(folder / "gone")
    again = train(folder, 50, 2, URL=url)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("begins at 30 30") == 2
    assert RemoteCatalog(open_store(url)).steps()[-1] == 50


def test_an_exception_leaves_what_was_saved_at_the_url(folder: Path, tmp_path: Path) -> None:
    url = str(tmp_path / "kept")
    failed = train(folder, 30, URL=url, FAILS_AT="25")
    assert failed.returncode == 1
    assert "RuntimeError: as asked" in failed.stderr
    assert RemoteCatalog(open_store(url)).steps()[-1] == 20
