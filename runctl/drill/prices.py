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
#: US dollars a GiB and month of gp3 in us-east-1 (aws.amazon.com/ebs/pricing).
GP3 = 0.08
#: What EC2 tells of a price is when it changed last.
_CHANGED_BEFORE_S = 3600.0


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


class SpotMarket:
    """Prices on spot: as `spot` says, until somebody has one change."""

    def __init__(self) -> None:
        self._changes: dict[tuple[str, str], list[tuple[float, float]]] = {}

    def change(self, machine: str, zone: str, price: float, at: float) -> None:
        """Have the price of a type in a zone be another from a moment on (seconds since the epoch)."""
        self._changes.setdefault((machine, zone), []).append((at, price))

    def history(self, asked: dict[str, str], zones: list[str]) -> bytes:
        """The answer of DescribeSpotPriceHistory: the price at the begin, and every change up to the end.

        Args:
            asked: its form.
            zones: of the region.
        """
        machines = [value for name, value in sorted(asked.items()) if name.startswith("InstanceType.")]
        begin = _epoch_s(asked.get("StartTime"))
        end = _epoch_s(asked.get("EndTime"))
        items = [
            _item(machine, zone, price, at)
            for machine in machines
            for zone in zones
            if asked.get("AvailabilityZone") in (None, zone)
            for at, price in self._between(machine, zone, begin, end)
        ]
        return (
            '<?xml version="1.0" encoding="UTF-8"?><DescribeSpotPriceHistoryResponse '
            'xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>drill</requestId>'
            f"<spotPriceHistorySet>{''.join(items)}</spotPriceHistorySet><nextToken></nextToken>"
            "</DescribeSpotPriceHistoryResponse>"
        ).encode()

    def _between(self, machine: str, zone: str, begin: float, end: float) -> list[tuple[float, float]]:
        first = spot(machine, zone)
        if first is None:
            return []
        known = [(0.0, first), *sorted(self._changes.get((machine, zone), []))]
        before = [one for one in known if one[0] <= begin][-1]
        return [
            (max(before[0], begin - _CHANGED_BEFORE_S), before[1]),
            *(one for one in known if begin < one[0] <= end),
        ]


def _item(machine: str, zone: str, price: float, at: float) -> str:
    moment = datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return (
        f"<item><instanceType>{machine}</instanceType><productDescription>Linux/UNIX</productDescription>"
        f"<spotPrice>{price:.6f}</spotPrice><timestamp>{moment}</timestamp>"
        f"<availabilityZone>{zone}</availabilityZone></item>"
    )


def _epoch_s(stamp: str | None) -> float:
    return time.time() if not stamp else datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def products(asked: dict[str, Any]) -> dict[str, Any]:
    """The answer of Pricing's GetProducts."""
    wanted = {one["Field"]: one["Value"] for one in asked.get("Filters", [])}
    region, of_disk = wanted.get("regionCode", _HOME), wanted.get("volumeApiName") == "gp3"
    price = on_demand(wanted.get("instanceType", ""), region)
    if of_disk:
        price = GP3 * (1.0 if region == _HOME else _ELSEWHERE)
    if price is None:
        return {"FormatVersion": "aws_v1", "PriceList": []}
    dimension = {
        "unit": "GB-Mo" if of_disk else "Hrs",
        "pricePerUnit": {"USD": f"{price:.10f}"},
        "description": "on demand",
    }
    product = {
        "product": {"attributes": wanted},
        "terms": {"OnDemand": {"one": {"priceDimensions": {"one": dimension}}}},
    }
    return {"FormatVersion": "aws_v1", "PriceList": [json.dumps(product)]}
