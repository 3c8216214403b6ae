"""Instances of no run, and trainings on them: they stay, they are found again, one that is lost is replaced."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rehearsal import ROOT, Rehearsal, rehearsal
from waiting import wait_until

from runctl.checkpoint.policy import CheckpointPolicy
from runctl.errors import ConfigError
from runctl.platforms.aws import AwsPlatform
from runctl.platforms.aws.hosts import AwsHosts
from runctl.platforms.aws.options import AwsConfig
from runctl.platforms.hosts import Host, noted
from runctl.platforms.rented import Market
from runctl.rundir import RunDir, run_url
from runctl.spec import LaunchSpec, Limits, Program, Resources, RunIdentity, RunState

SAVES = """
import os, pathlib, time
found = os.environ.get("RUNCTL_RESUME_FROM")
pathlib.Path("step-1.ckpt").write_text("one step")
print("resumed" if found else "from the beginning", flush=True)
time.sleep(1 if found else 90)
"""


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    with rehearsal(tmp_path_factory.mktemp("by-hand")) as aws:
        yield aws


def hosts(aws: Rehearsal, tell: Callable[[str], None] = lambda _: None, **options: object) -> AwsHosts:
    config = AwsConfig(**{"instance_type": "t3.medium", "region": "us-east-1", "market": Market.spot, **options})
    return AwsPlatform(aws.project, config, tell).hosts()


def states(aws: Rehearsal) -> dict[str, str]:
    return {one["id"]: one["state"] for one in aws.cloud.instances()}


def test_one_is_made_listed_commanded_and_ended(aws: Rehearsal) -> None:
    told: list[str] = []
    mine = hosts(aws, tell=told.append)
    made = mine.create(Resources(), 3600.0)
    told.clear()
    assert (made.market, made.by_hand, noted(made.id)["region"]) == ("spot", True, "us-east-1")
    [listed] = [one for one in mine.living() if one.id == made.id]
    assert listed.ends_at == pytest.approx(made.ends_at, abs=2) and listed.price_usd_per_hour
    there = next(one for one in aws.cloud.instances() if one["id"] == made.id)
    assert there["tags"]["runctl:attempt"] == "0" and there["tags"]["CreatedBy"] == "runctl"
    assert "shutdown -P +60" in (Path(there["folder"]) / "user-data").read_text()  # for its whole life, at once
    done = mine.run(made.id, "echo out; echo err >&2; exit 7", 30.0)
    assert (done.exit_code, done.stdout, done.stderr) == (7, "out\n", "err\n") and told == []
    mine.run(made.id, "yes | head -c 30000", 30.0)
    assert told == ["it printed more than the 24000 characters that SSM keeps, 8000 of stderr"]
    mine.terminate(made.id)
    assert states(aws)[made.id] == "terminated"
    with pytest.raises(ConfigError, match="no living host of ours"):
        mine.terminate(made.id)


def test_what_others_made_is_not_listed_and_not_ended(aws: Rehearsal) -> None:
    import boto3

    ec2 = boto3.Session().client("ec2", region_name="us-east-1")
    theirs = ec2.run_instances(ImageId="ami-04681a1dbd79675a5", MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    mine = hosts(aws)
    assert theirs not in [one.id for one in mine.living()]
    for act in (mine.terminate, lambda one: mine.run(one, "true", 5.0)):
        with pytest.raises(ConfigError, match="left alone"):
            act(theirs)
    assert states(aws)[theirs] == "running"


@pytest.mark.slow
def test_trainings_come_and_go_and_the_host_stays(aws: Rehearsal) -> None:
    mine = hosts(aws)
    made = mine.create(Resources(), 3600.0)
    before = len(aws.cloud.instances())
    first = aws.run(host=made.id)
    assert first.outcome is not None and first.outcome.state is RunState.SUCCEEDED, first.told
    attempt = first.outcome.attempts[0]
    assert attempt.billed_from is None and attempt.ended_at is not None
    assert attempt.cost_usd is not None and made.price_usd_per_hour is not None
    billed_s = attempt.cost_usd / made.price_usd_per_hour * 3600  # its disks are whoever's who made it
    assert billed_s == pytest.approx(max(60.0, attempt.ended_at - attempt.started_at), rel=0.05)
    (aws.project / "fails.py").write_text("raise SystemExit(3)")
    second = aws.run(script="fails.py", host=made.id, keep_on_failure=None)
    assert second.outcome is not None and second.outcome.exit_code == 3
    assert not any("stays for" in line for line in second.told)  # it stays much longer
    assert second.outcome.attempts[0].cost_usd == pytest.approx(attempt.cost_usd, rel=0.5)  # and is not this run's
    assert len(aws.cloud.instances()) == before and states(aws)[made.id] == "running"
    assert noted(made.id)["run_dir"] == run_url(ROOT, second.run_id)
    mine.terminate(made.id)


@pytest.mark.slow
def test_one_that_is_taken_back_is_replaced_and_what_replaces_it_ends_with_the_run(aws: Rehearsal) -> None:
    (aws.project / "saves.py").write_text(SAVES)
    made = hosts(aws).create(Resources(), 3600.0)
    ended = threading.Event()

    def take_back() -> None:
        while not ended.wait(0.1):
            url = noted(made.id).get("run_dir")
            if url and aws.cloud.read(f"{url}/checkpoints/LATEST") is not None:
                aws.cloud.interrupt(made.id, 6.0)
                return

    thread = threading.Thread(target=take_back)
    thread.start()
    try:
        spec = {"checkpoint": CheckpointPolicy(watch="*.ckpt")}
        launch = aws.run(script="saves.py", host=made.id, spec=spec)
    finally:
        ended.set()
        thread.join()
    assert launch.outcome is not None and launch.outcome.state is RunState.SUCCEEDED, launch.told
    assert "resumed" in launch.output and len(launch.outcome.attempts) == 2
    assert any(f"{made.id} is lost to this run" in line for line in launch.told)
    launch.check_that_nothing_is_left()
    deadline = time.monotonic() + 10
    while states(aws)[made.id] != "terminated" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert states(aws)[made.id] == "terminated"


@pytest.mark.soak  # 15 s; test_clean_up.py has the rule
def test_a_host_that_trains_takes_no_second_training(aws: Rehearsal) -> None:
    (aws.project / "long.py").write_text("import time\ntime.sleep(120)\n")
    mine = hosts(aws)
    made = mine.create(Resources(), 3600.0)
    said: list[str] = []

    def come_second() -> None:
        try:
            wait_until(lambda: _lives(noted(made.id).get("run_dir")), 60, "the first training lives")
            config = AwsConfig(instance_type="t3.medium", region="us-east-1", host=made.id)
            second = LaunchSpec(RunIdentity("second", "second", ROOT), Program("train.py", None), limits=Limits(600.0))
            AwsPlatform(aws.project, config).quote(second)
        except ConfigError as error:
            said.append(str(error))
        finally:
            mine.terminate(made.id)

    thread = threading.Thread(target=come_second)
    thread.start()
    first = aws.run(script="long.py", host=made.id, max_attempts=1)
    thread.join()
    assert len(said) == 1 and f"run {first.run_id} trains there just now" in said[0], (said, first.told)


def _lives(run_dir: str | None) -> bool:
    return run_dir is not None and None not in (RunDir(run_dir).heartbeat(), RunDir(run_dir).read_status())


def test_a_training_ends_before_its_host_does() -> None:
    now = time.time()
    host = Host("aws", "i-1", "running", "host-x", 0, launched_at=now - 600, ends_at=now + 3600)
    assert host.limited(Limits(None, 5.0), 110.0).max_time_s == pytest.approx(3600 - 110 - 120, abs=2)
    assert host.limited(Limits(60.0), 110.0).max_time_s == 60.0
    with pytest.raises(ConfigError, match="ends itself in 3 minutes"):
        replace(host, ends_at=now + 180).limited(Limits(), 110.0)
    with pytest.raises(ConfigError, match="run base's"):
        replace(host, run="base", attempt=1).limited(Limits(), 110.0)
