"""What a launch costs over plain torchrun, and how fast the launcher answers.

    python benchmarks/launch.py [PAIRS]

The first row is the wall time of the whole command, `runctl-launch trainer=ddp` over `torchrun --standalone`, for
the same one-line script on two ranks. The goal is a median ratio of 1.10 at most.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from pairs import run_pairs, timed

BIN = Path(sys.executable).parent
GOALS_S = {"--help": 0.5, "dry_run=true": 0.8}


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    with tempfile.TemporaryDirectory() as folder:
        cwd = Path(folder)
        (cwd / "one.py").write_text("print('hello')\n")
        launch = str(BIN / "runctl-launch")
        print(f"{'':<24} {'runctl':>10} {'torchrun':>10} {'ratio':>7}")
        pairs = run_pairs(
            [launch, "trainer=ddp", "trainer.nproc_per_node=2", "script=one.py"],
            [str(BIN / "torchrun"), "--standalone", "--nproc-per-node=2", "one.py"],
            count=count,
            cwd=cwd,
        )
        print(pairs.row("2 ranks, one line"))
        for words, goal_s in GOALS_S.items():
            command = [launch, words] if words == "--help" else [launch, words, "script=one.py"]
            times = [timed(command, cwd) for _ in range(count)]
            print(f"{words:<24} {statistics.median(times):8.3f} s  (goal {goal_s} s, slowest {max(times):.3f} s)")
        bare = [timed([sys.executable, "-c", "pass"], cwd) for _ in range(count)]
        print(f"{'python -c pass':<24} {statistics.median(bare):8.3f} s")


if __name__ == "__main__":
    main()
