"""The rights that a launch needs, as IAM policies: the launcher's, the host's, and those to set an account up (pure).

Each is the least that carries it (tests/platforms/aws/test_policies.py takes the statements away one by one). Which
conditions an action takes: docs.aws.amazon.com/service-authorization/latest/reference, the pages of EC2, Systems
Manager, S3 and IAM. `sts:GetCallerIdentity` needs no right. The key `aws/ssm`, with which SSM encrypts what is not
told another, serves everybody who may use SSM, by its own policy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from runctl.platforms.aws.place import SPOT_SERVICE, SSM_CORE, Place
from runctl.platforms.aws.requests import TAG_DEADLINE, TAG_OWNER

__all__ = ["HOST_TRUST", "SSM_CORE", "Place", "cleanup", "host", "host_trust", "launcher", "setup", "size_chars"]

Policy = dict[str, Any]

#: What IAM takes of a managed policy, in characters without white space
#: (docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html).
MANAGED_CHARS = 6_144
#: By which we know what is ours; every resource carries it from the call that makes it.
_OURS = {"CreatedBy": "runctl"}
_NETWORK = ("RouteTables", "SecurityGroups", "Subnets", "VpcEndpoints")
_LOOKED_AT = ("Images", "InstanceTypeOfferings", "InstanceTypes", "Instances", "SpotPriceHistory", *_NETWORK)
_MAKES = ("instance", "volume", "network-interface", "spot-instances-request")
#: Objects as a run writes and reads them: whole or in parts, and what is no longer needed goes.
_OBJECTS = ("GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload")


def launcher(place: Place) -> Policy:
    """What whoever launches needs: `runctl-launch +platform=aws`, and then `runctl ps`, `logs`, `stop`, `resume`.

    Args:
        place: for which account.

    Returns:
        A policy of at most MANAGED_CHARS characters, for a managed policy of a group, a role or a permission set.
    """
    ec2 = _Ec2(place)
    return _policy(
        # What there is to rent, and what has become of it. EC2 knows no narrower resource for these.
        _allow("LookAtEc2", [f"ec2:Describe{what}" for what in _LOOKED_AT]),
        # Without it prices on demand and quotas are unknown, and a launch finds out what it may rent by trying.
        _allow("LookAtPricesAndQuotas", ["pricing:GetProducts", "servicequotas:GetServiceQuota"]),
        # Which image is the newest: AWS's own public parameters.
        _allow(
            "LookForImages",
            ["ssm:GetParameter"],
            [place.arn("ssm", "parameter/aws/service/*", region="*", account="")],
        ),
        # Whether the profile of hosts is there, before anything is rented; for the doctor, spot's own role too.
        _allow(
            "LookAtHostProfile",
            ["iam:GetInstanceProfile", "iam:GetRole"],
            [place.profile_arn, place.spot_role_arn],
        ),
        # Everything that is made says whose it is; and its metadata answers to nobody without a token.
        _allow(
            "RentInstances",
            ["ec2:RunInstances"],
            [ec2.own("instance")],
            {"Null": _tagged_with_owner(), "StringEquals": {"ec2:MetadataHttpTokens": "required"}},
        ),
        _allow(
            "RentWithInstances",
            ["ec2:RunInstances"],
            [ec2.own(kind) for kind in _MAKES if kind != "instance"],
            {"Null": _tagged_with_owner()},
        ),
        # What an instance is launched from and into. A subnet may be another account's, who shares it.
        _allow("RentFrom", ["ec2:RunInstances"], [ec2.public("image"), ec2.any("subnet"), ec2.any("security-group")]),
        # Tags when something is made, and never afterwards: who could tag anything could end anything.
        _allow(
            "TagWhatIsMade",
            ["ec2:CreateTags"],
            [ec2.own("*")],
            {"StringEquals": {"ec2:CreateAction": ["RunInstances", "CreateSecurityGroup"]}},
        ),
        # The group without any way in, where it is not there yet. (The default network is authorised of itself.)
        *_security_group(ec2),
        # Ours alone: the instance to end, and what it printed when it could not be brought up.
        _allow(
            "EndOwnInstances",
            ["ec2:TerminateInstances", "ec2:GetConsoleOutput"],
            [ec2.own("instance")],
            {"StringEquals": {f"ec2:ResourceTag/{key}": value for key, value in _OURS.items()}},
        ),
        # The host gets this one role, and it is given to EC2 alone.
        _give_role(place),
        # The first spot instance of an account makes this role, which is EC2's own.
        _make_spot_role(place),
        # One document, and our instances alone.
        _allow(
            "CommandByShell",
            ["ssm:SendCommand"],
            [place.arn("ssm", "document/AWS-RunShellScript", region="*", account="")],
        ),
        _allow(
            "CommandOwnInstances",
            ["ssm:SendCommand"],
            [ec2.own("instance")],
            {"StringEquals": {f"ssm:resourceTag/{key}": value for key, value in _OURS.items()}},
        ),
        # SSM knows no narrower resource for these.
        _allow("FollowCommands", ["ssm:DescribeInstanceInformation", "ssm:GetCommandInvocation"]),
        # Secrets on their way to a host, each below its run's own path; they are written here and never read.
        _allow(
            "SendSecrets",
            ["ssm:PutParameter", "ssm:AddTagsToResource", "ssm:DeleteParameters"],
            [place.parameters_arn],
        ),
        *_run_directories(place),
    )


def host(place: Place) -> Policy:
    """What a host's role needs besides the managed policy SSM_CORE.

    Secrets that are kept elsewhere (`ssm:/team/token`, `secretsmanager:team/token`) need a right of their own:
    `ssm:GetParameter` comes with SSM_CORE, for every parameter; `secretsmanager:GetSecretValue` does not.

    Args:
        place: for which account.
    """
    return _policy(
        *_run_directories(place),
        # Parts of uploads that were never finished, of a host that was taken back: they would be billed.
        _allow("FindUnfinishedUploads", ["s3:ListBucketMultipartUploads"], [place.bucket_arn]),
        # A secret of the launcher's is deleted as soon as it has been read.
        _allow(
            "TakeSecrets", ["ssm:GetParameter", "ssm:GetParameters", "ssm:DeleteParameters"], [place.parameters_arn]
        ),
    )


def cleanup(place: Place) -> Policy:
    """What `runctl cleanup` needs besides the launcher's policy, and `runctl extend` to write down a new deadline.

    Args:
        place: for which account.
    """
    ec2 = _Ec2(place)
    ours = {f"aws:ResourceTag/{key}": value for key, value in _OURS.items()}
    return _policy(
        # In which regions something may lie, and what. EC2 and SSM know no narrower resource for these.
        _allow("LookForLeftovers", ["ec2:DescribeRegions", "ec2:DescribeVolumes", "ssm:DescribeParameters"]),
        _allow("FindUnfinishedUploads", ["s3:ListBucketMultipartUploads"], [place.bucket_arn]),
        # Ours alone. Instances, parameters and uploads the launcher's policy lets end.
        _allow(
            "EndOwnLeftovers",
            ["ec2:DeleteVolume", "ec2:DeleteSecurityGroup"],
            [ec2.own("volume"), ec2.own("security-group")],
            {"StringEquals": ours},
        ),
        # Of the tags of our own instances that one.
        _allow(
            "TellNewDeadline",
            ["ec2:CreateTags"],
            [ec2.own("instance")],
            {"StringEquals": ours, "ForAllValues:StringEquals": {"aws:TagKeys": [TAG_DEADLINE]}},
        ),
    )


def host_trust(place: Place) -> Policy:
    """Who may take the host's role on: an EC2 instance."""
    trusted = {"Effect": "Allow", "Principal": {"Service": place.ec2_service}, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [trusted]}


