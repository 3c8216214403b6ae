"""What an account holds that carries our tags: instances, volumes, security groups, parameters, unfinished uploads."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from runctl.errors import PlatformError, RunctlError
from runctl.platforms.aws import prices
from runctl.platforms.aws.clients import Clients, code_of, translated
from runctl.platforms.aws.hosts import living
from runctl.platforms.aws.instances import ALIVE, Instances
from runctl.platforms.aws.requests import TAG_ATTEMPT, TAG_ROOT, TAG_RUN
from runctl.platforms.holdings import Holding

_OURS = [{"Name": "tag:CreatedBy", "Values": ["runctl"]}]
_PARAMETER = re.compile(r"/runctl/(?P<run>[^/]+)/a(?P<attempt>\d+)(-\w+)?/[^/]+")
_AT_ONCE = 8


def regions(clients: Clients, named: Sequence[str]) -> tuple[str, ...]:
    """Every region that the account may use; those that are named, where it may not ask.

    Raises:
        RunctlError: if AWS cannot be asked at all.
    """
    with translated("looking for regions (ec2:DescribeRegions)"):
        try:
            told = clients.ec2(named[0]).describe_regions()["Regions"]
        except Exception as error:
            if code_of(error) != "UnauthorizedOperation":
                raise
            return tuple(named)
    return tuple(one["RegionName"] for one in told)


def look(
    clients: Clients, regions: Sequence[str], roots: Sequence[str], tell: Callable[[str], None]
) -> Iterator[Holding]:
    """Everything of ours.

    Args:
        clients: AWS's clients.
        regions: where to look.
        roots: below which run directories lie.
        tell: takes what could not be looked at, and why.

    Raises:
        PlatformError: once all else has been yielded, if something could not be looked at.
    """
    for region in regions:
        clients.ec2(region), clients.ssm(region)  # making clients is not thread-safe
    clients.s3(), clients.pricing()
    looks: list[Callable[[], list[Holding]]] = []
    for region in regions:
        for kind in (_instances, _volumes, _security_groups, _parameters):
            looks.append(lambda kind=kind, region=region: kind(clients, region))  # type: ignore[misc]
    for root in dict.fromkeys(roots):
        if root.startswith("s3://"):
            looks.append(lambda root=root: _uploads(clients, root))  # type: ignore[misc]
    troubles = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for future in [pool.submit(one) for one in looks]:
            try:
                yield from future.result()
            except RunctlError as error:
                troubles.append(str(error))
                tell(str(error))
    if troubles:
        # Each has been told in full: a right that is missing is missing in every region.
        raise PlatformError(f"{len(troubles)} of {len(looks)} looks failed, the first one: {troubles[0]}")


def release(clients: Clients, one: Holding) -> None:
    """End one of them, which carries our tag; what is gone already is left so.

    Raises:
        RunctlError: what AWS says.
    """
    from botocore.exceptions import ClientError

    if one.kind == "instance":
        Instances(clients, one.region).terminate(one.id)
        return
    with translated(f"ending {one.kind} {one.id}"), contextlib.suppress(_Gone):
        try:
            if one.kind == "volume":
                clients.ec2(one.region).delete_volume(VolumeId=one.id)
            elif one.kind == "security group":
                clients.ec2(one.region).delete_security_group(GroupId=one.id)
            elif one.kind == "parameter":
                clients.ssm(one.region).delete_parameters(Names=[one.id])
            else:
                place, _, upload = one.id.rpartition("#")
                bucket, key = place.removeprefix("s3://").split("/", 1)
                clients.s3().abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
        except ClientError as error:
            if code_of(error) in ("InvalidVolume.NotFound", "InvalidGroup.NotFound", "NoSuchUpload"):
                raise _Gone from error
            raise


class _Gone(Exception):
    """It had ended already."""


def _instances(clients: Clients, region: str) -> list[Holding]:
    return [Holding.of(host, "instance") for host in living(clients, region)]


def _volumes(clients: Clients, region: str) -> list[Holding]:
    """Those that hang on no instance; the others end with theirs."""
    filters = [*_OURS, {"Name": "status", "Values": ["available"]}]
    found = _pages(clients.ec2(region), "describe_volumes", "Volumes", f"volumes in {region}", filters)
    usd = None
    if found:
        with contextlib.suppress(RunctlError):
            usd = prices.disk(clients, region)
    return [
        Holding(
            "aws", "volume", one["VolumeId"], region, _tags(one).get(TAG_RUN, ""), _attempt(_tags(one)),
            _tags(one).get(TAG_ROOT), one["CreateTime"].timestamp(), None, None if usd is None else usd * one["Size"],
        )
        for one in found
    ]  # fmt: skip


def _security_groups(clients: Clients, region: str) -> list[Holding]:
    """Those that a launch made; the one of `runctl aws setup` belongs to no run, and stays."""
    filters = [*_OURS, {"Name": "tag-key", "Values": [TAG_RUN]}]
    what = f"security groups in {region}"
    found = _pages(clients.ec2(region), "describe_security_groups", "SecurityGroups", what, filters)
    holdings = []
    for one in found:
        users = [{"Name": "instance.group-id", "Values": [one["GroupId"]]},
                 {"Name": "instance-state-name", "Values": list(ALIVE)}]  # fmt: skip
        used = _pages(clients.ec2(region), "describe_instances", "Reservations", f"instances in {region}", users)
        holdings.append(
            Holding("aws", "security group", one["GroupId"], region, _tags(one)[TAG_RUN],
                    price_usd_per_hour=0.0, in_use=bool(used))
        )  # fmt: skip
    return holdings


def _parameters(clients: Clients, region: str) -> list[Holding]:
    """Secrets that no host has taken."""
    with translated(f"looking for parameters in {region} (ssm:DescribeParameters)"):
        pages = clients.ssm(region).get_paginator("describe_parameters").paginate(
            ParameterFilters=[{"Key": "tag:CreatedBy", "Values": ["runctl"]}]
        )  # fmt: skip
        found = [one for page in pages for one in page["Parameters"]]
    return [
        Holding("aws", "parameter", one["Name"], region, named["run"], int(named["attempt"]),
                created_at=one["LastModifiedDate"].timestamp(), price_usd_per_hour=0.0)
        for one in found
        if (named := _PARAMETER.fullmatch(one["Name"]))
    ]  # fmt: skip


def _uploads(clients: Clients, root: str) -> list[Holding]:
    """Parts of uploads below a root of runs that were never finished; they bill as what lies there does."""
    where = urlsplit(root)
    prefix = where.path.strip("/") + "/" if where.path.strip("/") else ""
    with translated(f"looking for unfinished uploads in {root} (s3:ListBucketMultipartUploads)"):
        pages = clients.s3().get_paginator("list_multipart_uploads").paginate(Bucket=where.netloc, Prefix=prefix)
        found = [one for page in pages for one in page.get("Uploads", [])]
    holdings = []
    for one in found:
        name = one["Key"].removeprefix(prefix).split("/", 1)[0]
        if one["Key"].startswith(prefix) and "/" in one["Key"].removeprefix(prefix):
            holdings.append(
                Holding("aws", "upload", f"s3://{where.netloc}/{one['Key']}#{one['UploadId']}", "",
                        "" if name.startswith(".") else name, None, root, one["Initiated"].timestamp())
            )  # fmt: skip
    return holdings


def _pages(client: Any, call: str, key: str, what: str, filters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    with translated(f"looking for {what}"):
        return [one for page in client.get_paginator(call).paginate(Filters=filters) for one in page[key]]


def _tags(told: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in told.get("Tags", [])}


def _attempt(tags: dict[str, str]) -> int | None:
    number = tags.get(TAG_ATTEMPT, "")
    return int(number) if number.isdigit() else None
