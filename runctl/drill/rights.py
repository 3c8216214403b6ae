"""Which rights a request needs: the actions, on which resources, with what conditions can look at.

Source: docs.aws.amazon.com/service-authorization/latest/reference; RunInstances asks for each resource by itself, for
the tags of what it makes, and for the role that it hands on (EC2 user guide, "Example policies to control access").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from runctl.drill.callers import SPOT_ROLE, role_names, roles_of
from runctl.drill.ec2 import ACCOUNT
from runctl.drill.request import Request

_SPOT = "spot.amazonaws.com"
#: EC2's actions on what exists already: by what kind of resource, and which argument names it.
_EC2_ON = {
    "DeleteVolume": ("volume", "VolumeId"),
    **dict.fromkeys(
        ("TerminateInstances", "StopInstances", "StartInstances", "RebootInstances", "GetConsoleOutput"),
        ("instance", "InstanceId"),
    ),
    **dict.fromkeys(
        ("DeleteSecurityGroup", "AuthorizeSecurityGroupIngress", "AuthorizeSecurityGroupEgress",
         "RevokeSecurityGroupIngress", "RevokeSecurityGroupEgress"),
        ("security-group", "GroupId"),
    ),
}  # fmt: skip
_KINDS = {"i": "instance", "vol": "volume", "eni": "network-interface", "sg": "security-group", "subnet": "subnet",
          "sir": "spot-instances-request", "vpc": "vpc", "ami": "image"}  # fmt: skip
#: S3's rights, where they are not called as the request is.
_S3_RIGHTS = {
    "HeadObject": "GetObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "ListParts": "ListMultipartUploadParts",
    "DeleteObjects": "DeleteObject",
    "HeadBucket": "ListBucket",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
}


@dataclass(frozen=True)
class Need:
    """One right.

    Attributes:
        action: such as `ec2:RunInstances`.
        resource: on what; `*` where there is no narrower one.
        context: what conditions can look at, by key in small letters.
    """

    action: str
    resource: str = "*"
    context: dict[str, list[str]] = field(default_factory=dict)


def needs(request: Request) -> list[Need]:
    """All rights that a request needs; none for what everybody may."""
    of = {"ec2": _ec2, "ssm": _ssm, "s3": _s3, "iam": _iam, "sts": _sts, "secretsmanager": _secrets}
    default = f"{request.service}:{request.action}"
    return list(of.get(request.service, lambda _: iter([Need(default)]))(request))


def listing(bucket: str, prefix: str | None) -> Need:
    """The right to see names. Whoever lacks it is not told either that there is no object of a name."""
    return Need("s3:ListBucket", f"arn:aws:s3:::{bucket}", {} if prefix is None else {"s3:prefix": [prefix]})


def _ec2(request: Request) -> Iterator[Need]:
    action, form, region = f"ec2:{request.action}", request.form, request.region
    if request.action == "RunInstances":
        yield from _run_instances(request)
    elif request.action == "CreateSecurityGroup":
        tagged = _tag_specifications(form)
        yield Need(action, _ec2_arn(region, "security-group"), _asked(tagged.get("security-group", {})))
        vpc = form.get("VpcId") or str(_ec2_backend(region).default_vpc.id)
        yield Need(action, _ec2_arn(region, "vpc", vpc), _tags_of(region, vpc))
        yield from _create_tags(request, tagged)
    elif request.action in ("CreateTags", "DeleteTags"):
        tags = _tags(form, "Tag")
        for name in _numbered(form, "ResourceId"):
            kind = _KINDS.get(name.split("-")[0], name.split("-")[0])
            yield Need(action, _ec2_arn(region, kind, name), {**_asked(tags), **_tags_of(region, name)})
    elif request.action in _EC2_ON:
        kind, argument = _EC2_ON[request.action]
        for name in _numbered(form, argument) or ["*"]:
            yield Need(action, _ec2_arn(region, kind, name), _tags_of(region, name))
    else:
        yield Need(action)


def _run_instances(request: Request) -> Iterator[Need]:
    form, region, action = request.form, request.region, "ec2:RunInstances"
    tagged = _tag_specifications(form)
    spot = request.market == "spot"
    profile = form.get("IamInstanceProfile.Name") or form.get("IamInstanceProfile.Arn") or ""
    common = {
        "ec2:instancemarkettype": ["spot" if spot else "on-demand"],
        "ec2:instancetype": [form.get("InstanceType", "")],
        "aws:requestedregion": [region],
    }
    tokens = {"ec2:metadatahttptokens": [form.get("MetadataOptions.HttpTokens", "optional")]}
    for kind in ("instance", "volume", "network-interface", *(["spot-instances-request"] if spot else [])):
        more = tokens if kind == "instance" else {}
        yield Need(action, _ec2_arn(region, kind), {**common, **more, **_asked(tagged.get(kind, {}))})
    image = form.get("ImageId", "*")
    yield Need(action, f"arn:aws:ec2:{region}::image/{image}", {**common, **_tags_of(region, image)})
    subnet = form.get("SubnetId") or "subnet-default"
    yield Need(action, _ec2_arn(region, "subnet", subnet), {**common, **_tags_of(region, subnet)})
    for group in _numbered(form, "SecurityGroupId") or ["sg-default"]:
        yield Need(action, _ec2_arn(region, "security-group", group), {**common, **_tags_of(region, group)})
    if key := form.get("KeyName"):
        yield Need(action, _ec2_arn(region, "key-pair", key), common)
    yield from _create_tags(request, tagged)
    for role in roles_of(profile):
        yield Need("iam:PassRole", str(role.arn), {"iam:passedtoservice": ["ec2.amazonaws.com"]})
    if spot and SPOT_ROLE not in role_names():
        yield _linked_role(_SPOT)


def _create_tags(request: Request, tagged: dict[str, dict[str, str]]) -> Iterator[Need]:
    for kind, tags in tagged.items():
        made = {"ec2:createaction": [request.action], **_asked(tags)}
        yield Need("ec2:CreateTags", _ec2_arn(request.region, kind), made)


def _ssm(request: Request) -> Iterator[Need]:
    asked, action, region = json.loads(request.body or b"{}"), f"ssm:{request.action}", request.region
    if request.action == "SendCommand":
        yield Need(action, f"arn:aws:ssm:{region}::document/{asked['DocumentName']}")
        for name in asked.get("InstanceIds", []):
            told = _tags_of(region, name)
            of_ssm = {key.replace("ec2:resourcetag/", "ssm:resourcetag/"): value for key, value in told.items()}
            yield Need(action, _ec2_arn(region, "instance", name), {**told, **of_ssm})
        return
    names = asked.get("Names") or [asked[key] for key in ("Name", "ResourceId") if key in asked]
    if not names or ("Parameter" not in request.action and request.action != "AddTagsToResource"):
        yield Need(action)
        return
    tags = {one["Key"]: one["Value"] for one in asked.get("Tags", [])}
    for name in names:
        account = "" if name.startswith("/aws/service/") else ACCOUNT
        resource = f"arn:aws:ssm:{region}:{account}:parameter/{name.lstrip('/')}"
        yield Need(action, resource, _asked(tags))
        if tags and request.action == "PutParameter":
            yield Need("ssm:AddTagsToResource", resource, _asked(tags))


def _s3(request: Request) -> Iterator[Need]:
    right = f"s3:{_S3_RIGHTS.get(request.action, request.action)}"
    bucket = f"arn:aws:s3:::{request.bucket}"
    if right == "s3:ListBucket":
        yield listing(request.bucket, request.query.get("prefix"))
    elif request.action == "DeleteObjects":
        for key in re.findall(r"<Key>(.*?)</Key>", request.read().decode(errors="replace"), re.S):
            yield Need(right, f"{bucket}/{key}")
    elif request.object_key:
        yield Need(right, f"{bucket}/{request.object_key}")
    else:
        yield Need(right, bucket)


def _iam(request: Request) -> Iterator[Need]:
    form, action = request.form, f"iam:{request.action}"
    if request.action == "CreateServiceLinkedRole":
        yield _linked_role(form.get("AWSServiceName", ""))
        return
    role = f"arn:aws:iam::{ACCOUNT}:role/{_path(form)}"
    if profile := form.get("InstanceProfileName"):
        yield Need(action, f"arn:aws:iam::{ACCOUNT}:instance-profile/{profile}")
        if request.action == "AddRoleToInstanceProfile":
            yield Need("iam:PassRole", role, {"iam:passedtoservice": ["ec2.amazonaws.com"]})
        return
    policy = {"iam:policyarn": [form["PolicyArn"]]} if "PolicyArn" in form else {}
    for argument, kind in (
        ("RoleName", "role"),
        ("UserName", "user"),
        ("GroupName", "group"),
        ("PolicyName", "policy"),
    ):
        if argument in form:
            name = role if kind == "role" else f"arn:aws:iam::{ACCOUNT}:{kind}/{form[argument]}"
            yield Need(action, name, {**policy, **_asked(_tags(form, "Tags.member"))})
            return
    yield Need(action, form.get("PolicyArn", "*"))


def _path(form: dict[str, str]) -> str:
    """A role with its path, which is part of its name."""
    name = form.get("RoleName", "*")
    return f"aws-service-role/{_SPOT}/{name}" if name == SPOT_ROLE else name


def _sts(request: Request) -> Iterator[Need]:
    if request.action != "GetCallerIdentity":  # which everybody may, whatever is denied
        yield Need(f"sts:{request.action}", request.form.get("RoleArn", "*"))


def _secrets(request: Request) -> Iterator[Need]:
    asked = json.loads(request.body or b"{}")
    name = str(asked.get("SecretId") or asked.get("Name") or "*")
    arn = name if name.startswith("arn:") else f"arn:aws:secretsmanager:{request.region}:{ACCOUNT}:secret:{name}"
    yield Need(f"secretsmanager:{request.action}", arn)


def _linked_role(service: str) -> Need:
    name = SPOT_ROLE if service == _SPOT else "*"
    arn = f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/{service}/{name}"
    return Need("iam:CreateServiceLinkedRole", arn, {"iam:awsservicename": [service]})


def _ec2_arn(region: str, kind: str, name: str = "*") -> str:
    return f"arn:aws:ec2:{region}:{ACCOUNT}:{kind}/{name}"


def _tags_of(region: str, name: str) -> dict[str, list[str]]:
    """The tags that a resource of EC2's has, as conditions know them."""
    found = _ec2_backend(region).describe_tags(filters={"resource-id": [name]})
    return {f"{prefix}:resourcetag/{tag['key'].lower()}": [tag["value"]] for tag in found for prefix in ("aws", "ec2")}


