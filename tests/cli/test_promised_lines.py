"""The lines of `runctl` that were promised before there was one, as they were written then, in accounts on loopback.

`<path>` stood there for a file, `<pod-id>` for what `create` printed; everything else is verbatim.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runctl.drill.cloud import Cloud
from runctl.drill.runpod.cloud import RunpodCloud

BIN = Path(sys.executable).parent
TIMEOUT_S = 280
AFTER_A_CHECKPOINT = "runctl s3 upload ./checkpoints/ s3://bucket/checkpoints/ --recursive"
CHECKPOINTS = """
runctl checkpoint save <path>
runctl s3 upload <path> s3://bucket/checkpoints/
"""
AUTOMATIC = "runctl local script.py --auto-upload-s3"
PIPELINE = """
runctl s3 download s3://bucket/datasets/ ./data/ --recursive
runctl local preprocess.py
runctl local train.py
runctl s3 upload ./output/ s3://bucket/output/ --recursive
"""
ON_AWS = r"""
# Create instance
INSTANCE_ID=$(runctl aws create --spot)

# Train with automatic data staging
runctl aws train $INSTANCE_ID train.py \
    --data-s3 s3://bucket/data/ \
    --output-s3 s3://bucket/output/

# (runctl handles S3 download/upload automatically)
"""
ON_RUNPOD = """
# Create pod
POD_ID=$(runctl runpod create)

# Train (auto-checkpoints every epoch)
runctl runpod train $POD_ID train_ephemeral.py

# Monitor
runctl runpod monitor $POD_ID --follow
"""
MONITORED = "runctl runpod monitor <pod-id> --follow"
LOGGED = "runctl monitor --log training.log --follow"
MULTI_GPU = """
# runctl detects DDP and only rank 0 saves
runctl local train_multi_gpu.py --ddp

# Auto-uploads checkpoints from rank 0
"""
PREPROCESS = """
import pathlib
text = pathlib.Path("data/a.txt").read_text()
pathlib.Path("data/b.txt").write_text(text.upper())
"""
TRAIN = """
import pathlib
data = pathlib.Path("data")
pathlib.Path("output").mkdir(exist_ok=True)
seen = " ".join(sorted(path.name + "=" + path.read_text() for path in data.iterdir()))
pathlib.Path("output/result.txt").write_text(seen)
print("trained on", seen, flush=True)
"""
ATTACHED = """
import os, torch, runctl
model = torch.nn.Linear(4, 4)
if int(os.environ.get("WORLD_SIZE", 1)) > 1:
    torch.distributed.init_process_group("gloo")
    model = torch.nn.parallel.DistributedDataParallel(model)
ck = runctl.attach(model=model)
for step in ck.steps(4):
    ck.log(loss=1.0 / (step + 1))
print("rank", os.environ.get("RANK"), "ended at", ck.step, flush=True)
"""


class Shell:
    """A user's shell in a project."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.project = folder / "proj"
        for name in ("checkpoints", "output", "state", "config"):
            (self.project / name if name in ("checkpoints", "output") else folder / name).mkdir(parents=True)
        for name, text in (
            ("script.py", ATTACHED), ("preprocess.py", PREPROCESS), ("train.py", TRAIN),
            ("train_multi_gpu.py", ATTACHED),
            ("train_ephemeral.py", ATTACHED), (".gitignore", "data\noutput\n"),
        ):  # fmt: skip
            (self.project / name).write_text(text)
        (self.project / "checkpoints" / "epoch-3.pt").write_bytes(b"weights" * 1000)
        own = {"HOME": str(folder), "XDG_STATE_HOME": str(folder / "state"), "XDG_CONFIG_HOME": str(folder / "config")}
        self.env = {**env, **own, "PATH": f"{BIN}:{env['PATH']}", "OMP_NUM_THREADS": "1"}

    def run(self, lines: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", lines], cwd=self.project, env=self.env, capture_output=True, text=True,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{lines}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with Cloud() as cloud:
        cloud.make_bucket("bucket")
        yield cloud


@pytest.fixture
def shell(cloud: Cloud, tmp_path: Path) -> Shell:
    shell = Shell(tmp_path, cloud.environment(dict(os.environ)))
    shell.run("runctl aws setup")
    return shell


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S)
def test_an_instance_is_made_and_trained_on_with_staging(cloud: Cloud, shell: Shell) -> None:
    (shell.project / "a.txt").write_text("from s3")
    shell.run("runctl s3 upload a.txt s3://bucket/data/")
    said = shell.run(f"{ON_AWS}\necho id=$INSTANCE_ID\nrunctl aws list --json\nrunctl aws terminate $INSTANCE_ID")
    assert "trained on a.txt=from s3" in said
    assert cloud.read("s3://bucket/output/result.txt") == b"a.txt=from s3"
    [one] = cloud.instances()
    assert f"id={one['id']}\n" in said and one["market"] == "spot"  # `create` printed the id and nothing else
    assert f'"id": "{one["id"]}"' in said and one["state"] == "terminated"  # it stayed until it was ended


