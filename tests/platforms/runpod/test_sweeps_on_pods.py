"""Pods that stay for the next job of a sweep, or for the next launch."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pod_launches import Home
from waiting import wait_until

from runctl.drill.runpod.cloud import RunpodCloud

#: The second job fails.
TRAIN = "import sys\nprint('step=1 loss=' + sys.argv[1][-1])\nsys.exit(sys.argv[1][-1] == '2')\n"
SWEEP = ("-m", "args.x=1,2,3", "sweep.metric=loss", "sweep.hosts=1")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with RunpodCloud() as cloud:
        made = Home(cloud, tmp_path)
        (made.project / "train.py").write_text(TRAIN)
        yield made
        made.close()


def rows(home: Home) -> list[dict[str, Any]]:
    return json.loads((home.project / "runs" / "sweeps" / "train" / "sweep.json").read_text())["jobs"]


@pytest.mark.slow
def test_a_pod_takes_one_job_after_the_other_and_what_they_wrote_comes_home(home: Home) -> None:
    launch = home.start(*SWEEP)
    assert launch.wait(120) == 1, home.said(launch)
    assert [row["state"] for row in rows(home)] == ["succeeded", "failed", "succeeded"], home.said(launch)
    assert [row["metrics"]["loss"] for row in rows(home)] == [1.0, 2.0, 3.0]
    [pod] = home.cloud.pods()
    assert pod["state"] == "terminated"
    assert home.said(launch).count(f"{pod['id']} is warm") == 2
    attempts = [json.loads(Path(row["run_dir"], "attempts", "1.json").read_text()) for row in rows(home)]
    for before, after in itertools.pairwise(attempts):
        assert after["billed_from"] == before["ended_at"], "whoever comes next pays for the wait"
    assert not list((home.folder / "runctl" / "runpod" / "keys").iterdir()), "nobody needs its key any more"


@pytest.mark.soak
def test_a_launch_begins_on_the_pod_that_the_one_before_kept_warm(home: Home) -> None:
    for number in range(2):
        launch = home.start("args.x=1", "platform.keep_warm=2m", f"run.id=launch-{number}")
        assert launch.wait(60) == 0, home.said(launch)
    [pod] = home.cloud.pods()
    assert pod["state"] == "running"
    assert f"{pod['id']} is warm" in home.said(launch)
    assert f"{pod['id']} waits for the next launch until" in home.said(launch)
    launch = home.start("args.x=1", "run.id=launch-2", "platform.container_disk_gb=60")
    assert launch.wait(60) == 0, home.said(launch)
    warm, other = home.cloud.pods()
    assert (warm["state"], other["state"]) == ("running", "terminated"), "it waits for a launch that it serves"
    launch = home.start("args.x=1", "run.id=launch-3")
    assert launch.wait(60) == 0, home.said(launch)
    assert f"{pod['id']} is warm" in home.said(launch)
    assert not home.running("launch"), "nothing was said of keeping it"


@pytest.mark.soak  # a minute is the least that a host waits
def test_a_pod_whose_launcher_is_killed_between_two_jobs_ends_itself(home: Home) -> None:
    launch = home.start("args.x=1", "platform.keep_warm=1m", "platform.collect=5s", "run.id=one")
    wait_until(lambda: "the training runs on" in home.said(launch) or launch.poll() is not None, 60, "it trains")
    launch.kill()
    began = time.monotonic()
    wait_until(lambda: not home.running("one"), 120, "the pod has ended")
    assert time.monotonic() - began > 30, "it has waited"


@pytest.mark.soak
def test_a_pod_that_nobody_logs_in_to_fetches_one_job_after_the_other(home: Home, s3: Any) -> None:
    home.env = s3.env
    for name, key in (("my_key_id", "AWS_ACCESS_KEY_ID"), ("my_key", "AWS_SECRET_ACCESS_KEY")):
        home.cloud.set_secret(name, s3.env[key])
    root = f"s3://{s3.bucket()}/runs"
    launch = home.start(
        *SWEEP, f"run.root={root}", "platform.transport=start_command",
        "secrets.AWS_ACCESS_KEY_ID=runpod:my_key_id", "secrets.AWS_SECRET_ACCESS_KEY=runpod:my_key",
    )  # fmt: skip
    assert launch.wait(120) == 1, home.said(launch)
    [pod] = home.cloud.pods()
    assert pod["state"] == "terminated"
    assert home.said(launch).count(f"{pod['id']} is warm") == 2
    states = re.findall(r"^ x=(\d) +(\w+)", home.said(launch), re.M)
    assert states == [("1", "succeeded"), ("2", "failed"), ("3", "succeeded")]
