"""Prices as AWS tells them, of the year in which this was written; a drill shows what the same would have cost."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import datetime, timezone
from typing import Any

#: US dollars an hour on demand in us-east-1 (aws.amazon.com/ec2/pricing/on-demand); elsewhere a little more.
ON_DEMAND = {
    "t3.medium": 0.0416,
    "c7i.xlarge": 0.1785,
    "g5g.xlarge": 0.42,
    "g6.xlarge": 0.8048,
    "g5.xlarge": 1.006,
    "g6e.xlarge": 1.861,
    "p4d.24xlarge": 21.9576,
    "p5.48xlarge": 55.04,
}
_ELSEWHERE = 1.06
_HOME = "us-east-1"


def on_demand(machine: str, region: str) -> float | None:
    """US dollars an hour."""
    price = ON_DEMAND.get(machine)
    return None if price is None else round(price * (1.0 if region == _HOME else _ELSEWHERE), 4)


def spot(machine: str, zone: str) -> float | None:
    """US dollars an hour, three to five tenths of the price on demand, the same for a zone every time."""
    price = on_demand(machine, zone[:-1])
    if price is None:
        return None
    share = hashlib.sha256(f"{machine}/{zone}".encode()).digest()[0] / 255
    return round(price * (0.3 + 0.2 * share), 4)


def spot_history(machines: list[str], zones: list[str]) -> bytes:
    """The answer of DescribeSpotPriceHistory."""
    now = datetime.fromtimestamp(time.time(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    items = "".join(
        f"<item><instanceType>{machine}</instanceType><productDescription>Linux/UNIX</productDescription>"
        f"<spotPrice>{price:.6f}</spotPrice><timestamp>{now}</timestamp><availabilityZone>{zone}</availabilityZone></item>"
        for machine in machines
        for zone in zones
        if (price := spot(machine, zone)) is not None
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<DescribeSpotPriceHistoryResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>drill</requestId>'
        f"<spotPriceHistorySet>{items}</spotPriceHistorySet><nextToken></nextToken></DescribeSpotPriceHistoryResponse>"
    ).encode()


def products(asked: dict[str, Any]) -> dict[str, Any]:
    """The answer of Pricing's GetProducts."""
    wanted = {one["Field"]: one["Value"] for one in asked.get("Filters", [])}
    price = on_demand(wanted.get("instanceType", ""), wanted.get("regionCode", _HOME))
    if price is None:
        return {"FormatVersion": "aws_v1", "PriceList": []}
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": f"{price:.10f}"}, "description": "on demand"}
    product = {
        "product": {"attributes": wanted},
        "terms": {"OnDemand": {"one": {"priceDimensions": {"one": dimension}}}},
    }
    return {"FormatVersion": "aws_v1", "PriceList": [json.dumps(product)]}
