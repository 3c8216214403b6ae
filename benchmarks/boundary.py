"""What `ck.steps` costs a step: an empty loop of two ranks with it and without.

python benchmarks/boundary.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

GOAL_US = 20.0
RANKS = 2
SCRIPT = """
import os, time
import torch, torch.distributed as dist
import runctl

BLOCK, BLOCKS = 20_000, 20
torch.set_num_threads(1)
dist.init_process_group("gloo")
model = torch.nn.Linear(64, 64)
optimizer = torch.optim.Adam(model.parameters())
model(torch.randn(1, 64)).sum().backward()
optimizer.step()
ck = runctl.attach(model=model, optimizer=optimizer, every="1h")

def blocks(steps):
    times, began = [], None
    for step in steps:
        if step % BLOCK == 0:
            now = time.perf_counter()
            if began is not None:
                times.append(now - began)
            began = now
            if len(times) > BLOCKS:
                break
    return times[1:]  # the first step prepares the buffer

bare = blocks(range(1_000_000_000))
dist.barrier()
polled = blocks(ck.steps(1_000_000_000))
dist.barrier()
costs = (f"{1e6 * (a - b) / BLOCK}" for a, b in zip(polled, bare))
# One write, or the ranks' lines mix where Python is told not to buffer.
os.write(1, f"cost {dist.get_rank()} {' '.join(costs)}\\n".encode())
dist.destroy_process_group()
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "empty.py").write_text(SCRIPT)
        torchrun = str(Path(sys.executable).parent / "torchrun")
        done = subprocess.run(
            [torchrun, "--standalone", f"--nproc-per-node={RANKS}", "empty.py"],
            cwd=folder, check=False, capture_output=True, text=True,
        )  # fmt: skip
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("cost ")]
    if done.returncode != 0 or len(lines) != RANKS:
        sys.exit(f"{RANKS} ranks of an empty loop failed with code {done.returncode}:\n{done.stderr[-3000:]}")
    print(f"\nck.steps over an empty loop at {RANKS} ranks, µs a step, no save due")
    medians = []
    for _, rank, *words in sorted(lines, key=lambda line: line[1]):
        costs = [float(word) for word in words]
        medians.append(statistics.median(costs))
        print(f"rank {rank}: median {medians[-1]:.2f}, slowest of {len(costs)} blocks {max(costs):.2f}")
    print(f"at most {GOAL_US:g} µs on every rank: {'yes' if max(medians) <= GOAL_US else 'NO'}", flush=True)


if __name__ == "__main__":
    main()
