"""What a launcher costs while it watches a run on AWS: memory, calls of EC2, SSM and S3 a minute; how late it shows.

    python benchmarks/watching.py [MINUTES]

A training that prints a line every second, in the drill; the calls are the launcher's own, told from its host's by the
key that signed them. The goals: 150 MB, 12 calls of EC2 and SSM and 60 of S3 a minute, and 95 of 100 lines on the
terminal within 5 s of when they were printed.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import psutil

from runctl.drill.cloud import Cloud

BUCKET = "watching"
TRAINING = "import time\nfor _ in range({seconds}):\n    print('printed', time.time(), flush=True)\n    time.sleep(1)\n"
RUNS = "the training runs on"


def main() -> None:
    seconds = int(60 * float(sys.argv[1])) if len(sys.argv) > 1 else 120
    with tempfile.TemporaryDirectory(prefix="runctl-watching-") as made, Cloud() as cloud:
        project, said = Path(made) / "project", Path(made) / "said"
        project.mkdir()
        (project / "train.py").write_text(TRAINING.format(seconds=seconds))
        cloud.make_bucket(BUCKET)
        with said.open("wb") as file:
            launch = subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("runctl-launch")), "+platform=aws", "trainer=single",
                    "platform.instance_type=t3.medium", "script=train.py", f"run.root=s3://{BUCKET}/runs",
                ],
                cwd=project, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file, text=True,
                env=cloud.environment(os.environ),
            )  # fmt: skip
        late_s: list[float] = []
        assert launch.stdout is not None
        reader = threading.Thread(target=note, args=(launch.stdout, late_s))
        reader.start()
        process, peak, began = psutil.Process(launch.pid), 0, None
        while launch.poll() is None:
            peak = max(peak, process.memory_info().rss)
            if began is None and RUNS in said.read_text():
                began = time.time()
            time.sleep(0.2)
        ended = time.time() - 10.0  # what follows an end is no watching
        if launch.returncode or began is None:
            sys.exit(f"the launch failed:\n{said.read_text()}")
        own = cloud.environment({})["AWS_ACCESS_KEY_ID"]
        calls = [one for one in cloud.calls() if one["key"] == own and began < one["at"] < ended]
        reader.join()
    minutes = (ended - began) / 60
    print(f"watched for {minutes:.1f} minutes; memory at most {peak / 1e6:.0f} MB")
    for (service, action), count in sorted(Counter((one["service"], one["action"]) for one in calls).items()):
        print(f"  {service:<4} {action:<28} {count / minutes:5.1f} a minute")
    s3 = sum(one["service"] == "s3" for one in calls)
    print(f"EC2 and SSM {(len(calls) - s3) / minutes:.1f}, S3 {s3 / minutes:.1f} calls a minute")
    median_s, slow_s = statistics.median(late_s), statistics.quantiles(late_s, n=100)[94]
    print(
        f"{len(late_s)} lines shown, {median_s:.1f} s after they were printed in the median, 95 % within {slow_s:.1f} s"
    )


def note(lines: Iterable[str], late_s: list[float]) -> None:
    """Note how late each line arrives."""
    for line in lines:
        late_s.append(time.time() - float(line.split()[1]))


if __name__ == "__main__":
    main()
