"""What an upload does to the steps beside it.

    python benchmarks/upload.py [STATE_GB] [ROUNDS]

A launch whose run directory is in object storage on loopback, the server idle-class as the uploader is. Its steps
are timed by turns without an upload and with one, and each upload is compared with the steps before and after it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from objects import object_storage

GOAL = 1.05
QUIET_S = 4.0
#: A machine that has no processor to spare leaves an idle-class uploader standing.
AT_MOST_S = 240.0
SCRIPT = """
import json, os, statistics, sys, time
from pathlib import Path
import torch, torch.distributed as dist, torch.nn.functional as functional
import runctl
from runctl.checkpoint.policy import RankPolicy

state_gb, rounds, quiet_s, at_most_s = map(float, sys.argv[1:5])
rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
torch.set_num_threads(1)
if ranks > 1:
    dist.init_process_group("gloo")

class Ballast(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.randn(int(state_gb * 1e9 / 4)))

model = torch.nn.Sequential(*(torch.nn.Linear(512, 512) for _ in range(4)))
wrapped = torch.nn.parallel.DistributedDataParallel(model) if ranks > 1 else model
optimizer = torch.optim.Adam(model.parameters(), 1e-4)
x = torch.randn(64, 512)
folder = Path(RankPolicy.from_environment().folder)
ck = runctl.attach(model=wrapped, optimizer=optimizer, ballast=Ballast())

def uploading():
    # The uploader holds the files of a checkpoint as long as it carries them.
    return any(folder.glob(".tmp-upload-*"))

QUIET, SAVE, END = range(3)
kinds, quiet, loud = [], [[]], []
turn = torch.tensor(QUIET)
phase, since, began_all = "warm", time.monotonic(), time.monotonic()
for step in ck.steps(1_000_000_000):
    began = time.perf_counter()
    loss = functional.mse_loss(wrapped(x), x)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    took = time.perf_counter() - began
    turn.fill_(QUIET)
    if rank == 0:
        now = time.monotonic()
        if phase == "warm":
            if now - since > 2 and not ck.saver.busy:
                phase, since = "quiet", now
        elif phase == "quiet":
            quiet[-1].append(took)
            if now - since > quiet_s:
                turn.fill_(END if len(loud) == rounds or now - began_all > at_most_s else SAVE)
                phase = "written"
        elif phase == "written":
            if uploading() and not ck.saver.busy:
                phase = "uploaded"
                loud.append([])
        elif uploading():
            loud[-1].append(took)
        else:
            phase, since = "quiet", now
            quiet.append([])
        if now - began_all > at_most_s:
            turn.fill_(END)
    if ranks > 1:
        dist.broadcast(turn, 0)
    if turn == SAVE:
        ck.save()
    elif turn == END:
        break
if rank == 0:
    # An upload that was cut short has no quiet steps after it.
    told = [[statistics.median(up), len(up), statistics.median(before), statistics.median(after)]
            for up, before, after in zip(loud, quiet, quiet[1:]) if up and before and after]
    Path(sys.argv[5]).write_text(json.dumps({"turns": told, "deferred": ck.saver.deferred}))
"""


def main(state_gb: float = 0.5, rounds: int = 5) -> None:
    print(f"\nStep time beside an upload of {state_gb:g} GB; server and uploader idle-class", flush=True)
    print(f"{'':<28}" + "".join(f"{word:>10}" for word in ("quiet ms", "upload ms", "ratio", "uploads", "deferred")))
    for ranks in (1, 2):
        name = f"{ranks} rank{'s' if ranks > 1 else ''} x 1 thread"
        turns, deferred = beside_uploads(ranks, state_gb, rounds)
        if not turns:
            print(f"{name:<28} no upload was done within {AT_MOST_S:g} s: this machine has no processor to spare")
            continue
        quiet = statistics.median((before + after) / 2 for _, _, before, after in turns)
        beside = statistics.median(up for up, *_ in turns)
        ratio = statistics.median(up / ((before + after) / 2) for up, _, before, after in turns)
        line = f"{name:<28}{quiet * 1000:>10.2f}{beside * 1000:>10.2f}{ratio:>9.3f}x{len(turns):>10}{deferred:>10}"
        steps = sum(count for _, count, *_ in turns)
        goal = f"; at most {GOAL}: {'yes' if ratio <= GOAL else 'NO'}" if ranks == 1 else ""
        print(f"{line}  ({steps} steps beside uploads{goal})", flush=True)


def beside_uploads(ranks: int, state_gb: float, rounds: int) -> tuple[list[list[float]], int]:
    """Launch the training.

    Returns:
        For each upload: the median step beside it (s), how many steps that were, and the median steps before and
        after it (s); and how many saves were deferred.

    Raises:
        SystemExit: if the launch fails.
    """
    trainer = ["trainer=single"] if ranks == 1 else ["trainer=ddp", f"trainer.nproc_per_node={ranks}"]
    with tempfile.TemporaryDirectory() as folder, object_storage(idle=True) as (env, bucket):
        cwd = Path(folder)
        (cwd / "train.py").write_text(SCRIPT)
        command = [str(Path(sys.executable).parent / "runctl-launch"), *trainer, f"run.root=s3://{bucket}/runs",
                   "checkpoint.every=1000000000steps", "--", "train.py",
                   *map(str, (state_gb, rounds, QUIET_S, AT_MOST_S, cwd / "found.json"))]  # fmt: skip
        done = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"the launch failed with code {done.returncode}:\n{done.stderr[-3000:]}")
        found = json.loads((cwd / "found.json").read_text())
        return found["turns"], found["deferred"]


if __name__ == "__main__":
    main(*(kind(word) for kind, word in zip((float, int), sys.argv[1:], strict=False)))
