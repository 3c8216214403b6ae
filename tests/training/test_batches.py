"""`ck.epochs` and `ck.batches`: in the middle of a shuffled epoch the same batches come, in the same order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, sys, torch, runctl
from torch.utils.data import DataLoader

torch.manual_seed(3)
weight = torch.nn.Linear(1, 1)
loader = DataLoader(list(range(12)), batch_size=3, shuffle=True, num_workers=int(sys.argv[2]))
ck = runctl.attach(model=weight, loader=loader, every="1000steps")
for epoch in ck.epochs(3):
    for batch in ck.batches():
        if ck.step == int(sys.argv[1]):
            ck.save()
            sys.exit(9)
        print(epoch, batch.tolist(), round(torch.rand(1).item(), 6), flush=True)
print("ended at", ck.step, ck.epoch)
"""


def run(folder: Path, stop_at: int, workers: int) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "train.py", str(stop_at), str(workers)],
        cwd=folder, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 9), done.stderr
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize(("stop_at", "workers"), [(2, 0), (6, 0), (8, 0), (5, 2)])
def test_a_resumed_epoch_goes_on_where_it_was(tmp_path: Path, stop_at: int, workers: int) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
        (folder / "train.py").write_text(SCRIPT)
    _, expected = run(whole, -1, workers)
    assert len(expected) == 13
    code, before = run(parts, stop_at, workers)
    assert (code, len(before)) == (9, stop_at)
    code, after = run(parts, -1, workers)
    assert code == 0
    assert before + after == expected
