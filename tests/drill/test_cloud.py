"""The loopback cloud behaves as AWS is known to, where moto does not: SSM runs, tokens hold, instances end."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from waiting import wait_until

from runctl import processes
from runctl.drill.cloud import Cloud
from runctl.drill.sandboxes import MARK
from runctl.errors import PlatformError

RUN = {
    "ImageId": "ami-04681a1dbd79675a5",
    "InstanceType": "t3.medium",
    "MinCount": 1,
    "MaxCount": 1,
    "InstanceInitiatedShutdownBehavior": "terminate",
}
SPOT = {"InstanceMarketOptions": {"MarketType": "spot"}}
ENDED = ("Success", "Failed", "TimedOut", "Cancelled")


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Cloud() as cloud:
        yield cloud


@pytest.fixture
def client(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    import boto3

    for name, value in cloud.environment({}).items():
        monkeypatch.setenv(name, value)
    return boto3.Session().client


@pytest.fixture
def launch(client: Callable[[str], Any]) -> Iterator[Callable[..., str]]:
    ec2 = client("ec2")
    launched: list[str] = []

    def launch(**more: Any) -> str:
        launched.append(ec2.run_instances(**RUN, **more)["Instances"][0]["InstanceId"])
        return launched[-1]

    yield launch
    for name in launched:
        ec2.terminate_instances(InstanceIds=[name])


@pytest.fixture
def run(cloud: Cloud, client: Callable[[str], Any]) -> Callable[..., dict[str, Any]]:
    ssm = client("ssm")

    def run(instance: str, script: str, *, timeout_s: int = 60) -> dict[str, Any]:
        wait_until(lambda: online(ssm, instance), 10, "the instance's agent reports")
        command = send(ssm, instance, script, timeout_s)

        def told() -> dict[str, Any]:
            [one] = ssm.list_command_invocations(CommandId=command)["CommandInvocations"]
            return one

        wait_until(lambda: told()["Status"] in ENDED, 30, "the command ends")
        time.sleep(0.5)  # until then it is not known one by one
        return ssm.get_command_invocation(CommandId=command, InstanceId=instance)

    return run


def online(ssm: Any, instance: str) -> bool:
    asked = [{"Key": "InstanceIds", "Values": [instance]}]
    return bool(ssm.describe_instance_information(Filters=asked)["InstanceInformationList"])


def send(ssm: Any, instance: str, script: str, timeout_s: int = 60) -> str:
    parameters = {"commands": [script], "executionTimeout": [str(timeout_s)]}
    told = ssm.send_command(InstanceIds=[instance], DocumentName="AWS-RunShellScript", Parameters=parameters)
    return str(told["Command"]["CommandId"])


def state(cloud: Cloud, instance: str) -> str:
    return next(one["state"] for one in cloud.instances() if one["id"] == instance)


# --- the way there ---


def test_a_proxy_of_the_users_is_not_asked_the_way_to_loopback(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "intern.example")
    assert isinstance(cloud.calls(), list)
    assert cloud.read("s3://nowhere/nothing") is None
    for name, value in cloud.environment(os.environ).items():
        monkeypatch.setenv(name, value)
    assert os.environ["no_proxy"].startswith("intern.example,"), "nor is what the user goes to directly"
    assert boto3.Session().client("ec2").describe_regions()["Regions"]


def test_a_cloud_that_does_not_start_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    cloud = Cloud()
    with pytest.raises(PlatformError, match="did not start"), cloud:
        pass
    assert not cloud.folder.exists()
    assert cloud._process is not None and cloud._process.returncode is not None


# --- SSM ---


def test_a_command_is_run_by_sh_and_its_output_and_code_come_back(launch, run) -> None:
    told = run(launch(), "[[ a == a ]] 2>/dev/null && echo bash || echo sh; echo oops >&2; exit 3")
    assert (told["Status"], told["ResponseCode"]) == ("Failed", 3)
    assert (told["StandardOutputContent"], told["StandardErrorContent"]) == ("sh\n", "oops\n")


def test_an_instance_is_not_known_before_its_agent_reports(client, launch) -> None:
    ssm, instance = client("ssm"), launch()
    with pytest.raises(ssm.exceptions.InvalidInstanceId):
        send(ssm, instance, "true")
    wait_until(lambda: online(ssm, instance), 10, "the instance's agent reports")
    send(ssm, instance, "true")


def test_a_command_is_not_known_just_after_it_was_sent_and_says_nothing_until_it_ends(client, launch) -> None:
    ssm, instance = client("ssm"), launch()
    wait_until(lambda: online(ssm, instance), 10, "the instance's agent reports")
    command = send(ssm, instance, "echo early; sleep 1.5")
    with pytest.raises(ssm.exceptions.InvocationDoesNotExist):
        ssm.get_command_invocation(CommandId=command, InstanceId=instance)
    time.sleep(0.5)
    told = ssm.get_command_invocation(CommandId=command, InstanceId=instance)
    assert (told["Status"], told["StandardOutputContent"], told["ResponseCode"]) == ("InProgress", "", -1)


def test_output_is_cut_where_ssm_cuts_it(launch, run) -> None:
    told = run(launch(), "head -c 30000 /dev/zero | tr '\\0' o; head -c 30000 /dev/zero | tr '\\0' e >&2")
    assert len(told["StandardOutputContent"]) == 24_000
    assert len(told["StandardErrorContent"]) == 8_000


def test_a_command_lasts_until_its_last_child_lets_go_of_its_output(launch, run) -> None:
    began = time.monotonic()
    assert run(launch(), "sleep 1.5 & echo done")["Status"] == "Success"
    assert time.monotonic() - began > 1.5


def test_a_command_that_takes_too_long_is_killed_with_its_children(cloud: Cloud, launch, run) -> None:
    instance = launch()
    assert run(instance, "(sleep 2; touch survived) & sleep 60", timeout_s=1)["Status"] == "TimedOut"
    time.sleep(2)
    assert list((cloud.folder / instance).rglob("survived")) == []


def test_a_cancelled_command_is_killed(client, launch) -> None:
    ssm, instance = client("ssm"), launch()
    wait_until(lambda: online(ssm, instance), 10, "the instance's agent reports")
    command = send(ssm, instance, "sleep 60")
    time.sleep(0.5)
    ssm.cancel_command(CommandId=command)
    wait_until(
        lambda: ssm.list_command_invocations(CommandId=command)["CommandInvocations"][0]["Status"] == "Cancelled",
        10, "it is cancelled",
    )  # fmt: skip


def test_a_command_of_an_instance_that_dies_never_ends(cloud: Cloud, client, launch) -> None:
    ssm, instance = client("ssm"), launch()
    wait_until(lambda: online(ssm, instance), 10, "the instance's agent reports")
    command = send(ssm, instance, "sleep 60")
    time.sleep(0.5)
    cloud.kill(instance)
    time.sleep(0.5)
    assert ssm.get_command_invocation(CommandId=command, InstanceId=instance)["Status"] == "InProgress"
    with pytest.raises(ssm.exceptions.InvalidInstanceId):
        send(ssm, instance, "true")


# --- EC2 ---


def test_one_token_launches_once(client, launch) -> None:
    ec2 = client("ec2")
    first = launch(ClientToken="once")
    assert launch(ClientToken="once") == first
    assert launch(ClientToken="twice") != first
    with pytest.raises(ec2.exceptions.ClientError, match="IdempotentParameterMismatch"):
        launch(ClientToken="once", **SPOT)
    ec2.terminate_instances(InstanceIds=[first])
    with pytest.raises(ec2.exceptions.ClientError, match="IdempotentInstanceTerminated"):
        launch(ClientToken="once")


@pytest.mark.parametrize(("behaviour", "becomes"), [("terminate", "terminated"), ("stop", "stopped")])
def test_a_shutdown_from_inside_does_what_the_instance_was_launched_with(
    cloud: Cloud, client, run, behaviour: str, becomes: str
) -> None:
    asked = {**RUN, "InstanceInitiatedShutdownBehavior": behaviour}
    instance = client("ec2").run_instances(**asked)["Instances"][0]["InstanceId"]
    run(instance, "shutdown -P now")
    wait_until(lambda: state(cloud, instance) == becomes, 5, becomes)
    [found] = client("ec2").describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"]
    assert found["State"]["Name"] == becomes
    client("ec2").terminate_instances(InstanceIds=[instance])


def test_a_shutdown_can_be_put_off_and_taken_back(cloud: Cloud, launch, run) -> None:
    instance = launch()
    run(instance, "shutdown -P +1; shutdown -c")
    run(instance, "shutdown -P +60")
    time.sleep(1)
    assert state(cloud, instance) == "running"


def test_user_data_is_run_at_boot_and_ends_with_the_instance(cloud: Cloud, client, launch) -> None:
    instance = launch(UserData="#!/bin/sh\necho $$ > booted\nexec sleep 600\n")
    booted = cloud.folder / instance / "home" / "booted"
    wait_until(lambda: booted.exists() and booted.read_text().strip(), 10, "it boots")
    assert int(booted.read_text()) in processes.find_by_environment(MARK, instance)
    client("ec2").terminate_instances(InstanceIds=[instance])
    assert processes.find_by_environment(MARK, instance) == []


# --- IMDS and interruptions ---


def imds(cloud: Cloud, instance: str, path: str, *, method: str = "GET", token: str = "") -> tuple[int, str]:
    headers = {"X-aws-ec2-metadata-token": token} if token else {}
    request = urllib.request.Request(f"{cloud.url}/imds/{instance}/latest/{path}", headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metadata_is_told_to_whoever_has_a_token(cloud: Cloud, launch) -> None:
    instance = launch()
    assert imds(cloud, instance, "meta-data/instance-id")[0] == 401
    assert imds(cloud, instance, "meta-data/instance-id", token="guessed")[0] == 401
    _, token = imds(cloud, instance, "api/token", method="PUT")
    assert imds(cloud, instance, "meta-data/instance-id", token=token) == (200, instance)
    assert imds(cloud, launch(), "meta-data/instance-id", token=token)[0] == 401, "another instance's token"


def test_a_notice_is_404_until_there_is_one_and_then_the_instance_is_taken_back(cloud: Cloud, client, launch) -> None:
    instance = launch(**SPOT)
    _, token = imds(cloud, instance, "api/token", method="PUT")
    assert imds(cloud, instance, "meta-data/spot/instance-action", token=token)[0] == 404
    assert imds(cloud, instance, "meta-data/events/recommendations/rebalance", token=token)[0] == 404
    cloud.rebalance(instance)
    assert imds(cloud, instance, "meta-data/events/recommendations/rebalance", token=token)[0] == 200
    cloud.interrupt(instance, notice_s=1.5)
    status, text = imds(cloud, instance, "meta-data/spot/instance-action", token=token)
    assert (status, json.loads(text)["action"]) == (200, "terminate")
    assert state(cloud, instance) == "running"
    wait_until(lambda: state(cloud, instance) == "terminated", 5, "it is taken back")
    [found] = client("ec2").describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"]
    assert found["StateReason"]["Code"] == "Server.SpotInstanceTermination"


# --- prices and images ---


def test_spot_prices_are_of_today_and_below_those_on_demand(client) -> None:
    told = client("ec2").describe_spot_price_history(
        InstanceTypes=["g6.xlarge"], ProductDescriptions=["Linux/UNIX"]
    )["SpotPriceHistory"]  # fmt: skip
    assert {one["AvailabilityZone"] for one in told} == {"us-east-1a", "us-east-1b", "us-east-1c"}
    assert all(0.1 < float(one["SpotPrice"]) < 0.8 for one in told)
    assert all(time.time() - one["Timestamp"].timestamp() < 86_400 for one in told)


def test_public_parameters_name_images_that_exist(client) -> None:
    name = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
    image = client("ssm").get_parameter(Name=name)["Parameter"]["Value"]
    assert client("ec2").describe_images(ImageIds=[image])["Images"][0]["ImageId"] == image
    with pytest.raises(client("ssm").exceptions.ParameterNotFound):
        client("ssm").get_parameter(Name="/aws/service/nothing")
