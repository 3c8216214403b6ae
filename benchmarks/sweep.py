"""What a sweep costs over its jobs: many short jobs at once, and a thousand that are only planned.

    python benchmarks/sweep.py [JOBS] [AT_ONCE] [PAIRS]

The first row is the wall time of 64 jobs of half a second, 8 at a time, under our launcher and under Hydra's joblib
launcher: the same jobs of the same command otherwise. The goal is that the overhead per job is no larger. The second
row has another peer, the least that a sweep with processes of its own can be: a Hydra application whose job under
joblib is `subprocess.run([python, script])`, without logs, records, stops or anything to go on from.

Then a dry run of a thousand jobs: 60 s and 300 MB at most.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pairs import Pairs, run_pairs

LAUNCH = str(Path(sys.executable).parent / "runctl-launch")
SECONDS = 0.5
PLAIN = """
import subprocess, sys
import hydra

@hydra.main(version_base="1.3", config_path=None, config_name=None)
def main(cfg):
    subprocess.run([sys.executable, "half.py"], check=True, cwd=hydra.utils.get_original_cwd())

main()
"""


def main() -> None:
    jobs, at_once, count = (int(word) for word in (*sys.argv[1:4], *("64", "8", "3")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder:
        cwd = Path(folder)
        (cwd / "half.py").write_text(f"import time\ntime.sleep({SECONDS})\n")
        (cwd / "plain.py").write_text(PLAIN)
        values = f"args.x=range({jobs})"
        sweep = [LAUNCH, "-m", "script=half.py", values, "sweep.fresh=true"]
        ours = [*sweep, f"sweep.max_parallel={at_once}"]
        joblib = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={at_once}"]
        print(f"{jobs} jobs of {SECONDS} s, {at_once} at once; the overhead per job is what is not sleep")
        print(f"{'':<24} {'runctl':>10} {'peer':>10} {'ratio':>7}")
        report("runctl-launch, joblib", run_pairs(ours, [*sweep, *joblib], count=count, cwd=cwd), jobs, at_once)
        plain = [sys.executable, "plain.py", "-m", f"+x=range({jobs})", "hydra.sweep.dir=multirun", *joblib]
        report("plain Hydra, joblib", run_pairs(ours, plain, count=count, cwd=cwd), jobs, at_once)
        began = time.perf_counter()
        words = [LAUNCH, "-m", "script=half.py", "args.x=range(1000)", "dry_run=true"]
        subprocess.run(words, cwd=cwd, check=True, stdout=subprocess.DEVNULL)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"a dry run of 1,000 jobs  {time.perf_counter() - began:8.1f} s (goal 60 s); the most memory that any "
              f"command above took: {used.ru_maxrss / 1024:.0f} MB (goal 300 MB)")  # fmt: skip


def report(name: str, pairs: Pairs, jobs: int, at_once: int) -> None:
    """The row, and the overhead per job of both."""
    print(pairs.row(name))
    ideal_s = jobs * SECONDS / at_once
    ours, peer = ((statistics.median(times) - ideal_s) / jobs * 1000 for times in (pairs.ours, pairs.peer))
    print(f"{'':<24} {ours:7.0f} ms {peer:7.0f} ms of overhead per job", flush=True)


if __name__ == "__main__":
    main()
