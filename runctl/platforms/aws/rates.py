"""What an instance has cost besides the price at which it was rented: changes of the price on spot, and its disks."""

from __future__ import annotations

import contextlib

from runctl.cost import Rates
from runctl.errors import RunctlError
from runctl.platforms.aws import prices
from runctl.platforms.aws.clients import Clients
from runctl.spec import Plan, RunHandle

#: docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-usage-type.html: by the second, and one minute at least.
_LEAST_BILLED_S = 60.0


def look(clients: Clients, plan: Plan, handle: RunHandle, begin: float, end: float) -> Rates:
    """Ask AWS; what it does not tell is unknown.

    Args:
        clients: AWS's clients.
        plan: as it was submitted; it tells the disks.
        handle: the instance.
        begin, end: between which it was billed (seconds since the epoch).
    """
    where = handle.address
    region, machine = str(where["region"]), str(where["machine"])
    changes: tuple[tuple[float, float], ...] = ()
    on_demand = disk = None
    if clients.has_credentials:
        with contextlib.suppress(RunctlError):
            disk = prices.disk(clients, region)
        with contextlib.suppress(RunctlError):
            on_demand = prices.on_demand(clients, [machine], [region]).get((machine, region))
        if where["market"] == "spot" and where["zone"]:
            with contextlib.suppress(RunctlError):
                changes = prices.spot_changes(clients, machine, region, str(where["zone"]), begin=begin, end=end)
    size_gib = disks_gib(plan)
    usd = None if disk is None or size_gib is None else disk * size_gib
    if where.get("stays"):
        usd = 0.0  # they are there for whoever made the host, training or no training
    return Rates(changes, on_demand, usd, _LEAST_BILLED_S)


def disks_gib(plan: Plan) -> float | None:
    """The size of a host's disks together; None if the plan does not tell."""
    for request in plan.requests:
        if request["call"] == "RunInstances":
            volumes = request["arguments"].get("BlockDeviceMappings", [])
            return float(sum(one["Ebs"]["VolumeSize"] for one in volumes))
    return None
