"""A real account: `RUNCTL_CLOUD_ROOT=s3://bucket/prefix make test-cloud` rents one small instance for some minutes.

Everything else of AWS is tested on the loopback cloud; this tells where that differs from AWS itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = os.environ.get("RUNCTL_CLOUD_ROOT", "")
LAUNCH = Path(sys.executable).with_name("runctl-launch")
TIMEOUT_S = 1800

pytestmark = [
    pytest.mark.cloud,
    pytest.mark.timeout(TIMEOUT_S + 60),
    pytest.mark.skipif(
        not ROOT.startswith("s3://"),
        reason="no account: RUNCTL_CLOUD_ROOT=s3://bucket/prefix and credentials make this rent a t3.medium",
    ),
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("import platform\nprint('trained on', platform.node())\n")
    return tmp_path


@pytest.fixture
def run_id() -> Iterator[str]:
    """A run of this test's own; whatever its launch leaves running is ended."""
    run_id = f"smoke-{uuid.uuid4().hex[:8]}"
    yield run_id
    left = living(run_id)
    if left:
        ec2().terminate_instances(InstanceIds=left)
    assert left == [], "it was left running, and has been ended now"


def ec2() -> Any:
    import boto3

    return boto3.client("ec2")


def living(run_id: str) -> list[str]:
    pages = (
        ec2()
        .get_paginator("describe_instances")
        .paginate(
            Filters=[
                {"Name": "tag:runctl:run", "Values": [run_id]},
                {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
            ]
        )
    )
    return [one["InstanceId"] for page in pages for group in page["Reservations"] for one in group["Instances"]]


def launch(project: Path, run_id: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            str(LAUNCH), "+platform=aws", "trainer=single", "script=train.py", "platform.instance_type=t3.medium",
            f"run.root={ROOT}", f"run.id={run_id}", "limits.max_time=30m", "output=json", *words,
        ],
        cwd=project, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip


def test_a_plan_knows_what_it_costs_and_that_it_may_be_had(project: Path, run_id: str) -> None:
    done = launch(project, run_id, "dry_run=true")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)["plan"]
    # A zone without a price has none of them.
    prices = [one["price_usd_per_hour"] for one in plan["offers"] if one["price_usd_per_hour"] is not None]
    assert prices and min(prices) > 0


def test_a_launch_trains_brings_its_output_back_and_leaves_nothing_running(project: Path, run_id: str) -> None:
    done = launch(project, run_id)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "succeeded"
    assert "trained on" in done.stderr
    assert living(run_id) == []


def test_a_run_that_is_stopped_early_leaves_nothing_running(project: Path, run_id: str) -> None:
    (project / "train.py").write_text("import time\ntime.sleep(3600)\n")
    done = launch(project, run_id, "limits.max_time=6m")
    assert json.loads(done.stdout)["state"] != "succeeded"
    assert living(run_id) == []
