"""Sweeps on the loopback cloud: a host for each job, several at once, and what becomes of jobs whose host is lost."""

from __future__ import annotations

import itertools
import json
import subprocess
import time

import pytest
from whole import BUCKET, LAUNCH, Account

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
TIMEOUT_S = 250


def rows(account: Account) -> list[dict]:
    data = account.cloud.read(f"s3://{BUCKET}/runs/sweeps/train/sweep.json")
    return json.loads(data)["jobs"] if data is not None else []


def instances_of(account: Account, run_id: str) -> list[dict]:
    return [one for one in account.instances(run_id) if one["state"] == "running"]


@pytest.mark.soak
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


@pytest.mark.slow
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
        assert after["billed_from"] == before["ended_at"], "whoever comes next pays for the wait"
    account.check_that_nothing_runs(10)


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S + 60)
def test_a_launch_begins_on_the_host_that_the_one_before_kept_warm(account: Account) -> None:
    (account.project / "train.py").write_text("print('step=1')")
    for number in range(2):
        launch = account.start("script=train.py", ROOT, "platform.keep_warm=2m", f"run.id=launch-{number}")
        launch.wait(TIMEOUT_S / 2)
        _, err = account.said(launch)
        assert launch.returncode == 0, err
    [host] = account.cloud.instances()
    assert f"{host['id']} is warm" in err
    assert f"{host['id']} waits for the next launch until" in err
    assert host["state"] == "running"
    account.cloud.kill(host["id"])
    launch = account.start("script=train.py", ROOT, "run.id=launch-2")
    launch.wait(TIMEOUT_S / 2)
    assert len(account.cloud.instances()) == 2, "one that has gone is not waited for"


@pytest.mark.soak
@pytest.mark.timeout(TIMEOUT_S + 60)
def test_the_hosts_of_a_sweep_wait_for_the_next_launch(account: Account) -> None:
    (account.project / "train.py").write_text("print('step=1')")
    words = ("-m", "script=train.py", ROOT, "args.x=1,2,3", "sweep.hosts=2", "platform.keep_warm=2m")
    launch = account.start(*words)
    launch.wait(TIMEOUT_S)
    _, err = account.said(launch)
    assert launch.returncode == 0, err
    hosts = [one["id"] for one in account.cloud.instances() if one["state"] == "running"]
    assert len(hosts) == 2 and err.count("waits for the next launch until") == 2
    launch = account.start("script=train.py", ROOT, "run.id=next")
    launch.wait(TIMEOUT_S / 2)
    _, err = account.said(launch)
    assert launch.returncode == 0, err
    [taken] = [one for one in hosts if f"{one} is warm" in err]
    states = {one["id"]: one["state"] for one in account.cloud.instances()}
    assert len(states) == 2 and states.pop(taken) != "running", "it was taken, and ended with the launch"
    assert list(states.values()) == ["running"], "the other one waits on"


#: A chain of digests, forty links long, that is saved at each; the seventh breaks off.
CHAIN = """
import argparse, hashlib, json, os, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--x", type=int)
parser.add_argument("--resume")
options = parser.parse_args()
state = json.load(open(options.resume)) if options.resume else {"step": 0, "digest": str(options.x)}
os.makedirs("out", exist_ok=True)
while state["step"] < 40:
    if options.x == 7 and state["step"] == 10:
        sys.exit(5)
    state = {"step": state["step"] + 1, "digest": hashlib.sha256(state["digest"].encode()).hexdigest()}
    with open("out/state.tmp", "w") as file:
        json.dump(state, file)
    os.replace("out/state.tmp", "out/state.json")
    print(f"step={state['step']} digest={int(state['digest'][:12], 16)}", flush=True)
    time.sleep(float(os.environ.get("PACE", "0.2")))
print(f"step={state['step']} digest={int(state['digest'][:12], 16)}")
"""


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_twelve_trainings_on_three_hosts_with_two_interruptions_a_failure_and_a_killed_launcher(
    account: Account,
) -> None:
    (account.project / "train.py").write_text(CHAIN)
    training = ("-m", "script=train.py", "args.x=range(1,13)", "sweep.metric=digest", "run.name=train",
                "checkpoint.watch=out/state.json", "checkpoint.resume_flag=--resume")  # fmt: skip
    words = (*training, ROOT, "sweep.hosts=3")
    lost: list[str] = []
    deadline = time.monotonic() + 1200

    def watch_until(done: int, launch) -> None:
        while sum(row["state"] in ("succeeded", "failed") for row in rows(account)) < done:
            assert launch.poll() is None and time.monotonic() < deadline, account.said(launch)
            time.sleep(0.3)

    def take_away(launch, *, notice_s: float | None) -> None:
        """Take the host of a job that has got somewhere."""
        while True:
            assert launch.poll() is None and time.monotonic() < deadline, account.said(launch)
            for row in rows(account):
                beat = account.cloud.read(f"{row['run_dir']}/heartbeat.json") if row["state"] == "running" else None
                submitted = account.cloud.read(f"{row['run_dir']}/attempts/1.submit.json")
                handle = json.loads(submitted)["handle"] if submitted is not None else None
                if beat is None or handle is None or not json.loads(beat)["step"]:
                    continue
                host = handle["address"]["instance"]
                lost.append(host)
                if notice_s is None:
                    account.cloud.kill(host)
                else:
                    account.cloud.interrupt(host, notice_s)
                return
            time.sleep(0.3)

    launch = account.start(*words)
    watch_until(2, launch)
    take_away(launch, notice_s=10.0)
    watch_until(4, launch)
    launch.kill()
    launch.wait()
    launch = account.start(*words)
    watch_until(6, launch)
    take_away(launch, notice_s=None)
    launch.wait(deadline - time.monotonic())
    _, err = account.said(launch)
    assert launch.returncode == 5, err
    swept = {row["overrides"]["args.x"]: row for row in rows(account)}
    assert {x for x, row in swept.items() if row["state"] == "failed"} == {"7"}
    assert sum(row["state"] == "succeeded" for row in swept.values()) == 11, err
    at_home = ("env.PACE=0", f"run.root={account.folder}/t")
    env = account.cloud.environment({"PATH": "/usr/bin:/bin", "XDG_CONFIG_HOME": str(account.folder)})
    subprocess.run([str(LAUNCH), *training, *at_home], cwd=account.project, env=env, check=False, timeout=600)
    twins = json.loads((account.folder / "t" / "sweeps" / "train" / "sweep.json").read_text())["jobs"]
    digests = {row["overrides"]["args.x"]: row["metrics"]["digest"] for row in twins}
    assert {x: row["metrics"]["digest"] for x, row in swept.items()} == digests
    for row in swept.values():
        attempts = [json.loads(account.cloud.read(f"{row['run_dir']}/attempts/{n}.json") or b"null") for n in (1, 2, 3)]
        ends = [one["state"] for one in attempts if one is not None]
        assert ends.count("succeeded") + ends.count("failed") == 1, (row["run_id"], ends)
    hosts = account.cloud.instances()
    assert len(hosts) <= 3 + len(lost) + 3, "three, one for each that was lost, and what the killed launcher had idle"
    account.check_that_nothing_runs(330)
