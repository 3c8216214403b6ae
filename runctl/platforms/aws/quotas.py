"""Quotas of virtual processors: what an account may rent of a family at once, asked for before anything is rented.

In a new account those of GPUs are 0, and a request for more takes hours or days: so the first launch has to tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runctl.errors import NotAllowed
from runctl.platforms.aws.clients import Clients, translated
from runctl.platforms.aws.refusals import quota_of
from runctl.spec import Offer

#: Service Quotas' codes of EC2's quotas, by family and market.
_CODES = {
    ("standard", "on_demand"): "L-1216C47A",
    ("standard", "spot"): "L-34B43A08",
    ("g", "on_demand"): "L-DB2E81BA",
    ("g", "spot"): "L-3819A6DF",
    ("p", "on_demand"): "L-417A185B",
    ("p", "spot"): "L-7212CCBC",
    ("x", "on_demand"): "L-7295265B",
    ("x", "spot"): "L-E3A00192",
    ("f", "on_demand"): "L-74FC7D96",
    ("f", "spot"): "L-88CF9481",
}
_NAMES = {"standard": "standard types", "g": "G and VT", "p": "P", "x": "X", "f": "F"}


@dataclass(frozen=True)
class Quotas:
    """What one region allows.

    Attributes:
        cpus: virtual processors of each type.
        limits: how many of a family and market may run at once.
    """

    cpus: dict[str, int]
    limits: dict[tuple[str, str], int]

    def too_small_for(self, offer: Offer) -> str | None:
        """What stands in an offer's way for good, in words; None if nothing does, or it is not known."""
        family = quota_of(offer.machine)
        limit, needed = self.limits.get((family, offer.market)), self.cpus.get(offer.machine)
        if limit is None or needed is None or limit >= needed:
            return None
        market = "spot" if offer.market == "spot" else "on demand"
        link = (
            f"https://{offer.region}.console.aws.amazon.com/servicequotas/home/services/ec2/quotas/"
            f"{_CODES[family, offer.market]}"
        )
        return (
            f"{limit} of {needed} vCPU, {_NAMES[family]} {market}, {offer.region}: ask for {needed} or more at {link}"
        )


def look(clients: Clients, region: str, types: Iterable[str], markets: Sequence[str]) -> Quotas:
    """Ask for the quotas that the types count against.

    Raises:
        NotAllowed: without the right to look.
        PlatformError: for everything else that AWS says.
    """
    names = list(types)
    with translated(f"ec2:DescribeInstanceTypes in {region}"):
        # By a filter: naming a type that the region lacks is an error for all of them.
        named = [{"Name": "instance-type", "Values": names}]
        told = clients.ec2(region).describe_instance_types(Filters=named)["InstanceTypes"]
    limits = {}
    with translated(f"servicequotas:GetServiceQuota in {region}"):
        for family in dict.fromkeys(map(quota_of, names)):
            for market in markets:
                asked = {"ServiceCode": "ec2", "QuotaCode": _CODES[family, market]}
                quota = clients.quotas(region).get_service_quota(**asked)["Quota"]
                limits[family, market] = int(quota["Value"])
    return Quotas({one["InstanceType"]: one["VCpuInfo"]["DefaultVCpus"] for one in told}, limits)


def allowed(offers: Sequence[Offer], quotas: dict[str, Quotas | None]) -> tuple[tuple[Offer, ...], tuple[str, ...]]:
    """The offers that the account's quotas allow, and what stands in the way of the others.

    Args:
        offers: in the order in which they are tried.
        quotas: by region; None is not known.

    Raises:
        NotAllowed: if that is every one of them.
    """
    left, reasons = [], []
    for offer in offers:
        known = quotas.get(str(offer.region))
        reason = known.too_small_for(offer) if known is not None else None
        if reason is None:
            left.append(offer)
        elif reason not in reasons:
            reasons.append(reason)
    if offers and not left:
        raise NotAllowed("your AWS account may not rent that: quota " + "; quota ".join(reasons))
    return tuple(left), tuple(reasons)
