"""What launches need in an account, made once: a bucket, the hosts' role, a security group, the role of spot requests.

Every step can be done again: what is there stays, and what is somebody else's is left alone.
"""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from runctl.errors import NotAllowed, PlatformError
from runctl.platforms.aws import network, policies
from runctl.platforms.aws.choices import Choices
from runctl.platforms.aws.clients import DENIED, Clients, code_of, said, translated
from runctl.platforms.aws.place import SPOT_ROLE, SPOT_SERVICE, SSM_CORE, Place
from runctl.platforms.aws.requests import security_group

#: The names that `platform.instance_profile` and `platform.security_group` have if nothing is said.
ROLE = "runctl"
GROUP = "runctl"
#: What is answered where there is one already, which this user may not have been allowed to see. IAM's InvalidInput
#: is one of them for the role of spot requests alone, and says so.
_THERE = ("EntityAlreadyExists", "BucketAlreadyOwnedByYou", "InvalidGroup.Duplicate")
_TAKEN = "has been taken"
#: What is answered where there is nothing.
_NOTHING = ("404", "NoSuchEntity", "NoSuchBucket", "NoSuchPublicAccessBlockConfiguration")
_OTHER_BUCKET = "; somebody else has a bucket of that name: choose another with --bucket"
_PREFIX = "runs"
_RULES = (
    ("runctl-unfinished-uploads", f"{_PREFIX}/", {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}),
    ("runctl-sent-projects", f"{_PREFIX}/.parcels/", {"Expiration": {"Days": 30}}),
    ("runctl-environments", f"{_PREFIX}/.environments/", {"Expiration": {"Days": 60}}),
    # Inputs of a launcher's machine; one that was sent more than half of that ago is sent anew.
    ("runctl-sent-data", f"{_PREFIX}/.data/", {"Expiration": {"Days": 60}}),
)
#: A role that was only just made is not known everywhere yet.
_KNOWN_TRIES = 6
_PAUSE_S = 1.0


class State(str, Enum):
    """How a step came out."""

    THERE = "was there"
    MADE = "made"
    TO_MAKE = "to be made"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True)
class Step:
    """One thing that launches need.

    Attributes:
        what: it is.
        state: how it came out.
        why: what AWS said, if it is not there now.
    """

    what: str
    state: State
    why: str = ""


@dataclass(frozen=True)
class Identity:
    """Who asks, as AWS knows them."""

    account: str
    arn: str

    @property
    def partition(self) -> str:
        return self.arn.split(":")[1]


def identity(clients: Clients, region: str) -> Identity:
    """Whose credentials these are.

    Raises:
        ConfigError: without any.
        NotAllowed: if they are not good.
        PlatformError: if AWS does not answer.
    """
    clients.require_credentials()
    with translated("asking AWS whose credentials these are (sts:GetCallerIdentity)"):
        told = clients.sts(region).get_caller_identity()
    return Identity(told["Account"], told["Arn"])


