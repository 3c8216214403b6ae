"""What RunPod has to offer just now: GPUs, clouds, prices, balance, volumes. Read-only and bounded in time.

RunPod tells prices a GPU and hour; offers are of the whole pod.
"""

from __future__ import annotations

import os
import socket
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from runctl.errors import ConfigError
from runctl.platforms import rented
from runctl.platforms.asked import Asked
from runctl.platforms.rented import TYPES_AT_MOST, plain, wanted
from runctl.platforms.runpod.api import Api
from runctl.platforms.runpod.options import RunpodOptions
from runctl.platforms.runpod.requests import UNKNOWN_TYPE
from runctl.spec import Offer, Resources

#: How long looking may take altogether, and how long the first sign that RunPod can be reached at all.
_LOOK_S = 15.0
_REACH_S = 1.5
_API = "https://api.runpod.io"
_GPUS = (
    "query { gpuTypes { id displayName memoryInGb secureCloud communityCloud securePrice communityPrice "
    "secureSpotPrice communitySpotPrice maxGpuCount "
    "lowestPrice(input: {gpuCount: %d}) { minimumBidPrice uninterruptablePrice } } }"
)
_ACCOUNT = "query { myself { clientBalance currentSpendPerHr networkVolumes { id name size dataCenterId } } }"


@dataclass(frozen=True)
class Gpu:
    """A type of GPU; prices in USD a GPU and hour, None where there is none or it is not known."""

    id: str
    name: str
    memory_gb: float
    most: int
    clouds: tuple[str, ...]
    on_demand: dict[str, float | None]
    spot: dict[str, float | None]
    lowest: dict[str, float | None]

    @classmethod
    def of(cls, told: dict[str, Any]) -> Gpu:
        """One of RunPod's descriptions."""
        lowest = told.get("lowestPrice") or {}
        return cls(
            id=str(told["id"]),
            name=str(told.get("displayName") or told["id"]),
            memory_gb=float(told.get("memoryInGb") or 0),
            most=int(told.get("maxGpuCount") or 1),
            clouds=tuple(cloud for cloud in ("secure", "community") if told.get(f"{cloud}Cloud")),
            on_demand={cloud: told.get(f"{cloud}Price") for cloud in ("secure", "community")},
            spot={cloud: told.get(f"{cloud}SpotPrice") for cloud in ("secure", "community")},
            lowest={"spot": lowest.get("minimumBidPrice"), "on_demand": lowest.get("uninterruptablePrice")},
        )

    def price(self, market: str, cloud: str) -> float | None:
        """On spot, the lowest bid."""
        price = (self.spot if market == "spot" else self.on_demand).get(cloud)
        return price or self.lowest[market]

    def is_called(self, name: str) -> bool:
        return plain(name) in (plain(self.id), plain(self.name))

    def fits(self, asked: Resources, count: int) -> bool:
        """Whether it has the name and the memory that are asked for; where no name is, only CUDA's count."""
        named = self.is_called(asked.gpu) if asked.gpu is not None else self.id.startswith("NVIDIA")
        return named and count <= self.most and self.memory_gb >= (asked.gpu_memory_gib or 0)


@dataclass(frozen=True)
class Found:
    """What looking found.

    Attributes:
        offers: in the order of types, the cheapest cloud first; all of one market before the next.
        unknown: what could not be looked up, and why.
        gpu_count: in one pod.
        bids: on spot, by type and cloud (`type/cloud`): the lowest that is accepted, in USD a GPU and hour.
        fitting: for what the types were chosen; None if they were named.
        balance_usd: what the account has left.
        spent_usd_per_hour: by everything that runs in it.
        volume: the network volume's id.
    """

    offers: tuple[Offer, ...]
    unknown: tuple[str, ...]
    gpu_count: int
    bids: dict[str, float | None]
    fitting: str | None = None
    balance_usd: float | None = None
    spent_usd_per_hour: float | None = None
    volume: str | None = None


def look(options: RunpodOptions, api: Api, resources: Resources) -> Found:
    """Ask RunPod for prices and for the account at once.

    Args:
        options: what was configured.
        api: RunPod's.
        resources: what a host must have, where no type of GPU is named.

    Raises:
        ConfigError: if there is no such GPU or volume, or nothing that fits or costs no more than it may.
    """
    if resources.gpus == 0:
        raise ConfigError("resources.gpus=0: platform=runpod rents GPUs; ask for one, or take another platform")
    asked = wanted(resources)
    count = options.gpu_count or asked.gpus or 1
    unknown: list[str] = []
    gpus: list[Gpu] | None = None
    account: dict[str, Any] | None = None
    if not api.has_key:
        unknown.append("GPUs, prices and balance: there is no RunPod API key here")
    elif not Asked("RunPod", "reaching it", _is_reached).result(time.monotonic() + _REACH_S, unknown):
        unknown[:] = [f"GPUs, prices and balance: {_host()} cannot be reached"]
    else:
        deadline = time.monotonic() + _LOOK_S
        of_gpus = Asked("RunPod", "prices", lambda: api.ask("looking at prices", _GPUS % count))
        of_account = Asked("RunPod", "the account", lambda: api.ask("looking at the account", _ACCOUNT))
        if (told := of_gpus.result(deadline, unknown)) is not None:
            gpus = [Gpu.of(one) for one in told.get("gpuTypes") or [] if one and one.get("id") != "unknown"]
        if (told := of_account.result(deadline, unknown)) is not None:
            account = told.get("myself") or {}
    volume, centers = _volume(options, account)
    types = _types(options, gpus, asked, count)
    offers, bids = _offers(options, types, centers, count)
    limit = options.max_price_usd_per_hour if gpus is not None else None
    within, left_out = rented.within(offers, limit)
    if not within:
        raise rented.too_dear(offers, left_out, limit)
    return Found(
        offers=within,
        unknown=(*unknown, *left_out),
        gpu_count=count,
        bids=bids,
        fitting=None if options.gpu_types else str(asked),
        balance_usd=(account or {}).get("clientBalance"),
        spent_usd_per_hour=(account or {}).get("currentSpendPerHr"),
        volume=volume,
    )


