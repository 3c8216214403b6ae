"""How soon the next thing begins on a rented host that has stayed: the next job of a sweep, and the next launch.

    python benchmarks/warm.py [JOBS]

On the loopback clouds, whose hosts are up at once: what is counted is all that is ours. A sweep of short jobs on one
host, from the end of each to the first line of the next; then launches one after the other with `platform.keep_warm`,
from the command to the training's first line. The goal: 10 s. The first launch, which rents, stands beside them; a real
host takes minutes more.
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
from runctl.drill.runpod.cloud import RunpodCloud

BUCKET = "warm"
LAUNCH = str(Path(sys.executable).with_name("runctl-launch"))
ON_S3 = f"run.root=s3://{BUCKET}/runs"
RUNPOD = ("+platform=runpod", "platform.gpu_type=RTX A5000", "trainer=single")
KEYS = ("secrets.AWS_ACCESS_KEY_ID=runpod:key_id", "secrets.AWS_SECRET_ACCESS_KEY=runpod:key")
WAYS = {
    "AWS": ("+platform=aws", "platform.instance_type=t3.medium", ON_S3),
    "RunPod, SSH": RUNPOD,
    "RunPod, start command": (*RUNPOD, ON_S3, *KEYS, "platform.transport=start_command"),
}
LAUNCHES = 4


def main() -> None:
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    print(
        f"{'seconds, median (least to most)':<34} {'the next job':>22} {'the next launch':>22} {'one that rents':>15}"
    )
    for way, words in WAYS.items():
        with tempfile.TemporaryDirectory(prefix="runctl-warm-") as made, Cloud() as aws, RunpodCloud() as pods:
            folder = Path(made)
            (folder / "train.py").write_text("import time\nprint('step=1 begun', time.time(), flush=True)\n")
            aws.make_bucket(BUCKET)
            env = pods.environment(aws.environment({**os.environ, "XDG_CONFIG_HOME": made, "XDG_STATE_HOME": made}))
            pods.set_secret("key_id", env["AWS_ACCESS_KEY_ID"])
            pods.set_secret("key", env["AWS_SECRET_ACCESS_KEY"])
            next_jobs = row(next_job(folder, env, words, jobs))
            rents_s, *next_s = [launch(folder, env, words, number) for number in range(LAUNCHES)]
            print(f"{way:<34} {next_jobs:>22} {row(next_s):>22} {rents_s:>15.1f}", flush=True)


def row(times_s: list[float]) -> str:
    return f"{statistics.median(times_s):.1f} ({min(times_s):.1f} to {max(times_s):.1f})"


def next_job(folder: Path, env: dict[str, str], words: tuple[str, ...], jobs: int) -> list[float]:
    """From the end of each job to the first line of the next (seconds)."""
    asked = [LAUNCH, *words, "-m", "script=train.py", f"args.x=range({jobs})", "sweep.hosts=1", "output=json"]
    done = subprocess.run(asked, cwd=folder, env=env, check=True, capture_output=True, text=True)
    spans = sorted(span(folder, env, one["run_id"]) for one in json.loads(done.stdout.splitlines()[-1])["jobs"])
    return [begun - ended for (_, ended), (begun, _) in itertools.pairwise(spans)]


def span(folder: Path, env: dict[str, str], run_id: str) -> tuple[float, float]:
    """When a job's training printed its first line, and when its attempt had ended (seconds since the epoch)."""

    def told(*words: str) -> str:
        asked = [LAUNCH.removesuffix("-launch"), *words]
        return subprocess.run(asked, cwd=folder, env=env, check=True, capture_output=True, text=True).stdout

    begun = next(float(line.split()[-1]) for line in told("logs", run_id).splitlines() if "begun" in line)
    return begun, json.loads(told("show", run_id, "--json"))["attempts"][-1]["ended_at"]


def launch(folder: Path, env: dict[str, str], words: tuple[str, ...], number: int) -> float:
    """One whole launch; how long after the command its training printed its first line (seconds)."""
    began = time.time()
    done = subprocess.run(
        [LAUNCH, *words, "script=train.py", "platform.keep_warm=5m", f"run.id=launch-{number}"],
        cwd=folder, env=env, stdin=subprocess.DEVNULL, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return next(float(line.split()[-1]) for line in done.stdout.splitlines() if "begun" in line) - began


if __name__ == "__main__":
    main()
