"""`ck.epochs` and `ck.batches`: in the middle of a shuffled epoch the same batches come, in the same order."""

from __future__ import annotations

import json
import os
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
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 9), done.stderr
    return done.returncode, done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop_at", "workers"),
    [
        pytest.param(2, 0, marks=pytest.mark.soak),
        pytest.param(6, 0, marks=pytest.mark.soak),
        pytest.param(8, 0, marks=pytest.mark.soak),
        (5, 2),
    ],
)
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


EPOCHS = """
import os, sys, time, torch, torch.distributed as dist, runctl
from pathlib import Path

ddp = "RANK" in os.environ
if ddp:
    dist.init_process_group("gloo")
weight = torch.nn.Linear(1, 1)
loader = [1, 2, 3]
ck = runctl.attach(model=weight, every="1s")
print("begin", ck.epoch, flush=True)
for epoch in ck.epochs(8):
    for batch in loader:
        time.sleep(0.2)
    if ddp:
        dist.barrier()
    if epoch == 6 and "die" in sys.argv:
        while not list(Path("checkpoints").glob("step-*/manifest.json")):
            time.sleep(0.05)
        os._exit(9)
if ddp:
    dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_epochs_of_a_loop_that_iterates_its_data_itself_are_saved_by_the_clock(tmp_path: Path, ranks: int) -> None:
    (tmp_path / "train.py").write_text(EPOCHS)
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--rdzv-backend=c10d",
                "--rdzv-endpoint=localhost:0"] if ranks > 1 else []  # fmt: skip

    def begun_at(*words: str) -> int:
        line = [sys.executable, *torchrun, "train.py", *words]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert (done.returncode == 0) is ("die" not in words), done.stderr
        return int(done.stdout.split()[1])

    assert begun_at("die") == 0
    saved = sorted((tmp_path / "checkpoints").glob("step-*/manifest.json"))
    newest = json.loads(saved[-1].read_text())
    assert 2 <= newest["epoch"] == newest["step"] <= 6
    assert len([name for name in newest["files"] if name.startswith("rank-")]) == ranks
    assert begun_at() == newest["epoch"]
    last = sorted((tmp_path / "checkpoints").glob("step-*/manifest.json"))[-1]
    assert json.loads(last.read_text())["epoch"] == 8


LAST_BATCH = """
import os, sys, torch, runctl
from torch.utils.data import DataLoader

model = torch.nn.Linear(1, 1)
loader = DataLoader(list(range(12)), batch_size=3)
ck = runctl.attach(model=model, loader=loader, every="4steps")
for epoch in ck.epochs(3):
    for batch in ck.batches():
        ck.log(loss=float(batch.sum()))
    if "die" in sys.argv:
        ck.saver.finish(60.0)
        os._exit(9)
    print(epoch, ck.step, ck.loss, flush=True)
"""


@pytest.mark.slow
def test_what_follows_an_epochs_last_batch_is_done_after_a_checkpoint_there_and_knows_the_loss(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(LAST_BATCH)

    def printed(*words: str) -> list[str]:
        line = [sys.executable, "train.py", *words]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert (done.returncode == 9) is ("die" in words), done.stderr
        return done.stdout.splitlines()

    assert printed("die") == []
    assert [path.parent.name for path in tmp_path.glob("checkpoints/step-*/manifest.json")] == ["step-000004"]
    assert printed() == ["0 4 30.0", "1 8 30.0", "2 12 30.0"]


SHARED = """
import os, sys, torch, runctl
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
data = list(range(24))
sampler = DistributedSampler(data, world, rank, shuffle=True, seed=3)
ck = runctl.attach(model=torch.nn.Linear(1, 1), loader=DataLoader(data, batch_size=2, sampler=sampler), every="4steps")
seen = []
for epoch in ck.epochs(1):
    for batch in ck.batches():
        if sys.argv[1:] == ["die"] and ck.step == 4:
            ck.saver.finish(60.0)
            os._exit(9)
        seen += batch.tolist()
        with open(f"seen-{world}-{rank}", "w") as file:
            file.write(" ".join(map(str, seen)))
with open(f"ended-{rank}", "w") as file:
    file.write(str(ck.step))
"""


@pytest.mark.slow
def test_an_epoch_that_goes_on_with_more_ranks_has_each_batch_once(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SHARED)
    torchrun = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=localhost:0",
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    for words, code in ((["train.py", "die"], 9), ([*torchrun, "train.py"], 0)):
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == code, done.stderr
    seen = [[int(word) for word in (tmp_path / f"seen-{name}").read_text().split()] for name in ("1-0", "2-0", "2-1")]
    assert [len(one) for one in seen] == [8, 8, 8]
    assert sorted(index for one in seen for index in one) == list(range(24))
    assert [(tmp_path / f"ended-{rank}").read_text() for rank in (0, 1)] == ["8", "8"]