def on_demand(api: Api, gpu: str, cloud: str, count: int) -> float | None:
    """What a GPU costs on demand, in USD an hour; None if RunPod does not tell.

    Raises:
        RunctlError: what RunPod says.
    """
    told = api.ask("looking at prices", _GPUS % count).get("gpuTypes") or []
    found = [Gpu.of(one) for one in told if one and one.get("id") == gpu]
    return found[0].price("on_demand", cloud) if found else None


def _host() -> str:
    return urlsplit(os.environ.get("RUNPOD_API_BASE_URL") or _API).netloc


def _is_reached() -> bool:
    """Whether there is a way to RunPod: without one, its SDK need not be loaded, which takes longer."""
    where = urlsplit(os.environ.get("RUNPOD_API_BASE_URL") or _API)
    if {where.scheme, "all"} & urllib.request.getproxies().keys():
        return True  # its business
    try:
        address = (where.hostname or "", where.port or (443 if where.scheme == "https" else 80))
        with socket.create_connection(address, timeout=_REACH_S):
            return True
    except OSError:
        return False


def _volume(options: RunpodOptions, account: dict[str, Any] | None) -> tuple[str | None, Sequence[str | None]]:
    """The network volume's id, and the data centers to ask for."""
    named = options.network_volume
    centers: Sequence[str | None] = options.data_centers or (None,)
    if named is None or account is None:
        return named, centers
    there = account.get("networkVolumes") or []
    found = next((one for one in there if named in (one["id"], one["name"])), None)
    if found is None:
        known = ", ".join(f"{one['name']} ({one['id']})" for one in there) or "none"
        raise ConfigError(f"platform.network_volume={named}: there is no such volume; there is {known}")
    center = found["dataCenterId"]
    if options.data_centers and center not in options.data_centers:
        raise ConfigError(
            f"platform.data_centers={','.join(options.data_centers)}: network volume {named} is in {center}; "
            "leave data_centers out"
        )
    return str(found["id"]), (center,)


def _types(options: RunpodOptions, gpus: list[Gpu] | None, asked: Resources, count: int) -> list[Gpu]:
    """The types to ask for, in their order."""
    if gpus is None:
        return [_unknown(name, options) for name in options.gpu_types or (asked.gpu or UNKNOWN_TYPE,)]
    if not options.gpu_types:
        return _fitting(options, gpus, asked, count)
    found = []
    for name in options.gpu_types:
        called = [one for one in gpus if one.is_called(name)]
        if not called:
            known = ", ".join(sorted(one.name for one in gpus))
            raise ConfigError(f"platform.gpu_type={name}: RunPod has no such GPU; there are {known}")
        if count > called[0].most:
            raise ConfigError(f"platform.gpu_count={count}: a pod has at most {called[0].most} of {called[0].name}")
        found.append(called[0])
    return found


def _fitting(options: RunpodOptions, gpus: list[Gpu], asked: Resources, count: int) -> list[Gpu]:
    """The types that fit, the cheapest first; what is not to be had just now comes last."""
    first = options.terms.markets[0]

    def rank(one: Gpu) -> tuple[bool, float]:
        prices = [one.price(first, cloud) for cloud in options.clouds if cloud in one.clouds]
        return one.lowest[first] is None, min((price for price in prices if price is not None), default=float("inf"))

    fitting = [one for one in gpus if one.fits(asked, count) and set(one.clouds) & set(options.clouds)]
    if not fitting:
        known = ", ".join(sorted(f"{one.name} ({one.memory_gb:g} GB)" for one in gpus))
        raise ConfigError(
            f"no GPU in RunPod's {' or '.join(options.clouds)} cloud has {asked}; GPUs there: {known}; "
            "ask for something else with resources.*, or name one with platform.gpu_type"
        )
    return sorted(fitting, key=rank)[:TYPES_AT_MOST]


def _unknown(name: str, options: RunpodOptions) -> Gpu:
    nothing: dict[str, float | None] = {"secure": None, "community": None}
    return Gpu(name, name, 0.0, 8, options.clouds, nothing, nothing, {"spot": None, "on_demand": None})


def _offers(
    options: RunpodOptions, types: list[Gpu], centers: Sequence[str | None], count: int
) -> tuple[list[Offer], dict[str, float | None]]:
    """Every way to rent one, in the order in which they are tried, and the lowest bids."""
    offers: list[Offer] = []
    bids: dict[str, float | None] = {}
    for market in options.terms.markets:
        for gpu in types:
            of_type = []
            for cloud in (one for one in options.clouds if one in gpu.clouds):
                price = gpu.price(market, cloud)
                if market == "spot":
                    bids[f"{gpu.id}/{cloud}"] = price
                of_pod = None if price is None else round(price * count, 4)
                if market == "spot" and options.bid_usd_per_hour is not None:
                    of_pod = options.bid_usd_per_hour
                of_type += [Offer("runpod", gpu.id, market, cloud, center, of_pod) for center in centers]
            offers += sorted(of_type, key=lambda one: (one.price_usd_per_hour is None, one.price_usd_per_hour or 0.0))
    if not offers:
        raise ConfigError(
            f"platform.gpu_type={', '.join(one.name for one in types)}: not in RunPod's {' or '.join(options.clouds)} "
            "cloud; name another, or platform.cloud_type=any"
        )
    return offers, bids
