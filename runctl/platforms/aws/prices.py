"""What instances cost just now, in US dollars an hour: on spot by zone, on demand by region."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from runctl.platforms.aws.clients import Clients, translated


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
                found = [price for product in answer["PriceList"] if (price := _hourly_usd(json.loads(product)))]
                if found:
                    prices[one, region] = min(found)
    return prices


def _hourly_usd(product: dict[str, Any]) -> float | None:
    """The price in one entry of the price list (docs.aws.amazon.com/awsaccountbilling: reading a price list)."""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            usd = float(dimension["pricePerUnit"].get("USD", 0))
            if dimension.get("unit") == "Hrs" and usd > 0:
                return usd
    return None