def _asked(tags: dict[str, str]) -> dict[str, list[str]]:
    """The tags that a request gives, as conditions know them."""
    told = {f"aws:requesttag/{key.lower()}": [value] for key, value in tags.items()}
    return {**told, **({"aws:tagkeys": list(tags)} if tags else {})}


def _tag_specifications(form: dict[str, str]) -> dict[str, dict[str, str]]:
    """Tags by the kind of what is made."""
    kinds = {
        name.split(".")[1]: kind
        for name, kind in form.items()
        if re.fullmatch(r"TagSpecification\.\d+\.ResourceType", name)
    }
    return {kind: _tags(form, f"TagSpecification.{number}.Tag") for number, kind in kinds.items()}


def _tags(form: dict[str, str], prefix: str) -> dict[str, str]:
    found = {
        name.removesuffix(".Key"): value
        for name, value in form.items()
        if name.startswith(f"{prefix}.") and name.endswith(".Key")
    }
    return {key: form.get(f"{name}.Value", "") for name, key in found.items()}


def _numbered(form: dict[str, str], name: str) -> list[str]:
    return [value for key, value in form.items() if re.fullmatch(rf"{name}(\.\d+)?", key)]


def _ec2_backend(region: str) -> Any:
    """moto's own books of EC2 in a region."""
    from moto.ec2.models import ec2_backends

    return ec2_backends[ACCOUNT][region]
