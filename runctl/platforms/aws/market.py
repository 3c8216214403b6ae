"""What EC2 has to offer just now: types, zones, prices, images, networks. Read-only and bounded in time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from runctl.errors import ConfigError
from runctl.platforms import rented
from runctl.platforms.asked import Asked
from runctl.platforms.aws import fitting, network, prices, quotas
from runctl.platforms.aws.clients import Clients, translated
from runctl.platforms.aws.options import AwsOptions
from runctl.spec import Offer, Resources

#: How long looking may take altogether; what has not come by then is unknown.
_LOOK_S = 20.0
#: AWS's own names for its newest images: for deep learning with a driver and torch, and plain ones without a GPU.
_DEEP_LEARNING = "/aws/service/deeplearning/ami/{}/oss-nvidia-driver-gpu-pytorch-2.7-ubuntu-22.04/latest/ami-id"
_PLAIN = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{}"
#: Stands where a type would, if none was named and AWS could not be asked.
UNKNOWN_TYPE = "auto"


@dataclass(frozen=True)
class Found:
    """What looking found.

    Attributes:
        offers: in the order of types, cheapest zones first; all of one market before the next.
        regions: for each region what `requests.run_instances` needs.
        unknown: what could not be looked up, and why.
        fitting: for what the types were chosen; None if they were named.
        too_small: quotas that rule offers out, in words.
        cut_off: subnets that are left out, for a host there would never be heard of, in words.
    """

    offers: tuple[Offer, ...]
    regions: dict[str, dict[str, Any]]
    unknown: tuple[str, ...]
    fitting: str | None = None
    too_small: tuple[str, ...] = ()
    cut_off: tuple[str, ...] = ()


def look(options: AwsOptions, clients: Clients, resources: Resources) -> Found:
    """Ask every region at once.

    Args:
        options: what was configured.
        clients: AWS's clients.
        resources: what a host must have, where no type of instance is named.

    Raises:
        ConfigError: if a type of instance or an image does not exist there.
        NotAllowed: if the account's quotas allow none of it.
        RunctlError: if no type was named, and AWS does not let us look for one.
    """
    wanted = None if options.instance_types else str(rented.wanted(resources))
    if not clients.has_credentials:
        options = replace(options, instance_types=options.instance_types or (UNKNOWN_TYPE,))
        return Found(
            _offers(options, {}, {}),
            {region: {} for region in options.regions},
            ("types, prices, images and zones: there are no AWS credentials here",),
            wanted,
        )
    if not options.instance_types:
        options = replace(options, instance_types=fitting.types(clients, options.regions, resources))
    unknown: list[str] = []
    until = time.monotonic() + _LOOK_S
    for region in options.regions:
        for make in (clients.ec2, clients.ssm, clients.quotas):
            make(region)  # one after the other: making them is not thread-safe
    of_prices = Asked(
        "AWS", "prices on demand", lambda: prices.on_demand(clients, options.instance_types, options.regions)
    )
    asked = {
        region: {name: Asked("AWS", f"{name} in {region}", partial(ask, clients, options, region))
                 for name, ask in _ASKED.items()}
        for region in options.regions
    }  # fmt: skip
    answers = {
        region: {name: one.result(until, unknown) for name, one in questions.items()}
        for region, questions in asked.items()
    }
    usd_on_demand = of_prices.result(until, unknown) or {}
    regions = {region: _region(options, answer) for region, answer in answers.items()}
    networks = [answer["network"][0] for answer in answers.values() if answer["network"]]
    unknown += [found.unknown for found in networks if found.unknown is not None]
    cut_off = tuple(why for found in networks for why in found.cut_off)
    known = {region: answer["quotas"] for region, answer in answers.items()}
    offers = _offers(options, answers, usd_on_demand)
    limit = options.max_price_usd_per_hour
    within, left_out = rented.within(offers, limit)
    _complain(options, offers)
    if not within:
        raise rented.too_dear(offers, left_out, limit)
    allowed, too_small = quotas.allowed(within, known)
    return Found(allowed, regions, (*unknown, *left_out), wanted, too_small, cut_off)


def _zones(clients: Clients, options: AwsOptions, region: str) -> dict[str, list[str]]:
    """The zones of each type."""
    with translated(f"looking for {', '.join(options.instance_types)} in {region}"):
        pages = clients.ec2(region).get_paginator("describe_instance_type_offerings").paginate(
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": list(options.instance_types)}],
        )  # fmt: skip
        found: dict[str, list[str]] = {}
        for page in pages:
            for one in page["InstanceTypeOfferings"]:
                found.setdefault(one["InstanceType"], []).append(one["Location"])
    return found


def _spot_prices(clients: Clients, options: AwsOptions, region: str) -> dict[tuple[str, str], float]:
    return prices.spot(clients, options.instance_types, region)


def _images(clients: Clients, options: AwsOptions, region: str) -> dict[str, dict[str, str]]:
    """The image of each type, with the name of its root device."""
    ec2, ssm = clients.ec2(region), clients.ssm(region)
    with translated(f"looking for an image in {region}"):
        chosen = {}
        for one in options.instance_types:
            if options.ami != "auto":
                chosen[one] = options.ami
                continue
            if (name := _image_of(ec2, one)) is not None:
                chosen[one] = ssm.get_parameter(Name=name)["Parameter"]["Value"]
        found = ec2.describe_images(ImageIds=sorted(set(chosen.values())))["Images"] if chosen else []
    devices = {image["ImageId"]: image.get("RootDeviceName") or "/dev/sda1" for image in found}
    missing = set(chosen.values()) - devices.keys()
    if missing:
        raise ConfigError(f"platform.ami={', '.join(sorted(missing))}: there is no such image in {region}")
    return {one: {"id": image, "root_device": devices[image]} for one, image in chosen.items()}


def _image_of(ec2: Any, instance_type: str) -> str | None:
    """The public parameter that names the newest image for a type, by its GPU and its processor's architecture.

    Returns:
        None for a type that the region lacks, which is no error in several regions.
    """
    named = [{"Name": "instance-type", "Values": [instance_type]}]
    found = ec2.describe_instance_types(Filters=named)["InstanceTypes"]
    if not found:
        return None
    [told] = found
    architectures = told.get("ProcessorInfo", {}).get("SupportedArchitectures", ["x86_64"])
    name = _DEEP_LEARNING if told.get("GpuInfo") else _PLAIN
    return name.format("arm64" if "arm64" in architectures else "x86_64")


def _network(clients: Clients, options: AwsOptions, region: str) -> tuple[network.Network, str | None]:
    """Where hosts can live, and our security group there if it is made already."""
    found = network.look(clients, region, options.subnets)
    filters = [{"Name": "group-name", "Values": [options.security_group]}]
    if found.vpc is not None:
        filters.append({"Name": "vpc-id", "Values": [found.vpc]})
    if options.security_group.startswith("sg-"):
        filters = [{"Name": "group-id", "Values": [options.security_group]}]
    with translated(f"looking for security group {options.security_group} in {region} (ec2:DescribeSecurityGroups)"):
        groups = clients.ec2(region).describe_security_groups(Filters=filters)["SecurityGroups"]
    if options.security_group.startswith("sg-") and not groups:
        raise ConfigError(f"platform.security_group={options.security_group}: there is no such group in {region}")
    return found, groups[0]["GroupId"] if groups else None


def _quotas(clients: Clients, options: AwsOptions, region: str) -> quotas.Quotas:
    return quotas.look(clients, region, options.instance_types, options.terms.markets)


_ASKED: dict[str, Callable[[Clients, AwsOptions, str], Any]] = {
    "zones": _zones,
    "spot prices": _spot_prices,
    "images": _images,
    "network": _network,
    "quotas": _quotas,
    "the price of disks": lambda clients, _, region: prices.disk(clients, region),
}


def _region(options: AwsOptions, answer: dict[str, Any]) -> dict[str, Any]:
    named = options.security_group if options.security_group.startswith("sg-") else None
    found, group = answer["network"] or (network.Network(None), named)
    return {
        "images": answer["images"] or {}, "subnets": found.subnets, "vpc": found.vpc, "security_group": group,
        "disk_usd_per_gib_hour": answer["the price of disks"],
    }  # fmt: skip


def _offers(
    options: AwsOptions, answers: dict[str, dict[str, Any]], on_demand: dict[tuple[str, str], float]
) -> tuple[Offer, ...]:
    """Every way to rent one, in the order in which they are tried."""
    offers = []
    for market in options.terms.markets:
        for one in options.instance_types:
            of_type = []
            for region in options.regions:
                answer = answers.get(region, {})
                for zone in _zones_of(options, answer, one):
                    price = on_demand.get((one, region))
                    if market == "spot":
                        price = (answer.get("spot prices") or {}).get((one, zone))
                    of_type.append(Offer("aws", one, market, region, zone, price))
            offers += sorted(of_type, key=_by_price)
    return tuple(offers)


def _zones_of(options: AwsOptions, answer: dict[str, Any], instance_type: str) -> Sequence[str | None]:
    known = answer.get("zones")
    if known is None:  # not looked up: AWS chooses
        return options.zones or (None,)
    zones = sorted(known.get(instance_type, []))
    if options.zones:
        return [zone for zone in zones if zone in options.zones]
    subnets = answer["network"][0].subnets if answer.get("network") else {}
    return [zone for zone in zones if zone in subnets] if subnets else zones


def _by_price(offer: Offer) -> tuple[bool, float]:
    return offer.price_usd_per_hour is None, offer.price_usd_per_hour or 0.0


def _complain(options: AwsOptions, offers: Sequence[Offer]) -> None:
    """Say at once what can never be had.

    Raises:
        ConfigError: if nothing is left to be asked for.
    """
    where = ", ".join(options.regions)
    for zone in options.zones:
        if not any(zone.startswith(region) and re.fullmatch(r"[a-z](-.*)?", zone[len(region) :] or "-")
                   for region in options.regions):  # fmt: skip
            raise ConfigError(f"platform.zones={zone}: no zone of {where}")
    if not offers:
        raise ConfigError(
            f"platform.instance_type={', '.join(options.instance_types)}: not offered in "
            f"{', '.join(options.zones) or where}; name another type or platform.region"
        )
