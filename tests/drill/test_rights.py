"""With rights checked, the drill refuses as AWS does: it names the right that is missing, in the service's words."""

from __future__ import annotations

import base64
import contextlib
import json
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from waiting import wait_until

from runctl.drill.cloud import Cloud
from runctl.drill.metadata import LAUNCHER, SECRET
from runctl.errors import ConfigError

BUCKET = "rights"
RUN = {"ImageId": "ami-04681a1dbd79675a5", "InstanceType": "t3.medium", "MinCount": 1, "MaxCount": 1}
CORE = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
TRUST = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}


def allow(*actions: str, resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource, **more}


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Cloud(iam=True) as cloud:
        cloud.make_bucket(BUCKET)
        yield cloud


@pytest.fixture
def root(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    import boto3

    for name, value in cloud.environment({}).items():
        monkeypatch.setenv(name, value)
    return boto3.Session(LAUNCHER, SECRET).client


@pytest.fixture
def user(root: Callable[..., Any], request: pytest.FixtureRequest) -> Callable[..., Callable[..., Any]]:
    """Makes a user of these statements, and gives back what makes its clients."""
    import boto3

    iam, name = root("iam"), f"user-{zlib.crc32(request.node.name.encode())}"
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]

    def make(*statements: dict[str, Any]) -> Callable[..., Any]:
        if statements:
            document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
            iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=document)
        return boto3.Session(key["AccessKeyId"], key["SecretAccessKey"]).client

    make.name = name  # type: ignore[attr-defined]
    return make


def refusal(call: Callable[..., Any], **asked: Any) -> tuple[int, str, str]:
    """(status, code, message) of what a call is answered."""
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as error:
        call(**asked)
    told = error.value.response
    return told["ResponseMetadata"]["HTTPStatusCode"], told["Error"]["Code"], told["Error"]["Message"]


def test_without_a_policy_nothing_is_allowed_and_each_service_says_so_in_its_own_words(user: Any) -> None:
    mine, who = user(), f"User: arn:aws:iam::123456789012:user/{user.name} is not authorized to perform:"
    because = "because no identity-based policy allows the"
    assert refusal(mine("ec2").describe_instances) == (
        403, "UnauthorizedOperation",
        f"You are not authorized to perform this operation. {who} ec2:DescribeInstances {because} "
        "ec2:DescribeInstances action",
    )  # fmt: skip
    name = "arn:aws:ssm:us-east-1:123456789012:parameter/a/b"
    assert refusal(mine("ssm").get_parameter, Name="/a/b") == (
        400, "AccessDeniedException", f"{who} ssm:GetParameter on resource: {name} {because} ssm:GetParameter action",
    )  # fmt: skip
    assert refusal(mine("iam").list_users)[:2] == (403, "AccessDenied")
    assert "iam:ListUsers" in refusal(mine("iam").list_users)[2]
    assert refusal(mine("s3").get_object, Bucket=BUCKET, Key="x") == (403, "AccessDenied", "Access Denied")
    assert refusal(mine("s3").head_object, Bucket=BUCKET, Key="x")[:2] == (403, "403")
    assert refusal(mine("pricing").get_products, ServiceCode="AmazonEC2")[:2] == (400, "AccessDeniedException")
    asked = {"ServiceCode": "ec2", "QuotaCode": "L-34B43A08"}
    assert refusal(mine("service-quotas").get_service_quota, **asked)[:2] == (400, "AccessDeniedException")
    assert refusal(mine("secretsmanager").get_secret_value, SecretId="x")[:2] == (400, "AccessDeniedException")


def test_everybody_may_ask_who_they_are(user: Any) -> None:
    deny = {"Effect": "Deny", "Action": "*", "Resource": "*"}
    assert user(deny)("sts").get_caller_identity()["Arn"].endswith(user.name)


def test_an_explicit_deny_is_called_one(user: Any) -> None:
    deny = {"Effect": "Deny", "Action": "ec2:Describe*", "Resource": "*"}
    _, _, said = refusal(user(allow("ec2:*"), deny)("ec2").describe_instances)
    assert said.endswith("with an explicit deny in an identity-based policy")


def test_keys_of_nobody_are_refused(root: Any) -> None:
    import boto3

    nobody = boto3.Session("AKIANOBODY", "x").client
    assert refusal(nobody("ec2").describe_instances)[:2] == (401, "AuthFailure")
    assert refusal(nobody("sts").get_caller_identity)[:2] == (403, "InvalidClientTokenId")
    assert refusal(nobody("ssm").describe_parameters)[:2] == (400, "UnrecognizedClientException")
    assert refusal(nobody("s3").get_object, Bucket=BUCKET, Key="x")[:2] == (403, "InvalidAccessKeyId")


