"""The requests that rent an instance, built from what was looked up and nothing else (pure)."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from runctl.platforms import containers
from runctl.platforms.aws.options import AwsOptions
from runctl.platforms.rented import digest_of, lifetime_s
from runctl.rundir import run_url
from runctl.spec import LaunchSpec, Offer, Plan

#: Who made a resource, and what for: we touch only what carries our tags.
TAG_RUN = "runctl:run"
TAG_ATTEMPT = "runctl:attempt"
TAG_OWNER = "runctl:owner"
TAG_DEADLINE = "runctl:deadline"
#: Where its run directory lies: two roots may each hold a run of one id, and a machine may know neither.
TAG_ROOT = "runctl:root"
#: What a tag may hold (docs.aws.amazon.com, "Tag restrictions"), in characters.
_TAG_CHARS = 256
#: Stands where the security group's id will, as long as the group is not made.
TO_BE_MADE = "(the security group made before)"
#: Stands where an image's id would, if it could not be looked up.
UNKNOWN_IMAGE = "auto"
#: How a plan's note begins that says what could not be looked up.
UNKNOWN = "unknown: "
#: What the launcher may take from the instance's first sign of life to the start of its keeper.
_SPARE_S = 300.0
_SPOT_TAGGED = ("instance", "volume", "network-interface", "spot-instances-request")
_TAGGED = ("instance", "volume", "network-interface")
#: What makes one instance as good as another for whoever comes next.
_ALIKE = ("InstanceType", "ImageId", "IamInstanceProfile", "MetadataOptions", "BlockDeviceMappings")


def client_token(run_dir: str, attempt: int, offer: Offer, subnet: str | None) -> str:
    """What makes a second request for the same thing start nothing: the same in every process, for one attempt's offer.

    At most 64 ASCII characters (EC2's limit).
    """
    told = (run_dir, attempt, offer.market, offer.machine, offer.region, offer.zone, subnet)
    return hashlib.sha256("/".join(map(str, told)).encode()).hexdigest()


def tags(spec: LaunchSpec, attempt: int, owner: str, lives_s: float) -> list[dict[str, str]]:
    """The tags of everything that is made for an attempt; the user's own cannot replace ours."""
    ours = {
        "Name": f"runctl-{spec.run.id}-a{attempt}",
        "CreatedBy": "runctl",
        "Project": spec.run.name,
        TAG_RUN: spec.run.id,
        TAG_ATTEMPT: str(attempt),
        TAG_OWNER: owner,
        # From the launch on, which the instance tells: a time of day would differ between two requests for the same.
        TAG_DEADLINE: after_launch(lives_s),
        **({TAG_ROOT: spec.run.root} if 0 < len(spec.run.root) <= _TAG_CHARS else {}),
    }
    both = {"Name": ours["Name"], "Project": ours["Project"], **spec.tags}
    return [{"Key": key, "Value": value} for key, value in ({**ours, **both} | _kept(ours)).items()]


def root_told(plan: Plan) -> str | None:
    """What the tags of a plan's host tell of where its run directory lies; None if they do not, as earlier ones'."""
    for request in plan.requests:
        if request["call"] == "RunInstances":
            told = request["arguments"]["TagSpecifications"][0]["Tags"]
            return next((one["Value"] for one in told if one["Key"] == TAG_ROOT), None)
    return None


def after_launch(lives_s: float) -> str:
    """When an instance ends itself, in the words of its tag."""
    return f"{math.ceil(lives_s / 60)} minutes after launch"


def _kept(ours: dict[str, str]) -> dict[str, str]:
    """Those of our tags by which we know our own; a name and a project may be the user's."""
    return {key: value for key, value in ours.items() if key.startswith("runctl:") or key == "CreatedBy"}


def user_data(within_s: float) -> str:
    """What the instance does first: arm the dead-man's switch, before anything can go wrong.

    At first it leaves time to bring the host up alone; the keeper arms it anew for the whole lifetime. So an instance
    whose launcher died before it said what to do is gone within minutes; one that is made by hand, which nobody brings
    up, has its whole lifetime at once. `shutdown -P` powers off, which terminates the instance; `-h` may only halt,
    which AWS does not see. `-x` puts it on the console as well.
    """
    return f"#!/bin/sh -x\nshutdown -P +{math.ceil(within_s / 60)}\n"


def lives_s(tags: Mapping[str, str]) -> float | None:
    """How long an instance with these tags lives, from its launch; None if they do not say."""
    found = re.fullmatch(r"(\d+) minutes after launch", tags.get(TAG_DEADLINE, ""))
    return None if found is None else 60.0 * int(found[1])


def security_group(name: str, owner: str, *, vpc: str | None = None, run_id: str | None = None) -> dict[str, Any]:
    """The request for a group that lets nothing in; all that the host needs, it asks for itself.

    Args:
        name: of the group.
        owner: who makes it.
        vpc: the network; None is the default one.
        run_id: for which run, if it is for one.
    """
    tagged = {"Name": name, "CreatedBy": "runctl", TAG_OWNER: owner, **({TAG_RUN: run_id} if run_id else {})}
    return {
        "GroupName": name,
        "Description": "runctl: nothing comes in, everything may go out",
        **({"VpcId": vpc} if vpc else {}),
        "TagSpecifications": [
            {"ResourceType": "security-group", "Tags": [{"Key": key, "Value": value} for key, value in tagged.items()]}
        ],
    }


def renting(
    spec: LaunchSpec, options: AwsOptions, attempt: int, offers: Sequence[Offer], *, regions: Mapping[str, Any],
    owner: str, life: tuple[float, float] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The requests of a plan that rent an instance: a security group where there is none, then each offer.

    Args:
        spec: what is to run.
        options: the platform's.
        attempt: its number.
        offers: in the order in which they are tried.
        regions: what was found in each: `images` by type with `id` and `root_device`, `security_group`, `subnets` by
            zone, `vpc`.
        owner: who launches.
        life: how long it lives, and after how many seconds it ends itself if nobody says more; as the spec says if
            None.
    """
    asked: list[dict[str, Any]] = []
    for name in dict.fromkeys(str(offer.region) for offer in offers):
        if regions[name].get("security_group") is None:
            group = security_group(options.security_group, owner, vpc=regions[name].get("vpc"), run_id=spec.run.id)
            asked.append({"call": "CreateSecurityGroup", "region": name, "arguments": group})
    lives = life or (lifetime_s(spec, options.bring_up_s), options.bring_up_s + _SPARE_S)
    for number, offer in enumerate(offers):
        region = regions[str(offer.region)]
        # Once for each subnet of its zone.
        asked += [
            {"call": "RunInstances", "region": offer.region, "offer": number,
             "arguments": _run_instances(spec, options, attempt, offer, region, owner, subnet, lives)}
            for subnet in region.get("subnets", {}).get(offer.zone) or [None]
        ]  # fmt: skip
    return asked


def likeness(plan: Plan, offer: Offer) -> str | None:
    """By which instances are known that are as good as each other for whoever comes next; None if nothing is rented.

    Args:
        plan: with a request for
        offer: one of its own, in whatever zone of its region.
    """
    for request in plan.requests:
        if request["call"] == "RunInstances":
            asked = plan.offers[request["offer"]]
            if (asked.region, asked.machine, asked.market) == (offer.region, offer.machine, offer.market):
                alike = [request["arguments"][name] for name in _ALIKE]
                return digest_of(asked.region, asked.market, alike)
    return None


def _run_instances(  # noqa: PLR0917 (as above, for one subnet)
    spec: LaunchSpec,
    options: AwsOptions,
    attempt: int,
    offer: Offer,
    region: dict[str, Any],
    owner: str,
    subnet: str | None,
    life: tuple[float, float],
) -> dict[str, Any]:
    image = region.get("images", {}).get(offer.machine) or {"id": options.ami, "root_device": "/dev/sda1"}
    mine = tags(spec, attempt, owner, life[0])
    request: dict[str, Any] = {
        "ClientToken": client_token(run_url(spec.run.root, spec.run.id), attempt, offer, subnet),
        "MinCount": 1,
        "MaxCount": 1,
        "InstanceType": offer.machine,
        "ImageId": image["id"],
        "SecurityGroupIds": [region.get("security_group") or TO_BE_MADE],
        "IamInstanceProfile": {"Name": options.instance_profile},
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            # Out of a container it is one hop more, over docker's bridge; nothing else is to get so far.
            "HttpPutResponseHopLimit": 2 if containers.wanted(spec) else 1,
        },
        "BlockDeviceMappings": _volumes(options, image["root_device"]),
        "UserData": user_data(life[1]),
        "TagSpecifications": [
            {"ResourceType": kind, "Tags": mine} for kind in (_SPOT_TAGGED if offer.market == "spot" else _TAGGED)
        ],
    }
    if subnet is not None:
        request["SubnetId"] = subnet
    elif offer.zone is not None:
        request["Placement"] = {"AvailabilityZone": offer.zone}
    if offer.market == "spot":
        bid = options.max_price_usd_per_hour
        request["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {
                "SpotInstanceType": "one-time",
                "InstanceInterruptionBehavior": "terminate",
                **({"MaxPrice": f"{bid:.4f}"} if bid is not None else {}),
            },
        }
    return request


def _volumes(options: AwsOptions, root_device: str) -> list[dict[str, Any]]:
    sizes = {root_device: options.root_volume_gib, "/dev/sdf": options.data_volume_gib}
    return [
        {
            "DeviceName": device,
            "Ebs": {"VolumeSize": size, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True},
        }
        for device, size in sizes.items()
        if size is not None
    ]
