"""How soon the next thing begins on a rented host that has stayed: the next job of a sweep, and the next launch.

    python benchmarks/warm.py [JOBS]

On the loopback cloud, whose instances are up at once: what is counted here is all that is ours. A sweep of short jobs
on one host, from the end of each to the first line of the next; then launches one after the other with
`platform.keep_warm`, from the command to the training's first line, and to its place in the launcher's own output.
The goal: 10 s. The first launch, which rents, stands beside them; a real instance takes minutes more.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runctl.drill.cloud import Cloud

BUCKET = "warm"
LAUNCH = str(Path(sys.executable).with_name("runctl-launch"))
WORDS = ("+platform=aws", "platform.instance_type=t3.medium", f"run.root=s3://{BUCKET}/runs", "script=train.py")
LAUNCHES = 4


def main() -> None:
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    with tempfile.TemporaryDirectory(prefix="runctl-warm-") as made, Cloud() as cloud:
        folder = Path(made)
        (folder / "project").mkdir()
        (folder / "project" / "train.py").write_text("import time\nprint('step=1 begun', time.time(), flush=True)\n")
        cloud.make_bucket(BUCKET)
        env = cloud.environment({**os.environ, "XDG_CONFIG_HOME": made, "XDG_STATE_HOME": made})
        print(row("the next job of a sweep", next_jobs(folder, env, cloud, jobs)), flush=True)
        first_s, *next_s = [launch(folder, env, number) for number in range(LAUNCHES)]
        print(f"a launch that rents: begun after {first_s[0]:.1f} s, seen after {first_s[1]:.1f} s")
        print(row("the next launch, begun", [begun_s for begun_s, _ in next_s]))
        print(row("the next launch, seen here", [seen_s for _, seen_s in next_s]))


def row(name: str, times_s: list[float]) -> str:
    """A line of the table: median and extremes (seconds)."""
    median_s = statistics.median(times_s)
    return f"{name:<28} {median_s:6.1f} s in the median of {len(times_s)}, {min(times_s):.1f} to {max(times_s):.1f} s"


def next_jobs(folder: Path, env: dict[str, str], cloud: Cloud, jobs: int) -> list[float]:
    """From the end of each job to the first line of the next (seconds)."""
    words = ("-m", f"args.x=range({jobs})", "sweep.hosts=1")
    subprocess.run([LAUNCH, *WORDS, *words], cwd=folder / "project", env=env, check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    rows = json.loads(cloud.read(f"s3://{BUCKET}/runs/sweeps/train/sweep.json") or b"")["jobs"]
    spans = sorted(span(folder, env, cloud, one["run_dir"]) for one in rows)
    return [begun - ended for (_, ended), (begun, _) in itertools.pairwise(spans)]


def span(folder: Path, env: dict[str, str], cloud: Cloud, url: str) -> tuple[float, float]:
    """When a job's training printed its first line, and when its attempt had ended (seconds since the epoch)."""
    words = [LAUNCH.removesuffix("-launch"), "logs", url]
    lines = subprocess.run(words, cwd=folder, env=env, check=True, capture_output=True, text=True).stdout.splitlines()
    begun = next(float(line.split()[-1]) for line in lines if "begun" in line)
    return begun, json.loads(cloud.read(f"{url}/attempts/1.json") or b"")["ended_at"]


def launch(folder: Path, env: dict[str, str], number: int) -> tuple[float, float]:
    """One whole launch: after how long its training began, and its first line was shown (seconds)."""
    words = ("platform.keep_warm=5m", f"run.id=launch-{number}")
    began = time.time()
    process = subprocess.Popen(
        [LAUNCH, *WORDS, *words], cwd=folder / "project", env=env,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    begun, seen = next((float(line.split()[-1]), time.time()) for line in process.stdout if "begun" in line)
    if process.wait() != 0:
        sys.exit("the launch failed")
    return begun - began, seen - began


if __name__ == "__main__":
    main()