#: Of an account in AWS's ordinary partition.
HOST_TRUST = host_trust(Place("000000000000", "any-bucket"))


def setup(place: Place) -> Policy:
    """What whoever sets an account up needs, once: `runctl aws setup`.

    Args:
        place: what is to be made: bucket, role and profile are named, and nothing else may be changed.
    """
    ec2 = _Ec2(place)
    makes_bucket = (
        "CreateBucket",
        "ListBucket",
        "GetBucketPublicAccessBlock",
        "PutBucketPublicAccessBlock",
        "GetLifecycleConfiguration",
        "PutLifecycleConfiguration",
    )
    makes_role = ("GetRole", "CreateRole", "TagRole", "GetRolePolicy", "PutRolePolicy", "ListAttachedRolePolicies")
    makes_profile = ("GetInstanceProfile", "CreateInstanceProfile", "AddRoleToInstanceProfile")
    return _policy(
        # The bucket: private, and rid of unfinished uploads. What lies in it is none of the setup's business.
        _allow("MakeBucket", [f"s3:{one}" for one in makes_bucket], [place.bucket_arn]),
        # The role of the host, with its own policy in it.
        _allow("MakeHostRole", [f"iam:{one}" for one in makes_role], [place.role_arn]),
        # Of managed policies that one alone: whoever could attach any could make itself an administrator.
        _allow(
            "LetHostSpeakWithSsm",
            ["iam:AttachRolePolicy"],
            [place.role_arn],
            {"ArnEquals": {"iam:PolicyARN": place.ssm_core_arn}},
        ),
        _allow("MakeHostProfile", [f"iam:{one}" for one in makes_profile], [place.profile_arn]),
        # A role goes into a profile only for whoever may hand it to EC2.
        _give_role(place),
        _make_spot_role(place),
        _allow("LookAtNetwork", [f"ec2:Describe{what}" for what in _NETWORK]),
        *_security_group(ec2),
        _allow(
            "TagWhatIsMade",
            ["ec2:CreateTags"],
            [ec2.own("security-group")],
            {"StringEquals": {"ec2:CreateAction": "CreateSecurityGroup"}},
        ),
    )


