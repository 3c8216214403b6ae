"""The policies that are printed are enough for a whole launch, and none of their statements is too much."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from granted import PLACE, TOKEN, Granted, granted
from rehearsal import BUCKET, Launch

from runctl.drill.cloud import Cloud
from runctl.drill.metadata import LAUNCHER, SECRET
from runctl.errors import ConfigError, NotAllowed, StorageError
from runctl.platforms.aws import policies
from runctl.platforms.aws.account import Account, State, Step, identity
from runctl.platforms.aws.clients import Clients
from runctl.platforms.aws.policies import Place, Policy
from runctl.platforms.aws.requests import UNKNOWN
from runctl.spec import RunState

#: What a launch says that lacks a statement of the launcher's policy, and of the host's.
LAUNCHERS = {
    "LookAtEc2": "ec2:DescribeInstanceTypes",
    "LookAtPricesAndQuotas": "pricing:GetProducts",
    "LookForImages": "ssm:GetParameter",
    "LookAtHostProfile": "iam:GetInstanceProfile",
    "RentInstances": "ec2:RunInstances on resource: arn:aws:ec2:us-east-1:123456789012:instance/",
    "RentWithInstances": "ec2:RunInstances on resource: arn:aws:ec2:us-east-1:123456789012:volume/",
    "RentFrom": "ec2:RunInstances on resource: arn:aws:ec2:us-east-1::image/",
    "TagWhatIsMade": "ec2:CreateTags",
    "MakeSecurityGroup": "ec2:CreateSecurityGroup on resource: arn:aws:ec2:us-east-1:123456789012:security-group/",
    "MakeSecurityGroupIn": "ec2:CreateSecurityGroup on resource: arn:aws:ec2:us-east-1:123456789012:vpc/",
    "EndOwnInstances": "ec2:TerminateInstances",
    "GiveHostItsRole": "iam:PassRole",
    "MakeSpotRole": "iam:CreateServiceLinkedRole",
    "CommandByShell": "ssm:SendCommand on resource: arn:aws:ssm:us-east-1::document/",
    "CommandOwnInstances": "ssm:SendCommand on resource: arn:aws:ec2:us-east-1:123456789012:instance/",
    "FollowCommands": "ssm:DescribeInstanceInformation",
    "SendSecrets": "ssm:PutParameter",
    "UseRunDirectories": "s3:PutObject",
    "ListRunDirectories": "s3:ListBucket",
}
HOSTS = {
    "UseRunDirectories": "s3:GetObject",
    "ListRunDirectories": "s3:ListBucket",
    "FindUnfinishedUploads": "s3:ListBucketMultipartUploads",
    "TakeSecrets": "ssm:DeleteParameters",
}
#: Without these a run goes on, and says what it could not do: it is the account's owner who has to know.
GOES_ON = {"LookAtPricesAndQuotas", "LookAtHostProfile", "EndOwnInstances", "FindUnfinishedUploads", "TakeSecrets"}
#: One of each kind; `make soak` takes away every one.
SOME = {
    ("launcher", "RentInstances"), ("launcher", "CommandOwnInstances"), ("launcher", "UseRunDirectories"),
    ("host", "ListRunDirectories"),
}  # fmt: skip
LONGEST = Place("123456789012", "b" * 63, "p" * 200, profile="i" * 64, role="r" * 64, partition="aws-us-gov")


@pytest.mark.parametrize("made", [policies.launcher, policies.host, policies.setup, policies.cleanup])
def test_a_policy_is_small_enough_and_its_statements_have_names(made: Any) -> None:
    policy = made(LONGEST)
    assert policies.size_chars(policy) <= policies.MANAGED_CHARS
    names = [one["Sid"] for one in policy["Statement"]]
    assert len(set(names)) == len(names)
    assert all(name.isalnum() for name in names), "IAM takes nothing else"


def test_nothing_is_allowed_everywhere_that_changes_anything() -> None:
    wide = [one for one in policies.launcher(LONGEST)["Statement"] if one["Resource"] == ["*"]]
    actions = [action.split(":")[1] for one in wide for action in one["Action"]]
    assert actions
    assert [action for action in actions if not action.startswith(("Describe", "Get"))] == []


def test_a_whole_bucket_of_runs_needs_no_prefix() -> None:
    statements = {one["Sid"]: one for one in policies.host(Place("123456789012", "bucket", "/"))["Statement"]}
    assert statements["UseRunDirectories"]["Resource"] == ["arn:aws:s3:::bucket/*"]
    assert "Condition" not in statements["ListRunDirectories"]


def test_another_part_of_aws_has_names_of_its_own() -> None:
    china = Place("123456789012", "bucket", "runs", partition="aws-cn")
    text = str([made(china) for made in (policies.launcher, policies.host, policies.setup, policies.cleanup)])
    assert "arn:aws:" not in text
    assert policies.host_trust(china)["Statement"][0]["Principal"] == {"Service": "ec2.amazonaws.com.cn"}
    assert policies.HOST_TRUST["Statement"][0]["Principal"] == {"Service": "ec2.amazonaws.com"}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"account": "12345"}, "account=12345"),
        ({"bucket": "Not_One"}, "bucket=Not_One"),
        ({"prefix": "runs/*"}, "prefix=runs/*"),
        ({"role": "two words"}, "role=two words"),
        ({"partition": "azure"}, "partition=azure"),
    ],
)
def test_what_would_mean_something_else_in_a_policy_is_refused(wrong: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError) as error:
        Place(**{"account": "123456789012", "bucket": "bucket", **wrong})
    assert why in str(error.value)


# --- enough for a whole launch, and no statement too much ---


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Granted]:
    with granted(tmp_path_factory.mktemp("rights")) as made:
        yield made


def without(policy: Policy, sid: str) -> Policy:
    return {**policy, "Statement": [one for one in policy["Statement"] if one["Sid"] != sid]}


def removals() -> Iterator[Any]:
    for whose, named in (("launcher", LAUNCHERS), ("host", HOSTS)):
        for sid in named:
            marks = () if (whose, sid) in SOME else pytest.mark.soak
            yield pytest.param(whose, sid, named[sid], id=f"{whose}-{sid}", marks=marks)


def everything_said(launch: Launch) -> str:
    reason = launch.outcome.reason if launch.outcome is not None else ""
    return "\n".join([str(launch.error or ""), reason, *launch.told, *launch.notes, launch.output])


def test_every_statement_is_taken_away_once() -> None:
    assert set(LAUNCHERS) == {one["Sid"] for one in policies.launcher(PLACE)["Statement"]}
    assert set(HOSTS) == {one["Sid"] for one in policies.host(PLACE)["Statement"]}


@pytest.mark.slow
def test_they_carry_a_launch_with_a_secret_and_an_interruption_to_its_end(account: Granted) -> None:
    account.forget()
    account.grant(policies.launcher(PLACE), policies.host(PLACE))
    launch = account.launch(interrupted=True)
    assert launch.error is None, launch.error
    assert launch.outcome is not None
    assert launch.outcome.state is RunState.SUCCEEDED, everything_said(launch)
    assert [one.state for one in launch.outcome.attempts] == [RunState.INTERRUPTED, RunState.SUCCEEDED]
    assert launch.outcome.resumed_from_step == 1
    assert not [note for note in launch.notes if note.startswith(UNKNOWN)], "prices and quotas are known"
    # The bucket as a whole is nobody's to list; where it lies, its refusal tells.
    refused = [one for one in account.aws.cloud.denied() if launch.run_id not in one["resource"]]
    assert {(one["action"], one["resource"]) for one in refused} <= {("s3:ListBucket", f"arn:aws:s3:::{BUCKET}")}
    assert "right" not in launch.output
    assert account.parameters() == []
    launch.check_that_nothing_is_left()


@pytest.mark.parametrize(("whose", "sid", "right"), list(removals()))
def test_without_one_statement_it_breaks_and_names_the_right(
    account: Granted, whose: str, sid: str, right: str
) -> None:
    account.forget()
    launcher, host = policies.launcher(PLACE), policies.host(PLACE)
    account.grant(
        without(launcher, sid) if whose == "launcher" else launcher, without(host, sid) if whose == "host" else host
    )
    launch = account.launch(bring_up="20s", max_attempts=1)
    text = everything_said(launch)
    assert right in text, text
    assert "Traceback" not in text
    assert TOKEN not in text
    assert launch.error is None or isinstance(launch.error, (NotAllowed, StorageError)), repr(launch.error)
    succeeded = launch.outcome is not None and launch.outcome.state is RunState.SUCCEEDED
    assert succeeded is (sid in GOES_ON), text
    launch.check_that_nothing_is_left()


@pytest.mark.soak
def test_a_host_whose_agent_may_not_speak_with_ssm_is_given_back(account: Granted) -> None:
    account.forget()
    account.grant(policies.launcher(PLACE), policies.host(PLACE), speaks_with_ssm=False)
    launch = account.launch(bring_up="5s", max_attempts=1)
    assert "AmazonSSMManagedInstanceCore (ssm:UpdateInstanceInformation)" in everything_said(launch)
    launch.check_that_nothing_is_left()


# --- what is not runctl's stays out of reach ---


@pytest.fixture
def mine(account: Granted) -> Callable[[str], Any]:
    """Clients of the user's, who has the launcher's rights."""
    import boto3

    account.grant(policies.launcher(PLACE), policies.host(PLACE))
    return boto3.Session().client


@contextlib.contextmanager
def refused(right: str) -> Iterator[None]:
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as error:
        yield
    said = error.value.response["Error"]
    assert said["Code"] in ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException"), said
    assert right in said["Message"] or said["Message"] == "Access Denied", said


RUN = {"ImageId": "ami-04681a1dbd79675a5", "InstanceType": "t3.medium", "MinCount": 1, "MaxCount": 1}
TOKENS = {"MetadataOptions": {"HttpTokens": "required"}}


def tagged(*kinds: str) -> dict[str, Any]:
    tags = [{"Key": "runctl:owner", "Value": "ada"}, {"Key": "CreatedBy", "Value": "runctl"}]
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in kinds]}


OURS = tagged("instance", "volume", "network-interface")


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({**OURS}, "instance/"),
        ({**TOKENS}, "instance/"),
        ({**TOKENS, **tagged("instance")}, "volume/"),
        ({**TOKENS, **OURS, "IamInstanceProfile": {"Name": "administrator"}}, "iam:PassRole"),
    ],
    ids=["without tokens", "of nobody", "a disk of nobody", "with another role"],
)
def test_nothing_can_be_rented_that_runctl_would_not(account: Granted, mine: Any, asked: Any, why: str) -> None:
    with contextlib.suppress(account.iam.exceptions.EntityAlreadyExistsException):
        account.iam.create_role(RoleName="administrator", AssumeRolePolicyDocument=json.dumps(policies.HOST_TRUST))
        account.iam.create_instance_profile(InstanceProfileName="administrator")
        account.iam.add_role_to_instance_profile(InstanceProfileName="administrator", RoleName="administrator")
    with refused(why):
        mine("ec2").run_instances(**RUN, **asked)


def test_what_runctl_would_rent_can_be_tried_and_costs_nothing(mine: Any) -> None:
    ec2 = mine("ec2")
    with pytest.raises(ec2.exceptions.ClientError, match="DryRunOperation"):
        ec2.run_instances(**RUN, **TOKENS, **OURS, IamInstanceProfile={"Name": PLACE.profile}, DryRun=True)


def test_instances_of_others_can_be_neither_ended_nor_told_nor_claimed(account: Granted, mine: Any) -> None:
    theirs = account.root("ec2").run_instances(**RUN)["Instances"][0]["InstanceId"]
    try:
        with refused("ec2:TerminateInstances"):
            mine("ec2").terminate_instances(InstanceIds=[theirs])
        with refused("ec2:GetConsoleOutput"):
            mine("ec2").get_console_output(InstanceId=theirs)
        with refused("ec2:CreateTags"):
            mine("ec2").create_tags(Resources=[theirs], Tags=[{"Key": "CreatedBy", "Value": "runctl"}])
        with refused("ssm:SendCommand"):
            mine("ssm").send_command(
                InstanceIds=[theirs], DocumentName="AWS-RunShellScript", Parameters={"commands": ["id"]}
            )
    finally:
        account.root("ec2").terminate_instances(InstanceIds=[theirs])


def test_only_the_prefix_of_runs_is_read_and_written(account: Granted, mine: Any) -> None:
    account.root("s3").put_object(Bucket=BUCKET, Key="payroll.csv", Body=b"secret")
    s3 = mine("s3")
    with refused("s3:GetObject"):
        s3.get_object(Bucket=BUCKET, Key="payroll.csv")
    with refused("s3:PutObject"):
        s3.put_object(Bucket=BUCKET, Key="runs-of-others/x", Body=b"")
    for listed in ({}, {"Prefix": ""}, {"Prefix": "pay"}):
        with refused("s3:ListBucket"):
            s3.list_objects_v2(Bucket=BUCKET, **listed)
    s3.put_object(Bucket=BUCKET, Key="runs/x", Body=b"1")
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="runs/")["KeyCount"] >= 1


def test_parameters_of_others_and_the_runs_own_secrets_are_not_read_by_a_launcher(account: Granted, mine: Any) -> None:
    for name in ("/team/token", "/runctl/x/a1/TOKEN"):
        account.root("ssm").put_parameter(Name=name, Value="x", Type="SecureString", Overwrite=True)
        with refused("ssm:GetParameter"):
            mine("ssm").get_parameter(Name=name, WithDecryption=True)
    with refused("ssm:PutParameter"):
        mine("ssm").put_parameter(Name="/team/token", Value="mine", Type="SecureString", Overwrite=True)
    account.root("ssm").delete_parameters(Names=["/team/token", "/runctl/x/a1/TOKEN"])


def test_the_hosts_profile_is_looked_at_and_no_other(mine: Any, account: Granted) -> None:
    iam = mine("iam")
    assert iam.get_instance_profile(InstanceProfileName=PLACE.profile)["InstanceProfile"]["Roles"]
    with refused("iam:GetInstanceProfile"):
        iam.get_instance_profile(InstanceProfileName="another")
    account.grant(without(policies.launcher(PLACE), "LookAtHostProfile"), policies.host(PLACE))
    with refused(LAUNCHERS["LookAtHostProfile"]):
        iam.get_instance_profile(InstanceProfileName=PLACE.profile)


# --- setting an account up ---

#: What is refused, and named, without a statement of the policy to set an account up.
SETUP = {
    "MakeBucket": "s3:CreateBucket", "MakeHostRole": "iam:CreateRole", "LetHostSpeakWithSsm": "iam:AttachRolePolicy",
    "MakeHostProfile": "iam:CreateInstanceProfile", "GiveHostItsRole": "iam:PassRole",
    "MakeSpotRole": "iam:CreateServiceLinkedRole", "LookAtNetwork": "ec2:DescribeSubnets",
    "MakeSecurityGroup": "ec2:CreateSecurityGroup", "MakeSecurityGroupIn": "ec2:CreateSecurityGroup",
    "TagWhatIsMade": "ec2:CreateTags",
}  # fmt: skip


@contextlib.contextmanager
def stranger(*, without_sid: str | None) -> Iterator[Any]:
    """Clients of a user in a new account, who may set it up but for one statement."""
    import boto3

    with Cloud(iam=True) as cloud, pytest.MonkeyPatch.context() as patch:
        for name, value in cloud.environment({}).items():
            patch.setenv(name, value)
        iam = boto3.Session(LAUNCHER, SECRET, region_name="us-east-1").client("iam")
        iam.create_user(UserName="ada")
        rights = policies.setup(Place("123456789012", "new-bucket", "runs"))
        given = rights if without_sid is None else without(rights, without_sid)
        iam.put_user_policy(UserName="ada", PolicyName="setup", PolicyDocument=json.dumps(given))
        key = iam.create_access_key(UserName="ada")["AccessKey"]
        patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        yield boto3.Session().client


def set_up() -> tuple[list[Step], str]:
    """What `runctl aws setup` does, and what it says of the network."""
    clients = Clients()
    account = Account(clients, "us-east-1", identity(clients, "us-east-1"), "new-bucket")
    steps = list(account.steps(make=True))
    try:
        return steps, str(account.way_out().unknown or "")
    except NotAllowed as error:
        return steps, str(error)


def test_the_policy_to_set_an_account_up_is_enough_and_changes_nothing_else() -> None:
    with stranger(without_sid=None) as client:
        steps, unknown = set_up()
        assert {step.state for step in steps} == {State.MADE}, steps
        assert unknown == ""
        again, _ = set_up()
        assert {step.state for step in again} == {State.THERE}, again
        with refused("iam:AttachRolePolicy"):
            client("iam").attach_role_policy(RoleName="runctl", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
        with refused("iam:PutRolePolicy"):
            client("iam").put_role_policy(RoleName="another", PolicyName="more", PolicyDocument="{}")
        with refused("s3:PutBucketPolicy"):
            client("s3").put_bucket_policy(Bucket="new-bucket", Policy="{}")
        with refused("s3:GetObject"):
            client("s3").get_object(Bucket="new-bucket", Key="runs/x")
        with refused("ec2:RunInstances"):
            client("ec2").run_instances(**RUN)


@pytest.mark.parametrize(
    "sid", [one if one == "GiveHostItsRole" else pytest.param(one, marks=pytest.mark.soak) for one in SETUP]
)
def test_without_one_statement_an_account_is_not_set_up_and_the_right_is_named(sid: str) -> None:
    assert set(SETUP) == {one["Sid"] for one in policies.setup(PLACE)["Statement"]}
    with stranger(without_sid=sid):
        steps, network = set_up()
    text = "\n".join(step.why for step in steps if step.state in (State.REFUSED, State.FAILED)) + network
    assert SETUP[sid] in text, (steps, network)