@pytest.mark.soak
@pytest.mark.timeout(TIMEOUT_S)
def test_a_data_pipeline(cloud: Cloud, shell: Shell) -> None:
    (shell.project / "a.txt").write_text("raw")
    shell.run("runctl s3 upload a.txt s3://bucket/datasets/")
    shell.run(PIPELINE)
    assert cloud.read("s3://bucket/output/result.txt") == b"a.txt=raw b.txt=RAW"


@pytest.mark.soak
@pytest.mark.timeout(TIMEOUT_S)
def test_checkpoints_are_kept_and_carried_to_a_bucket(cloud: Cloud, shell: Shell) -> None:
    shell.run(AFTER_A_CHECKPOINT)
    assert cloud.read("s3://bucket/checkpoints/epoch-3.pt") == b"weights" * 1000
    (shell.project / "checkpoints" / "other.bin").write_bytes(b"more")
    shell.run(CHECKPOINTS.replace("<path>", "./checkpoints/other.bin"))
    assert cloud.read("s3://bucket/checkpoints/other.bin") == b"more"
    shell.run("runctl checkpoint verify ./checkpoints/other.bin")
    shell.run(AUTOMATIC)
    [run] = [path.name for path in (shell.project / "runs").iterdir() if not path.name.startswith(".")]
    root = "s3://runctl-123456789012-us-east-1/runs"
    assert cloud.read(f"{root}/{run}/checkpoints/step-000004/manifest.json") is not None


@pytest.mark.timeout(TIMEOUT_S)
def test_a_log_is_monitored(tmp_path: Path) -> None:
    shell = Shell(tmp_path, dict(os.environ))
    log = shell.project / "training.log"
    log.write_text("step=1 loss=0.5\n")
    watch = subprocess.Popen(["bash", "-c", f"exec {LOGGED}"], cwd=shell.project, env=shell.env, stdout=subprocess.PIPE)
    try:
        assert watch.stdout is not None and b"step=1 loss=0.5" in watch.stdout.readline()
        with log.open("a") as more:
            more.write("step=2 loss=0.25\nERROR: out of memory\n")
        said = b""
        while b"out of memory" not in said:
            line = watch.stdout.readline()
            assert line, said
            said += line
    finally:
        watch.kill()
        watch.wait()


@pytest.mark.soak
@pytest.mark.timeout(TIMEOUT_S)
def test_under_ddp_rank_0_alone_saves(shell: Shell) -> None:
    out = shell.run(MULTI_GPU)
    assert "ended at 4" in out
    found = [path for path in (shell.project / "runs").rglob("data.pt") if path.parent.name == "step-000004"]
    assert len(found) == 1


@pytest.mark.soak
@pytest.mark.timeout(TIMEOUT_S)
def test_a_pod_is_made_trained_on_and_monitored(tmp_path: Path) -> None:
    with RunpodCloud() as pods:
        shell = Shell(tmp_path, pods.environment(dict(os.environ)))
        said = shell.run(f"{ON_RUNPOD}\necho id=$POD_ID")
        [one] = pods.pods()
        assert f"id={one['id']}\n" in said and one["state"] == "running"
        assert said.count("ended at 4") == 2  # once as it happened, once again for who monitors
        assert "ended at 4" in shell.run(MONITORED.replace("<pod-id>", one["id"]))
        assert list((shell.project / "runs").glob("*/checkpoints/step-000004/manifest.json"))
        shell.run(f"runctl runpod terminate {one['id']}")
        assert [one["state"] for one in pods.pods()] != ["running"]