def size_chars(policy: Policy) -> int:
    """A policy's size as IAM reckons it: without white space."""
    return len(json.dumps(policy, separators=(",", ":")))


@dataclass(frozen=True)
class _Ec2:
    """Names of EC2's resources in any region."""

    place: Place

    def own(self, kind: str) -> str:
        return self.place.arn("ec2", f"{kind}/*" if kind != "*" else "*/*", region="*")

    def any(self, kind: str) -> str:
        return self.place.arn("ec2", f"{kind}/*", region="*", account="*")

    def public(self, kind: str) -> str:
        """Images belong to no account in their names."""
        return self.place.arn("ec2", f"{kind}/*", region="*", account="")


def _run_directories(place: Place) -> tuple[dict[str, Any], ...]:
    """Objects below the prefix and nothing beside it; and their names, which are a right on the bucket."""
    below = [place.prefix, f"{place.prefix}/*"]
    return (
        _allow("UseRunDirectories", [f"s3:{one}" for one in _OBJECTS], [place.objects_arn]),
        _allow(
            "ListRunDirectories",
            ["s3:ListBucket"],
            [place.bucket_arn],
            {"StringLike": {"s3:prefix": below}} if place.prefix else None,
        ),
    )


def _give_role(place: Place) -> dict[str, Any]:
    """The host's role and no other, to EC2 alone."""
    to_ec2 = {"StringEquals": {"iam:PassedToService": place.ec2_service}}
    return _allow("GiveHostItsRole", ["iam:PassRole"], [place.role_arn], to_ec2)


def _make_spot_role(place: Place) -> dict[str, Any]:
    """EC2's own role for spot instances, once in an account's life."""
    for_spot = {"StringEquals": {"iam:AWSServiceName": SPOT_SERVICE}}
    return _allow("MakeSpotRole", ["iam:CreateServiceLinkedRole"], [place.spot_role_arn], for_spot)


def _security_group(ec2: _Ec2) -> tuple[dict[str, Any], ...]:
    """A group that says whose it is, in any network of the account."""
    return (
        _allow(
            "MakeSecurityGroup",
            ["ec2:CreateSecurityGroup"],
            [ec2.own("security-group")],
            {"Null": _tagged_with_owner()},
        ),
        _allow("MakeSecurityGroupIn", ["ec2:CreateSecurityGroup"], [ec2.any("vpc")]),
    )


def _tagged_with_owner() -> dict[str, str]:
    """For `Null`: the request gives what it makes an owner."""
    return {f"aws:RequestTag/{TAG_OWNER}": "false"}


def _policy(*statements: dict[str, Any]) -> Policy:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _allow(
    sid: str, actions: list[str], resources: list[str] | None = None, condition: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": actions,
        "Resource": resources or ["*"],
        **({} if condition is None else {"Condition": condition}),
    }