def test_policies_of_groups_and_managed_ones_count(root: Any, user: Any) -> None:
    iam, mine = root("iam"), user()
    document = json.dumps({"Version": "2012-10-17", "Statement": [allow("ec2:DescribeInstances")]})
    made = iam.create_policy(PolicyName="look", PolicyDocument=document)["Policy"]["Arn"]
    iam.create_group(GroupName="lookers")
    iam.attach_group_policy(GroupName="lookers", PolicyArn=made)
    refusal(mine("ec2").describe_instances)
    iam.add_user_to_group(GroupName="lookers", UserName=user.name)
    assert mine("ec2").describe_instances()["Reservations"] == []
    iam.remove_user_from_group(GroupName="lookers", UserName=user.name)
    refusal(mine("ec2").describe_instances)


def test_a_trial_tells_whether_it_would_be_allowed(cloud: Cloud, user: Any) -> None:
    before = len(cloud.instances())
    asked = {**RUN, "DryRun": True}
    assert refusal(user(allow("ec2:RunInstances"))("ec2").run_instances, **asked)[:2] == (412, "DryRunOperation")
    assert refusal(user(allow("s3:*"))("ec2").run_instances, **asked)[:2] == (403, "UnauthorizedOperation")
    assert len(cloud.instances()) == before


@pytest.mark.parametrize("kind", ["instance", "volume", "network-interface", "image", "subnet", "security-group"])
def test_launching_needs_the_right_on_each_resource(user: Any, kind: str) -> None:
    but = {"Effect": "Deny", "Action": "ec2:RunInstances", "Resource": f"arn:aws:ec2:*:*:{kind}/*"}
    _, _, said = refusal(user(allow("ec2:RunInstances"), but)("ec2").run_instances, **RUN)
    assert f":{kind}/" in said


def test_the_first_spot_instance_needs_the_right_to_make_ec2s_role(root: Any, user: Any) -> None:
    spot = {**RUN, "InstanceMarketOptions": {"MarketType": "spot"}}
    status, code, _ = refusal(user(allow("ec2:*"))("ec2").run_instances, **spot)
    assert (status, code) == (403, "AuthFailure.ServiceLinkedRoleCreationNotPermitted")
    root("iam").create_service_linked_role(AWSServiceName="spot.amazonaws.com")
    assert root("iam").get_role(RoleName="AWSServiceRoleForEC2Spot")["Role"]["Path"].startswith("/aws-service-role/")
    instance = user(allow("ec2:*"))("ec2").run_instances(**spot)["Instances"][0]["InstanceId"]
    root("ec2").terminate_instances(InstanceIds=[instance])


def test_what_is_there_once_or_not_at_all_is_said_as_aws_says_it(root: Any) -> None:
    with contextlib.suppress(Exception):
        root("iam").create_service_linked_role(AWSServiceName="spot.amazonaws.com")
    again = refusal(root("iam").create_service_linked_role, AWSServiceName="spot.amazonaws.com")
    assert again[:2] == (400, "InvalidInput")
    assert "has been taken in this account" in again[2]
    status, code, said = refusal(root("ec2").run_instances, **RUN, IamInstanceProfile={"Name": "nothing"})
    assert (status, code) == (400, "InvalidParameterValue")
    assert "Invalid IAM Instance Profile name" in said


def test_whoever_may_not_list_is_not_told_what_is_not_there(root: Any, user: Any) -> None:
    s3 = root("s3")
    s3.put_object(Bucket=BUCKET, Key="runs/there", Body=b"1")
    read = allow("s3:GetObject", resource=f"arn:aws:s3:::{BUCKET}/*")
    listed = allow(
        "s3:ListBucket", resource=f"arn:aws:s3:::{BUCKET}", Condition={"StringLike": {"s3:prefix": "runs/*"}}
    )
    blind = user(read)("s3")
    assert blind.get_object(Bucket=BUCKET, Key="runs/there")["Body"].read() == b"1"
    assert refusal(blind.get_object, Bucket=BUCKET, Key="runs/not")[:2] == (403, "AccessDenied")
    assert refusal(blind.head_object, Bucket=BUCKET, Key="runs/not")[:2] == (403, "403")
    seeing = user(read, listed)("s3")
    assert refusal(seeing.get_object, Bucket=BUCKET, Key="runs/not")[:2] == (404, "NoSuchKey")
    assert refusal(seeing.head_object, Bucket=BUCKET, Key="runs/not")[:2] == (404, "404")
    assert refusal(seeing.get_object, Bucket=BUCKET, Key="elsewhere/not")[:2] == (403, "AccessDenied")


def test_a_refusal_tells_where_the_bucket_lies(user: Any) -> None:
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as error:
        user()("s3").head_bucket(Bucket=BUCKET)
    assert error.value.response["ResponseMetadata"]["HTTPHeaders"]["x-amz-bucket-region"] == "us-east-1"


def test_a_presigned_link_is_worth_what_its_signer_may(user: Any) -> None:
    def put(client: Any) -> int:
        link = client.generate_presigned_url("put_object", {"Bucket": BUCKET, "Key": "runs/link"})
        request = urllib.request.Request(link, b"x", method="PUT")
        try:
            return int(urllib.request.urlopen(request, timeout=10).status)
        except urllib.error.HTTPError as error:
            return error.code

    assert put(user(allow("s3:GetObject"))("s3")) == 403
    assert put(user(allow("s3:PutObject"))("s3")) == 200


