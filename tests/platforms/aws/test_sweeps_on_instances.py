"""Sweeps on the loopback cloud: a host for each job, several at once, and what becomes of jobs whose host is lost."""

from __future__ import annotations

import itertools
import json
import time

import pytest
from whole import BUCKET, Account

ROOT = f"run.root=s3://{BUCKET}/runs"
#: The second job is long, until its host is lost; the third fails.
TRAIN = """
import os, sys, time
x = sys.argv[1][-1]
print(f"step=1 loss={x}", flush=True)
if x == "2" and os.environ["RUNCTL_ATTEMPT"] == "1":
    time.sleep(120)
sys.exit(7 if x == "3" else 0)
"""
WORDS = ("-m", "script=train.py", ROOT, "args.x=1,2,3", "sweep.metric=loss", "sweep.max_parallel=2")
TIMEOUT_S = 150


def rows(account: Account) -> list[dict]:
    data = account.cloud.read(f"s3://{BUCKET}/runs/sweeps/train/sweep.json")
    return json.loads(data)["jobs"] if data is not None else []


def instances_of(account: Account, run_id: str) -> list[dict]:
    return [one for one in account.instances(run_id) if one["state"] == "running"]


@pytest.mark.timeout(TIMEOUT_S + 60)
def test_a_job_whose_host_is_lost_goes_on_elsewhere_and_a_failing_one_ends_no_other(account: Account) -> None:
    (account.project / "train.py").write_text(TRAIN)
    launch = account.start(*WORDS)
    deadline = time.monotonic() + TIMEOUT_S
    lost = None
    while launch.poll() is None:
        assert time.monotonic() < deadline, account.said(launch)
        second = next((row for row in rows(account) if row["overrides"] == {"args.x": "2"}), None)
        if lost is None and second is not None:
            beat = account.cloud.read(f"{second['run_dir']}/heartbeat.json")
            running = instances_of(account, second["run_id"])
            if beat is not None and running:
                lost = running[0]["id"]
                account.cloud.kill(lost)
        time.sleep(0.3)
    out, err = account.said(launch)
    assert launch.returncode == 7, err
    assert lost is not None, err
    jobs = {row["overrides"]["args.x"]: row for row in rows(account)}
    assert {x: job["state"] for x, job in jobs.items()} == {"1": "succeeded", "2": "succeeded", "3": "failed"}
    assert len(account.instances(jobs["2"]["run_id"])) == 2
    assert [job["metrics"]["loss"] for job in jobs.values()] == [1.0, 2.0, 3.0]
    assert all(job["cost_usd"] is not None for job in jobs.values())
    assert out == "", "what they print is in their run directories"
    account.check_that_nothing_runs(10)


@pytest.mark.timeout(TIMEOUT_S + 60)
def test_warm_hosts_take_one_job_after_the_other(account: Account) -> None:
    (account.project / "train.py").write_text(
        "import sys\nprint('step=1 loss=' + sys.argv[1][-1])\nsys.exit(sys.argv[1][-1] == '2')\n"
    )
    words = ("-m", "script=train.py", ROOT, "args.x=1,2,3", "sweep.metric=loss", "sweep.hosts=1")
    launch = account.start(*words)
    launch.wait(TIMEOUT_S)
    _, err = account.said(launch)
    assert launch.returncode == 1, err
    assert [row["state"] for row in rows(account)] == ["succeeded", "failed", "succeeded"], err
    assert [row["metrics"]["loss"] for row in rows(account)] == [1.0, 2.0, 3.0]
    [host] = account.cloud.instances()
    assert err.count(f"{host['id']} is warm") == 2
    attempts = [json.loads(account.cloud.read(f"{row['run_dir']}/attempts/1.json")) for row in rows(account)]
    for before, after in itertools.pairwise(attempts):
        print("gap", after["started_at"] - before["ended_at"])
        assert after["billed_from"] == before["ended_at"], "whoever comes next pays for the wait"
    account.check_that_nothing_runs(10)
