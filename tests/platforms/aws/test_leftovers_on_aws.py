"""`runctl cleanup` in the loopback cloud, among what is ours and what is not; and what AWS tells of a bill."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from granted import PLACE, Granted, granted
from rehearsal import BUCKET, ROOT
from typer.testing import CliRunner

from runctl import bills
from runctl.errors import PlatformError
from runctl.outcome import Attempt
from runctl.platforms.aws import AwsPlatform, holdings, policies
from runctl.platforms.aws.clients import Clients
from runctl.platforms.aws.options import AwsConfig
from runctl.platforms.holdings import Holding
from runctl.registry import Registry
from runctl.rundir import RunDir, run_url
from runctl.spec import LaunchSpec, Plan, Program, RunHandle, RunIdentity, RunState
from runctl.standing import look

ZONE, REGION = "us-east-1a", "us-east-1"
HOUR = 3600.0
RUN = {"ImageId": "ami-04681a1dbd79675a5", "InstanceType": "t3.medium", "MinCount": 1, "MaxCount": 1}


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Granted]:
    with granted(tmp_path_factory.mktemp("leftovers")) as made:
        made.grant(policies.launcher(PLACE), policies.host(PLACE))
        yield made


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def run(run_id: str, state: RunState, heard_ago_s: float) -> RunDir:
    """A run on AWS, whose agent was heard of so long ago, or that ended then."""
    rundir = RunDir(run_url(ROOT, run_id))
    at = time.time() - heard_ago_s
    rundir.write_spec(LaunchSpec(RunIdentity(run_id, run_id, ROOT), Program("train.py", None)))
    rundir.write_attempt(
        Attempt(1, "aws", "h", "spot", at - 60, at if state.ended else None, state, price_usd_per_hour=0.4, step=1)
    )
    told = {"state": state.value, "attempt": 1, "at": at}
    for name in ("status.json", "heartbeat.json"):
        rundir.store.write(name, json.dumps(told).encode())
    return rundir


def tags(run_id: str, kind: str, deadline: str = "1440 minutes after launch") -> dict[str, Any]:
    ours = {"CreatedBy": "runctl", "runctl:run": run_id, "runctl:attempt": "1", "runctl:owner": "ada",
            "runctl:root": ROOT, "runctl:deadline": deadline}  # fmt: skip
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": [{"Key": k, "Value": v} for k, v in ours.items()]}]}


class Mix:
    """What is ours and left over, what is ours and lives, and what is others'."""

    def __init__(self, account: Granted) -> None:
        ec2, ssm, s3 = (account.root(name) for name in ("ec2", "ssm", "s3"))
        run("lives", RunState.RUNNING, 1)
        run("silent", RunState.RUNNING, 3 * HOUR)
        run("over", RunState.SUCCEEDED, 3 * HOUR)
        self.left, self.stays = set(), set()

        def instance(**asked: Any) -> str:
            made: str = ec2.run_instances(**RUN, **asked)["Instances"][0]["InstanceId"]
            return made

        def volume(**asked: Any) -> str:
            made: str = ec2.create_volume(AvailabilityZone=ZONE, Size=100, **asked)["VolumeId"]
            return made

        self.left |= {instance(**tags("silent", "instance")), instance(**tags("over", "instance"))}
        self.stays |= {instance(**tags("lives", "instance")), instance(**tags("nobodys", "instance")), instance()}
        self.volumes = {"over": volume(**tags("over", "volume")), "lives": volume(**tags("lives", "volume")),
                        "foreign": volume()}  # fmt: skip
        named = {"GroupName": "runctl-over", "Description": "x"}
        self.group = ec2.create_security_group(**named, **tags("over", "security-group"))["GroupId"]
        for name in ("/runctl/over/a1-0a1b2c3d/TOKEN", "/runctl/lives/a1-0a1b2c3d/TOKEN", "/runctl/x/a1/T"):
            mine = name.endswith("TOKEN")
            marks = [{"Key": "CreatedBy", "Value": "runctl"}] if mine else []
            ssm.put_parameter(Name=name, Value="x", Type="SecureString", Tags=marks)
        for key in ("runs/over/checkpoints/x", "runs/lives/checkpoints/x", "elsewhere/over/x"):
            s3.create_multipart_upload(Bucket=BUCKET, Key=key)