class Account:
    """One account, in one region.

    Args:
        clients: AWS's clients.
        region: of the bucket and of launches.
        who: whose account it is.
        bucket: its name; None makes one from account and region, which nobody else can have taken.
    """

    def __init__(self, clients: Clients, region: str, who: Identity, bucket: str | None = None) -> None:
        self._clients = clients
        self._region = region
        self.choices = Choices(region, bucket or f"runctl-{who.account}-{region}")
        self.place = Place(who.account, self.choices.bucket, _PREFIX, ROLE, ROLE, who.partition)

    def steps(self, *, make: bool) -> Iterator[Step]:
        """Go through all that launches need, one after the other.

        Args:
            make: whether to make what is not there; else it is only said.
        """
        bucket, iam = self.choices.bucket, self._clients.iam()
        ec2 = self._clients.ec2(self._region)
        host = json.dumps(policies.host(self.place))
        trust = json.dumps(policies.host_trust(self.place))
        ssm = self.place.ssm_core_arn
        for right, what, there, work in (
            ("s3:CreateBucket", f"bucket {bucket}", self._has_bucket, self._make_bucket),
            ("s3:PutBucketPublicAccessBlock", f"bucket {bucket}: nobody else can read it", self._is_private,
             self._make_private),
            ("s3:PutLifecycleConfiguration",
             f"bucket {bucket}: unfinished uploads end after 7 days, sent projects after 30", self._has_rules,
             self._make_rules),
            ("iam:CreateRole", f"role {ROLE}", lambda: iam.get_role(RoleName=ROLE),
             lambda: iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=trust,
                                     Description="runctl: what a rented host may do",
                                     Tags=[{"Key": "CreatedBy", "Value": "runctl"}])),
            ("iam:AttachRolePolicy", f"role {ROLE}: {SSM_CORE}",
             lambda: any(one["PolicyArn"] == ssm
                         for one in iam.list_attached_role_policies(RoleName=ROLE)["AttachedPolicies"]),
             lambda: iam.attach_role_policy(RoleName=ROLE, PolicyArn=ssm)),
            ("iam:PutRolePolicy", f"role {ROLE}: s3://{bucket}/{_PREFIX}, parameters below /runctl",
             lambda: iam.get_role_policy(RoleName=ROLE, PolicyName=ROLE)["PolicyDocument"] == json.loads(host),
             lambda: iam.put_role_policy(RoleName=ROLE, PolicyName=ROLE, PolicyDocument=host)),
            ("iam:CreateInstanceProfile", f"instance profile {ROLE}",
             lambda: iam.get_instance_profile(InstanceProfileName=ROLE),
             lambda: iam.create_instance_profile(InstanceProfileName=ROLE)),
            ("iam:AddRoleToInstanceProfile and iam:PassRole", f"instance profile {ROLE}: its role",
             lambda: iam.get_instance_profile(InstanceProfileName=ROLE)["InstanceProfile"]["Roles"],
             lambda: iam.add_role_to_instance_profile(InstanceProfileName=ROLE, RoleName=ROLE)),
            ("iam:CreateServiceLinkedRole", "the role of spot requests", lambda: iam.get_role(RoleName=SPOT_ROLE),
             lambda: iam.create_service_linked_role(AWSServiceName=SPOT_SERVICE)),
            ("ec2:CreateSecurityGroup and ec2:CreateTags", f"security group {GROUP}, which lets nothing in",
             lambda: self._groups(ec2),
             lambda: ec2.create_security_group(**security_group(GROUP, getpass.getuser()))),
        ):  # fmt: skip
            yield self._step(right, what, there, work, make=make)

    def way_out(self) -> network.Network:
        """The default subnets of the region, and whether hosts there can be reached.

        Raises:
            RunctlError: as `network.look`.
        """
        return network.look(self._clients, self._region, ())

    def _step(self, right: str, what: str, there: Callable[[], Any], work: Callable[[], Any], *, make: bool) -> Step:
        """Look, and make it if it is not there; who may not look may still be allowed to make it."""
        from botocore.exceptions import BotoCoreError, ClientError

        unseen = ""
        try:
            if there():
                return Step(what, State.THERE)
        except (ClientError, BotoCoreError) as error:
            unseen = "" if code_of(error) in _NOTHING else said(error)
        if not make:
            return Step(what, State.REFUSED, unseen) if unseen else Step(what, State.TO_MAKE)
        try:
            with translated(what):
                self._made(work)
        except NotAllowed as error:
            # S3 refuses without naming the right.
            denied = code_of(error.__cause__ or error) in DENIED
            return Step(what, State.REFUSED, f"needs {right}" if denied else str(error).removeprefix(f"{what}: "))
        except PlatformError as error:
            if code_of(error.__cause__ or error) in _THERE or _TAKEN in str(error):
                return Step(what, State.THERE)
            why = str(error).removeprefix(f"{what}: ")
            return Step(what, State.FAILED, why + _OTHER_BUCKET * ("BucketAlreadyExists" in why))
        return Step(what, State.MADE)

    def _made(self, work: Callable[[], Any]) -> None:
        """Make something; what it builds on may have been made a moment ago and not be known yet."""
        from botocore.exceptions import ClientError

        for tried in range(_KNOWN_TRIES):
            try:
                work()
                return
            except ClientError as error:
                if code_of(error) != "NoSuchEntity" or tried == _KNOWN_TRIES - 1:
                    raise
                time.sleep(_PAUSE_S)

    def _has_bucket(self) -> bool:
        self._clients.s3(self._region).head_bucket(Bucket=self.choices.bucket)
        return True

    def _make_bucket(self) -> None:
        where = {"CreateBucketConfiguration": {"LocationConstraint": self._region}}
        self._clients.s3(self._region).create_bucket(
            Bucket=self.choices.bucket, **({} if self._region == "us-east-1" else where)
        )

    def _is_private(self) -> bool:
        told = self._clients.s3(self._region).get_public_access_block(Bucket=self.choices.bucket)
        return all(told["PublicAccessBlockConfiguration"].values())

    def _make_private(self) -> None:
        settings = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
        self._clients.s3(self._region).put_public_access_block(
            Bucket=self.choices.bucket, PublicAccessBlockConfiguration=dict.fromkeys(settings, True)
        )

    def _rules(self) -> list[dict[str, Any]]:
        """The rules that the bucket has."""
        from botocore.exceptions import ClientError

        try:
            told = self._clients.s3(self._region).get_bucket_lifecycle_configuration(Bucket=self.choices.bucket)
        except ClientError as error:
            if code_of(error) != "NoSuchLifecycleConfiguration":
                raise
            return []
        return list(told["Rules"])

    def _has_rules(self) -> bool:
        return {one.get("ID") for one in self._rules()} >= {name for name, _, _ in _RULES}

    def _make_rules(self) -> None:
        ours = [
            {"ID": name, "Status": "Enabled", "Filter": {"Prefix": prefix}, **what} for name, prefix, what in _RULES
        ]
        names = {one["ID"] for one in ours}
        theirs = [one for one in self._rules() if one.get("ID") not in names]
        self._clients.s3(self._region).put_bucket_lifecycle_configuration(
            Bucket=self.choices.bucket, LifecycleConfiguration={"Rules": [*theirs, *ours]}
        )

    def _groups(self, ec2: Any) -> list[dict[str, Any]]:
        named = [{"Name": "group-name", "Values": [GROUP]}]
        groups: list[dict[str, Any]] = ec2.describe_security_groups(Filters=named)["SecurityGroups"]
        return groups
