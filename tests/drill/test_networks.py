"""The drill's networks are those of a real account, and an instance that reaches no SSM is never seen by it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from waiting import wait_until

from runctl.drill.cloud import Cloud

RUN = {"ImageId": "ami-04681a1dbd79675a5", "InstanceType": "t3.medium", "MinCount": 1, "MaxCount": 1}
SSM = ("ssm", "ssmmessages", "ec2messages")


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Cloud() as cloud:
        yield cloud


@pytest.fixture
def client(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    import boto3

    for name, value in cloud.environment({}).items():
        monkeypatch.setenv(name, value)
    return boto3.Session().client


def is_seen(ssm: Any, instance: str) -> bool:
    asked = [{"Key": "InstanceIds", "Values": [instance]}]
    return bool(ssm.describe_instance_information(Filters=asked)["InstanceInformationList"])


def is_never_seen(ssm: Any, instance: str) -> bool:
    time.sleep(1.5)
    return not is_seen(ssm, instance)


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1"])
def test_the_default_network_has_a_way_out(client: Any, region: str) -> None:
    ec2 = client("ec2", region)
    [vpc] = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    [main] = ec2.describe_route_tables(Filters=[{"Name": "association.main", "Values": ["true"]}])["RouteTables"]
    [out] = [one for one in main["Routes"] if one.get("DestinationCidrBlock") == "0.0.0.0/0"]
    [gateway] = ec2.describe_internet_gateways()["InternetGateways"]
    assert out["GatewayId"] == gateway["InternetGatewayId"]
    assert gateway["Attachments"][0]["VpcId"] == main["VpcId"] == vpc["VpcId"]
    subnets = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
    assert all(one["MapPublicIpOnLaunch"] and one["VpcId"] == vpc["VpcId"] for one in subnets)


def test_a_private_subnet_has_no_way_out_and_no_default(cloud: Cloud, client: Any) -> None:
    ec2, subnet = client("ec2"), cloud.make_subnet("us-east-1a", (*SSM, "s3"))
    [table] = ec2.describe_route_tables(Filters=[{"Name": "association.subnet-id", "Values": [subnet]}])["RouteTables"]
    assert table["Routes"][0]["GatewayId"] == "local"
    assert not any(one.get("DestinationCidrBlock") == "0.0.0.0/0" for one in table["Routes"])
    [told] = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"]
    assert (told["DefaultForAz"], told["MapPublicIpOnLaunch"]) == (False, False)
    there = ec2.describe_vpc_endpoints(Filters=[{"Name": "vpc-id", "Values": [told["VpcId"]]}])["VpcEndpoints"]
    interfaces = {one["ServiceName"].rsplit(".", 1)[1] for one in there if one["VpcEndpointType"] == "Interface"}
    assert interfaces == set(SSM)
    assert all(one["PrivateDnsEnabled"] for one in there if one["VpcEndpointType"] == "Interface")
    [s3] = [one for one in there if one["VpcEndpointType"] == "Gateway"]
    assert s3["RouteTableIds"] == [table["RouteTableId"]]


def test_an_instance_is_seen_by_ssm_where_it_can_reach_it(client: Any, cloud: Cloud) -> None:
    # In a region of its own: endpoints are the whole network's.
    ec2, ssm = client("ec2", "us-west-2"), client("ssm", "us-west-2")
    no_way = ec2.run_instances(**RUN, SubnetId=cloud.make_subnet("us-west-2a"))["Instances"][0]["InstanceId"]
    default = ec2.run_instances(**RUN)["Instances"][0]["InstanceId"]
    wait_until(lambda: is_seen(ssm, default), 10, "the default network has a way out")
    assert is_never_seen(ssm, no_way)
    with pytest.raises(ssm.exceptions.InvalidInstanceId):
        ssm.send_command(InstanceIds=[no_way], DocumentName="AWS-RunShellScript", Parameters={"commands": ["true"]})

    cloud.make_subnet("us-west-2b", SSM)
    wait_until(lambda: is_seen(ssm, no_way), 10, "endpoints are a way too")


def test_an_instance_without_an_address_needs_more_than_a_gateway(client: Any, cloud: Cloud) -> None:
    ec2, ssm = client("ec2", "ap-south-1"), client("ssm", "ap-south-1")
    subnet = cloud.make_subnet("ap-south-1a")
    [table] = ec2.describe_route_tables(Filters=[{"Name": "association.subnet-id", "Values": [subnet]}])["RouteTables"]
    [gateway] = ec2.describe_internet_gateways()["InternetGateways"]
    asked = {"RouteTableId": table["RouteTableId"], "DestinationCidrBlock": "0.0.0.0/0"}
    ec2.create_route(**asked, GatewayId=gateway["InternetGatewayId"])
    instance = ec2.run_instances(**RUN, SubnetId=subnet)["Instances"][0]["InstanceId"]
    assert is_never_seen(ssm, instance)

    ec2.delete_route(**asked)
    nat = ec2.create_nat_gateway(SubnetId=subnet, ConnectivityType="private")["NatGateway"]["NatGatewayId"]
    ec2.create_route(**asked, NatGatewayId=nat)
    wait_until(lambda: is_seen(ssm, instance), 10, "a NAT is a way for whoever has no address")
