"""What instances and their disks cost, in US dollars an hour: on spot by zone, on demand and of disks by region."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from runctl.cost import HOURS_PER_MONTH
from runctl.errors import RunctlError
from runctl.platforms.aws.clients import Clients, translated

#: gp3 where the price list may not be read (aws.amazon.com/ebs/pricing): US dollars a GiB and month.
_GP3_USD = {"us-east-1": 0.08, "us-east-2": 0.08, "us-west-2": 0.08}


def spot(clients: Clients, types: Sequence[str], region: str) -> dict[tuple[str, str], float]:
    """Prices by type and zone.

    Raises:
        RunctlError: what AWS says.
    """
    with translated(f"spot prices in {region}"):
        pages = clients.ec2(region).get_paginator("describe_spot_price_history").paginate(
            InstanceTypes=list(types), ProductDescriptions=["Linux/UNIX"], StartTime=time.time()
        )  # fmt: skip
        entries = [entry for page in pages for entry in page["SpotPriceHistory"]]
    newest = sorted(entries, key=lambda entry: entry["Timestamp"])
    return {(entry["InstanceType"], entry["AvailabilityZone"]): float(entry["SpotPrice"]) for entry in newest}


def spot_changes(
    clients: Clients, machine: str, region: str, zone: str, *, begin: float, end: float
) -> tuple[tuple[float, float], ...]:
    """How the price of one type in one zone changed.

    Args:
        clients: AWS's clients.
        machine: the type.
        region, zone: where; a zone's name does not tell its region (us-west-2-lax-1a).
        begin, end: between which (seconds since the epoch). EC2 tells the price at the begin with the time of the
            change that led to it, and remembers 90 days.

    Returns:
        (seconds since the epoch, US dollars an hour from then on), the oldest first.

    Raises:
        RunctlError: what AWS says.
    """
    with translated(f"spot prices in {zone}"):
        pages = clients.ec2(region).get_paginator("describe_spot_price_history").paginate(
            InstanceTypes=[machine], ProductDescriptions=["Linux/UNIX"], AvailabilityZone=zone,
            StartTime=begin, EndTime=end,
        )  # fmt: skip
        entries = [entry for page in pages for entry in page["SpotPriceHistory"]]
    mine = [one for one in entries if (one["InstanceType"], one["AvailabilityZone"]) == (machine, zone)]
    return tuple(sorted((one["Timestamp"].timestamp(), float(one["SpotPrice"])) for one in mine))


def disk(clients: Clients, region: str) -> float | None:
    """The price of a GiB of gp3 an hour; None where it is not known.

    Raises:
        RunctlError: what AWS says, where no price of our own stands in.
    """
    wanted = {"volumeApiName": "gp3", "productFamily": "Storage", "regionCode": region}
    filters = [{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in wanted.items()]
    try:
        with translated(f"the price of gp3 in {region}"):
            answer = clients.pricing().get_products(ServiceCode="AmazonEC2", Filters=filters, MaxResults=10)
        found = [price for product in answer["PriceList"] if (price := _usd(json.loads(product), "GB-Mo"))]
    except RunctlError:
        if region not in _GP3_USD:
            raise
        found = []
    price = min(found) if found else _GP3_USD.get(region)
    return None if price is None else price / HOURS_PER_MONTH


def on_demand(clients: Clients, types: Sequence[str], regions: Sequence[str]) -> dict[tuple[str, str], float]:
    """Prices by type and region.

    Raises:
        RunctlError: what AWS says.
    """
    prices = {}
    with translated("prices on demand"):
        for region in regions:
            for one in types:
                wanted = {
                    "instanceType": one,
                    "regionCode": region,
                    "operatingSystem": "Linux",
                    "preInstalledSw": "NA",
                    "tenancy": "Shared",
                    "capacitystatus": "Used",
                }
                filters = [{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in wanted.items()]
                answer = clients.pricing().get_products(ServiceCode="AmazonEC2", Filters=filters, MaxResults=10)
                found = [price for product in answer["PriceList"] if (price := _usd(json.loads(product), "Hrs"))]
                if found:
                    prices[one, region] = min(found)
    return prices


def _usd(product: dict[str, Any], unit: str) -> float | None:
    """The price in one entry of the price list (docs.aws.amazon.com/awsaccountbilling: reading a price list)."""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            usd = float(dimension["pricePerUnit"].get("USD", 0))
            if dimension.get("unit") == unit and usd > 0:
                return usd
    return None
