"""What a pod costs besides its GPUs: its disks, by RunPod's list (docs.runpod.io/pods/storage).

A network volume costs what it costs, pod or no pod, and is none of a run's.
"""

from __future__ import annotations

import contextlib

from runctl.cost import HOURS_PER_MONTH, Rates
from runctl.errors import RunctlError
from runctl.platforms.runpod import market
from runctl.platforms.runpod.api import Api
from runctl.spec import Plan, RunHandle

#: US dollars a GB and month while the pod runs, of the container's disk as of a volume's.
_DISK_USD = 0.10


def look(api: Api, plan: Plan, handle: RunHandle) -> Rates:
    """Ask RunPod what the pod's GPUs cost on demand; the price on spot is the bid, and stays what it is.

    Args:
        api: RunPod's.
        plan: as it was submitted; it tells the disks.
        handle: the pod.
    """
    asked = [one["arguments"] for one in plan.requests if "arguments" in one]
    if not asked:
        # One that was made by hand has its disks for whoever made it, training or no training.
        return Rates(disk_usd_per_hour=0.0 if handle.address.get("stays") else None)
    size_gb = float(asked[0].get("containerDiskInGb") or 0) + float(asked[0].get("volumeInGb") or 0)
    on_demand = None
    if handle.address["market"] == "spot" and api.has_key:
        with contextlib.suppress(RunctlError):
            count = int(asked[0].get("gpuCount") or 1)
            price = market.on_demand(api, handle.address["machine"], handle.address["cloud"], count)
            on_demand = None if price is None else price * count
    return Rates((), on_demand, disks_usd_per_hour(size_gb))


def disks_usd_per_hour(size_gb: float) -> float:
    """What a running pod's disks cost."""
    return size_gb * _DISK_USD / HOURS_PER_MONTH
