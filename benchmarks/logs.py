"""A log-heavy script: 200 MB of lines from two ranks, against `torchrun --tee 3`.

    python benchmarks/logs.py [PAIRS] [MEGABYTES]

Both commands show the lines on standard output and keep them in files. Every line is looked for afterwards, and
the agent's peak memory is measured. The goal: no line lost, at most 1.1 times torchrun's time, under 100 MB.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from pairs import run_pairs

BIN = Path(sys.executable).parent
SCRIPT = """
import os, sys
rank, lines = int(os.environ["RANK"]), int(sys.argv[1])
for number in range(lines):
    print(f"rank {rank} line {number:09d} " + "x" * 72)
"""
LINE_BYTES = 100


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    megabytes = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    lines = megabytes * 1_000_000 // LINE_BYTES // 2
    with tempfile.TemporaryDirectory() as folder:
        cwd = Path(folder)
        (cwd / "talk.py").write_text(SCRIPT)
        ours = [str(BIN / "runctl-launch"), "trainer=ddp", "trainer.nproc_per_node=2", "run.id=talk",
                "--", "talk.py", str(lines)]  # fmt: skip
        torchrun = [str(BIN / "torchrun"), "--standalone", "--nproc-per-node=2", "--log-dir", "logs", "--tee", "3",
                    "talk.py", str(lines)]  # fmt: skip
        peak = lost_lines(ours, cwd, lines)
        print(f"{megabytes} MB from 2 ranks: no line of {2 * lines} lost; the agent's peak memory {peak / 1e6:.0f} MB")
        clean = ["sh", "-c", 'rm -rf runs logs; exec "$@"', "sh"]
        pairs = run_pairs([*clean, *ours], [*clean, *torchrun], count=count, cwd=cwd)
        print(f"{'':<24} {'runctl':>10} {'torchrun':>10} {'ratio':>7}")
        print(pairs.row("--tee 3"))


def lost_lines(command: list[str], cwd: Path, lines: int) -> int:
    """Run once and look for every line, on standard output and in the log files.

    Returns:
        The agent's peak memory in bytes (resident set).

    Raises:
        SystemExit: if a line is missing, torn or out of order.
    """
    peak = 0
    done = threading.Event()
    with (cwd / "stdout").open("wb") as shown:
        process = subprocess.Popen(command, cwd=cwd, stdout=shown, stderr=subprocess.DEVNULL)

        def measure() -> None:
            nonlocal peak
            while not done.is_set():
                for child in psutil.Process(process.pid).children():
                    peak = max(peak, child.memory_info().rss)
                time.sleep(0.05)

        watcher = threading.Thread(target=measure, daemon=True)
        watcher.start()
        code = process.wait()
        done.set()
    if code != 0:
        sys.exit(f"the launch failed with code {code}")
    tail = b"x" * 72
    shown_lines = (cwd / "stdout").read_bytes().splitlines()
    for rank in (0, 1):
        wanted = [b"rank %d line %09d %s" % (rank, number, tail) for number in range(lines)]
        prefix = b"[rank1] " if rank else b""
        kept = (cwd / f"runs/talk/logs/a1/n0/r{rank}.log").read_bytes().splitlines()
        mine = [line.removeprefix(prefix) for line in shown_lines if line.startswith(prefix + b"rank %d " % rank)]
        if kept != wanted or mine != wanted:
            sys.exit(f"rank {rank}: {len(wanted)} lines printed, {len(kept)} in the log, {len(mine)} shown")
    return peak


if __name__ == "__main__":
    main()