def cleanup(*words: str, expect: int = 0) -> dict[str, Any]:
    from runctl.cli.app import app

    result = CliRunner().invoke(app, ["cleanup", "--region", REGION, "--platform", "aws", *words, "--json"])
    assert result.exit_code == expect, (result.output, result.exception)
    told: dict[str, Any] = json.loads(result.stdout)
    return {**told, "said": result.stderr}


def aged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what was made just now be old enough."""
    from runctl import leftovers

    monkeypatch.setattr(leftovers, "_YOUNG_S", 0.0)


@pytest.mark.slow
def test_only_what_is_ours_and_left_over_ends(account: Granted, monkeypatch: pytest.MonkeyPatch) -> None:
    mix = Mix(account)
    for url in ("silent", "over", "lives"):
        Registry().note(look(RunDir(run_url(ROOT, url))).entry())

    told = cleanup("--dry-run", expect=1)
    assert told["not_looked_at"]["aws"].startswith("3 of 5 looks failed, the first one: looking for volumes")
    ids = {one["holding"]["id"] for one in told["left"]}
    assert {one for one in ids if one.startswith("i-")} == mix.left, "instances need no more rights than launches"
    for right in ("ec2:DescribeVolumes", "ssm:DescribeParameters", "s3:ListBucketMultipartUploads"):
        assert right in told["said"], "what could not be looked at is said"

    aged(monkeypatch)
    both = policies.launcher(PLACE)["Statement"] + policies.cleanup(PLACE)["Statement"]
    account.grant({"Version": "2012-10-17", "Statement": both}, policies.host(PLACE))
    told = cleanup("--dry-run")
    assert "Describe" not in told["said"]
    prices = {one["holding"]["id"]: one["holding"]["price_usd_per_hour"] for one in told["left"]}
    assert all(prices[one] == pytest.approx(0.0416) for one in mix.left)
    assert prices[mix.volumes["over"]] == pytest.approx(0.08 * 100 / 720)

    told = cleanup("-y")
    assert [one for one in told["ended"] if one["error"]] == []
    ended = {one["id"].split("#")[0] for one in told["ended"]}
    assert ended == {
        *mix.left, mix.volumes["over"], mix.group, "/runctl/over/a1-0a1b2c3d/TOKEN", f"s3://{BUCKET}/runs/over/checkpoints/x",
    }  # fmt: skip

    states = {one["id"]: one["state"] for one in account.aws.cloud.instances()}
    assert {states[one] for one in mix.left} == {"terminated"}
    assert {states[one] for one in mix.stays} == {"running"}
    volumes = {one["VolumeId"] for one in account.root("ec2").describe_volumes()["Volumes"]}
    assert mix.volumes["over"] not in volumes
    assert volumes >= {mix.volumes["lives"], mix.volumes["foreign"]}
    assert set(account.parameters()) >= {"/runctl/lives/a1-0a1b2c3d/TOKEN", "/runctl/x/a1/T"}
    uploads = account.root("s3").list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    assert {one["Key"] for one in uploads} == {"runs/lives/checkpoints/x", "elsewhere/over/x"}
    assert cleanup("-y")["ended"] == [], "nothing is left over any more"


def test_a_region_that_does_not_answer_is_not_clean(account: Granted, monkeypatch: pytest.MonkeyPatch) -> None:
    def looks(kind: str, *, throttled: bool) -> Any:
        def look(_: Any, region: str) -> list[Holding]:
            if throttled and region == "us-east-1":
                raise PlatformError(f"looking for {kind} in {region}: RequestLimitExceeded")
            return [Holding("aws", kind, f"x-{region}", region)]

        return look

    monkeypatch.setattr(holdings, "_instances", looks("instance", throttled=True))
    monkeypatch.setattr(holdings, "_volumes", looks("volume", throttled=True))
    monkeypatch.setattr(holdings, "_security_groups", looks("security group", throttled=False))
    monkeypatch.setattr(holdings, "_parameters", lambda *_: [])
    told: list[str] = []
    found = []
    with pytest.raises(
        PlatformError, match="2 of 8 looks failed, the first one: looking for instance in us-east-1: Req"
    ):
        for one in holdings.look(Clients(), ("us-east-1", "eu-west-1"), [], told.append):
            found.append(one.id)
    assert sorted(found) == ["x-eu-west-1", "x-eu-west-1", "x-eu-west-1", "x-us-east-1"]
    assert len(told) == 2, "each is told in full"


def test_foreign_things_are_not_even_allowed_to_be_ended(account: Granted) -> None:
    import boto3
    from botocore.exceptions import ClientError

    volume = account.root("ec2").create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"]
    with pytest.raises(ClientError, match="DeleteVolume"):
        boto3.Session().client("ec2").delete_volume(VolumeId=volume)


def platform() -> AwsPlatform:
    return AwsPlatform(Path.cwd(), AwsConfig(region=REGION))


def rented(begin: float) -> tuple[Plan, RunHandle]:
    disks = [{"Ebs": {"VolumeSize": 72}}, {"Ebs": {"VolumeSize": 18}}]
    plan = Plan("bill", 1, "aws", (), {}, 1, 1, ".", f"{ROOT}/bill", estimate_usd=5.0, requests=(
        {"call": "RunInstances", "arguments": {"BlockDeviceMappings": disks}},
    ))  # fmt: skip
    return plan, RunHandle("aws", "bill", 1, {
        "instance": "i-1", "region": REGION, "zone": ZONE, "machine": "g6.xlarge", "market": "spot",
        "launched_at": begin, "price_usd_per_hour": 9.9,
    })  # fmt: skip


def test_a_bill_follows_the_price_on_spot_and_holds_the_disks(account: Granted) -> None:
    end = time.time() - 60
    begin = end - 2 * HOUR
    account.aws.cloud.set_spot_price("g6.xlarge", ZONE, 0.3, begin - 10 * HOUR)
    account.aws.cloud.set_spot_price("g6.xlarge", ZONE, 0.5, begin + HOUR)
    account.aws.cloud.set_spot_price("g6.xlarge", ZONE, 8.8, end + 30)
    rundir = run("bill", RunState.SUCCEEDED, 0)
    record = rundir.read_attempt(1)
    assert record is not None
    record = replace(record, started_at=begin + 60, billed_from=begin, ended_at=end)
    rundir.write_attempt(record)
    plan, handle = rented(begin)
    rundir.write_submission(plan, handle)
    [unasked] = bills.of_run(rundir)
    assert unasked.usd is None, "nobody has told of the disks"
    bills.ask(rundir, platform(), plan, handle, record)
    [one] = bills.of_run(rundir)
    assert one.followed
    assert one.host_usd == pytest.approx(0.3 + 0.5, abs=1e-4)
    assert one.disk_usd == pytest.approx(90 * 0.08 / 720 * 2, abs=1e-4)
    assert one.saved_usd == pytest.approx(2 * 0.8048 - 0.8, abs=1e-3)


def test_an_extension_writes_the_deadline_into_the_instances_tag_and_nothing_else_may(account: Granted) -> None:
    import boto3
    from botocore.exceptions import ClientError

    both = policies.launcher(PLACE)["Statement"] + policies.cleanup(PLACE)["Statement"]
    account.grant({"Version": "2012-10-17", "Statement": both}, policies.host(PLACE))
    ec2 = account.root("ec2")
    made = ec2.run_instances(**RUN, **tags("lives", "instance"))["Instances"][0]["InstanceId"]
    plan, handle = rented(1000.0)
    handle = replace(handle, address={**handle.address, "instance": made})
    platform().extend(plan, handle, 1000.0 + 600.0)
    told = ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [made]}])["Tags"]
    assert {"runctl:deadline": "10 minutes after launch"}.items() <= {one["Key"]: one["Value"] for one in told}.items()
    with pytest.raises(ClientError, match="CreateTags"):
        boto3.Session().client("ec2").create_tags(Resources=[made], Tags=[{"Key": "CreatedBy", "Value": "me"}])
    ec2.terminate_instances(InstanceIds=[made])