def test_a_large_object_needs_the_right_to_put_and_to_give_up(root: Any, user: Any) -> None:
    s3 = user(allow("s3:PutObject", resource=f"arn:aws:s3:::{BUCKET}/*"))("s3")
    where = {"Bucket": BUCKET, "Key": "runs/large"}
    upload = {**where, "UploadId": s3.create_multipart_upload(**where)["UploadId"]}
    s3.upload_part(**upload, PartNumber=1, Body=b"x")
    assert refusal(s3.abort_multipart_upload, **upload)[:2] == (403, "AccessDenied")
    assert refusal(s3.list_multipart_uploads, Bucket=BUCKET)[:2] == (403, "AccessDenied")
    root("s3").abort_multipart_upload(**upload)


def test_a_host_has_its_roles_rights_and_is_seen_by_ssm_if_they_let_it(cloud: Cloud, root: Any) -> None:
    iam, ec2, ssm = root("iam"), root("ec2"), root("ssm")
    iam.create_role(RoleName="host", AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.create_instance_profile(InstanceProfileName="host")
    iam.add_role_to_instance_profile(InstanceProfileName="host", RoleName="host")
    document = json.dumps({"Version": "2012-10-17", "Statement": [allow("s3:ListBucket")]})
    iam.put_role_policy(RoleName="host", PolicyName="own", PolicyDocument=document)
    instance = ec2.run_instances(**RUN, IamInstanceProfile={"Name": "host"})["Instances"][0]["InstanceId"]
    asked = [{"Key": "InstanceIds", "Values": [instance]}]

    def seen() -> bool:
        return bool(ssm.describe_instance_information(Filters=asked)["InstanceInformationList"])

    time.sleep(1.0)
    assert not seen()
    iam.attach_role_policy(RoleName="host", PolicyArn=CORE)
    wait_until(seen, 10, "its agent may speak with SSM now")

    import boto3

    told = imds(cloud, instance, "meta-data/iam/security-credentials/host")
    keys = json.loads(told)
    mine = boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["Token"]).client
    mine("s3").list_objects_v2(Bucket=BUCKET)
    _, _, said = refusal(mine("ssm").delete_parameters, Names=["/a"])
    assert f"assumed-role/host/{instance} is not authorized to perform: ssm:DeleteParameters" in said
    ec2.terminate_instances(InstanceIds=[instance])


def test_an_instance_without_a_profile_has_no_keys(cloud: Cloud, root: Any) -> None:
    instance = root("ec2").run_instances(**RUN)["Instances"][0]["InstanceId"]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        imds(cloud, instance, "meta-data/iam/security-credentials/")
    root("ec2").terminate_instances(InstanceIds=[instance])


def imds(cloud: Cloud, instance: str, path: str) -> str:
    base = f"{cloud.url}/imds/{instance}/latest"
    with urllib.request.urlopen(urllib.request.Request(f"{base}/api/token", method="PUT"), timeout=10) as answer:
        token = answer.read().decode()
    request = urllib.request.Request(f"{base}/{path}", headers={"X-aws-ec2-metadata-token": token})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def test_a_console_tells_what_user_data_printed(root: Any) -> None:
    ec2 = root("ec2")
    data = "#!/bin/sh\necho booted; echo broken >&2\n"
    instance = ec2.run_instances(**RUN, UserData=data)["Instances"][0]["InstanceId"]

    def printed() -> str:
        return str(ec2.get_console_output(InstanceId=instance, Latest=True).get("Output") or "")

    wait_until(lambda: printed() == "booted\nbroken\n", 10, "it boots")
    ec2.terminate_instances(InstanceIds=[instance])
    assert printed() == "booted\nbroken\n", "also after its end"


def test_swift_knows_no_users() -> None:
    with pytest.raises(ConfigError, match="s3=swift"):
        Cloud(s3="swift", iam=True)


def test_requests_and_answers_are_kept_without_signatures_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    with Cloud(record=True) as cloud:
        for name, value in cloud.environment({}).items():
            monkeypatch.setenv(name, value)
        cloud.make_bucket(BUCKET)
        boto3.Session().client("s3").put_object(Bucket=BUCKET, Key="x", Body=b"the body")
        boto3.Session().client("s3").get_object(Bucket=BUCKET, Key="x")["Body"].read()
        boto3.Session().client("ec2").run_instances(**RUN, UserData="told")
        kept = {path.name.split(".", 1)[1]: path.read_bytes() for path in cloud.requests.iterdir()}
        assert b"the body" in kept["s3.PutObject.request"]
        assert kept["s3.GetObject.answer"].endswith(b"the body")
        assert base64.b64encode(b"told").rstrip(b"=") in kept["ec2.RunInstances.request"]
        assert not any(b"Signature=" in data for data in kept.values())
        assert b"HTTP_USER_AGENT" in kept["ec2.RunInstances.request"]
