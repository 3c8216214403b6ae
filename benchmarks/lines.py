"""How late a line of a training on a RunPod pod is shown in the launcher's terminal, by each way in.

    python benchmarks/lines.py [SECONDS]

A training that prints a line every half second, on the loopback RunPod: over SSH without object storage, where the
run directory lies on the pod and is brought here round after round; over SSH with S3; and with S3 and no SSH at all, by
a start command. The goal: 95 of 100 lines within 5 s of when they were printed.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runctl.drill.cloud import Cloud
from runctl.drill.runpod.cloud import RunpodCloud

BUCKET = "lines"
TRAINING = "import time\nfor _ in range({times}):\n    print('printed', time.time(), flush=True)\n    time.sleep(0.5)\n"
SECRETS = ("secrets.AWS_ACCESS_KEY_ID=runpod:key_id", "secrets.AWS_SECRET_ACCESS_KEY=runpod:key")
ON_S3 = f"run.root=s3://{BUCKET}/runs"
WAYS = {
    "SSH, no object storage": (),
    "SSH, S3": (ON_S3, *SECRETS),
    "start command, S3": (ON_S3, *SECRETS, "platform.transport=start_command"),
}


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with tempfile.TemporaryDirectory(prefix="runctl-lines-") as made, Cloud() as aws, RunpodCloud() as pods:
        aws.make_bucket(BUCKET)
        env = pods.environment(aws.environment(os.environ))
        pods.set_secret("key_id", env["AWS_ACCESS_KEY_ID"])
        pods.set_secret("key", env["AWS_SECRET_ACCESS_KEY"])
        env |= {"XDG_STATE_HOME": made, "XDG_CONFIG_HOME": made}
        (Path(made) / "train.py").write_text(TRAINING.format(times=int(2 * seconds)))
        for way, words in WAYS.items():
            late_s = launch(Path(made), env, words)
            median_s, slow_s = statistics.median(late_s), statistics.quantiles(late_s, n=100)[94]
            print(
                f"{way:<24} {len(late_s)} lines, {median_s:.1f} s late in the median, 95 % within {slow_s:.1f} s, "
                f"the slowest {max(late_s):.1f} s",
                flush=True,
            )


def launch(folder: Path, env: dict[str, str], words: tuple[str, ...]) -> list[float]:
    """A whole launch; how late each of its lines was shown (seconds)."""
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            [
                str(Path(sys.executable).with_name("runctl-launch")), "+platform=runpod", "trainer=single",
                "platform.gpu_type=RTX A5000", "script=train.py", *words,
            ],
            cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        late_s = [time.time() - float(line.split()[1]) for line in process.stdout if line.startswith("printed")]
    if process.wait() != 0:
        sys.exit(f"the launch failed:\n{(folder / 'said').read_text()}")
    return late_s


if __name__ == "__main__":
    main()
