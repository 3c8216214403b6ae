"""What platforms that rent hosts have in common: on what terms, in which market, for how long."""

from __future__ import annotations

import hashlib
import json
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

# OmegaConf reads annotations at run time, and knows Optional and List, not their newer spellings.
from typing import Any, List, Optional

from runctl.config.platform import PlatformConfig
from runctl.durations import parse_duration_s
from runctl.errors import ConfigError
from runctl.platforms.base import Terms
from runctl.spec import LaunchSpec, Limits, Offer, Plan, Quote, Resources

#: How long a host stays after a failure if nothing is said, and somebody is there to look.
_KEPT_S = 900.0
#: No host is rented for longer if nobody says how long.
MAX_TIME_S = 24 * 3600.0
#: What an attempt may take besides its training: its last upload, and the host's own end.
_AFTERWARDS_S = 600.0
#: What is rented where nothing was said.
DEFAULT = Resources(gpus=1, gpu_memory_gib=24.0)
#: Types that are tried one after the other, where none was named.
TYPES_AT_MOST = 4


class Market(Enum):
    spot = "spot"
    on_demand = "on_demand"
    spot_then_on_demand = "spot_then_on_demand"


@dataclass
class RentedConfig(PlatformConfig):
    """market: spot_then_on_demand rents on demand once there was nothing for fallback_after, or after spot_attempts
    interruptions; wait_for_capacity: how long to try at all.

    python: the ranks' interpreter; setup: shell commands on the host before the training; keep_on_failure: how long a
    host stays for a look; bring_up: how long it may take to come up; keep_warm: how long it waits for the next launch
    once this one has ended.

    host: the id of one that `runctl aws create` or `runctl runpod create` made; it stays afterwards.
    """

    market: Market = Market.spot_then_on_demand
    fallback_after: str = "15m"
    wait_for_capacity: str = "8h"
    spot_attempts: int = 3
    max_attempts: int = 10
    max_price_usd_per_hour: Optional[float] = None
    python: Optional[str] = None
    setup: List[str] = field(default_factory=list)
    keep_on_failure: Optional[str] = None
    bring_up: str = "15m"
    host: Optional[str] = None
    keep_warm: Optional[str] = None


def terms(config: RentedConfig, *, attached: bool) -> Terms:
    """On what terms hosts are to be had.

    Args:
        config: as composed.
        attached: whether somebody stays to look at a host that failed.

    Raises:
        ConfigError: for the first value that cannot be.
    """
    check_least(config, {"max_attempts": 1, "spot_attempts": 1})
    price = config.max_price_usd_per_hour
    if price is not None and price <= 0:
        raise ConfigError(f"platform.max_price_usd_per_hour={price}: more than 0")
    markets = {
        Market.spot: ("spot",),
        Market.on_demand: ("on_demand",),
        Market.spot_then_on_demand: ("spot", "on_demand"),
    }[config.market]
    keep = config.keep_on_failure
    return Terms(
        rented=True,
        markets=markets,
        fallback_after_s=parse_duration_s(config.fallback_after, "platform.fallback_after"),
        wait_for_capacity_s=parse_duration_s(config.wait_for_capacity, "platform.wait_for_capacity"),
        spot_attempts=config.spot_attempts,
        max_attempts=config.max_attempts,
        keep_on_failure_s=(_KEPT_S if attached else 0.0) if keep is None else _keep_s(keep),
    )


def check_least(config: PlatformConfig, least: dict[str, int]) -> None:
    """Check that options are at least so much, or None.

    Raises:
        ConfigError: for the first that is less.
    """
    for key, at_least in least.items():
        value = getattr(config, key)
        if value is not None and value < at_least:
            raise ConfigError(f"platform.{key}={value}: at least {at_least}")


def listed(key: str, value: Any, shape: str, example: str) -> tuple[str, ...]:
    """One word or a list of them.

    Args:
        key: of the option.
        value: what was given.
        shape: a regular expression of a word.
        example: of one.

    Raises:
        ConfigError: for a word of another shape.
    """
    words = [] if value is None else [value] if isinstance(value, str) else list(value)
    for word in words:
        if not isinstance(word, str) or not re.fullmatch(shape, word):
            raise ConfigError(f"{key}={word}: such as {example}, or a list: '{key}=[{example},…]'")
    return tuple(words)


def bounded(limits: Limits) -> Limits:
    """Limits with one of time, for what is rented must end."""
    return limits if limits.max_time_s is not None else replace(limits, max_time_s=MAX_TIME_S)


def lifetime_s(spec: LaunchSpec, bring_up_s: float) -> float:
    """After how many seconds a host ends itself, whatever happens to everybody else."""
    assert spec.limits.max_time_s is not None  # the platform fills it in
    return spec.limits.max_time_s + bring_up_s + spec.checkpoint.grace_s + _AFTERWARDS_S


def wanted(resources: Resources) -> Resources:
    """What is asked for, with what follows: where nothing is said of GPUs, the default; `gpus=0` wants none."""
    if resources.gpus is not None:
        return resources
    said = resources.gpu is not None or resources.gpu_memory_gib is not None
    return replace(resources, gpus=1, gpu_memory_gib=resources.gpu_memory_gib if said else DEFAULT.gpu_memory_gib)


def chosen(quote: Quote) -> tuple[str, ...]:
    """A plan's note of what was chosen for what, where no type was named."""
    if not quote.facts["fitting"]:
        return ()
    types = ", ".join(dict.fromkeys(offer.machine for offer in quote.offers))
    return (f"for {quote.facts['fitting']}: {types}",)


def estimated(plan: Plan, lives_s: float, disk_usd_per_hour: float | None) -> Plan:
    """A plan with what it costs: the first offer's price, and the dearest one's with its disks for a host's whole life.

    Spot whose price nobody knows costs at most what the same does on demand: where no highest price is given, that is
    the highest (docs.aws.amazon.com, "Spot Instances": the default maximum is the on-demand price).

    Args:
        plan: with its offers.
        lives_s: how long a host may live (seconds).
        disk_usd_per_hour: of a host's disks together, where they are dearest; None is not known.
    """
    on_demand = {(one.machine, one.region): one.price_usd_per_hour for one in plan.offers if one.market == "on_demand"}
    most = [
        on_demand.get((one.machine, one.region)) if one.price_usd_per_hour is None else one.price_usd_per_hour
        for one in plan.offers
    ]
    known = [price for price in most if price is not None]
    return replace(
        plan,
        estimate_usd_per_hour=plan.offers[0].price_usd_per_hour if plan.offers else None,
        estimate_usd=(
            round((max(known) + disk_usd_per_hour) * lives_s / 3600, 2)
            if known and len(known) == len(most) and disk_usd_per_hour is not None
            else None
        ),
    )


def within(offers: Sequence[Offer], limit: float | None) -> tuple[tuple[Offer, ...], tuple[str, ...]]:
    """Offers that cost no more than they may (US dollars an hour), and in words those whose price nobody knows.

    On spot that does no harm: what is bid bounds it.
    """
    if limit is None:
        return tuple(offers), ()
    unknown = [one for one in offers if one.price_usd_per_hour is None and one.market != "spot"]
    left_out = dict.fromkeys(
        f"{one.machine} {one.market.replace('_', ' ')} in {one.region}: its price is not known, so it is left out "
        f"(platform.max_price_usd_per_hour={limit:g})"
        for one in unknown
    )
    kept = (one for one in offers if one not in unknown and (one.price_usd_per_hour or 0.0) <= limit)
    return tuple(kept), tuple(left_out)


def too_dear(offers: Sequence[Offer], left_out: Sequence[str], limit: float | None) -> ConfigError:
    """The error where nothing is left of offers after `within`."""
    known = [one for one in offers if one.price_usd_per_hour is not None]
    if not known:
        return ConfigError("; ".join(left_out))
    cheapest = min(known, key=lambda one: one.price_usd_per_hour or 0.0)
    where = cheapest.zone or cheapest.region
    return ConfigError(
        f"platform.max_price_usd_per_hour={limit}: the cheapest is {cheapest.machine} "
        f"{cheapest.market.replace('_', ' ')} in {where} at {cheapest.price_usd_per_hour} USD an hour"
    )


def pause(tries: int, first_s: float, longest_s: float) -> None:
    """Wait before the next try: twice as long each time, and jittered, so that a sweep's jobs do not come together."""
    time.sleep(random.uniform(0.5, 1.0) * min(first_s * 2 ** (tries - 1), longest_s))


def plain(name: str) -> str:
    """A GPU's name to compare: case, spaces and dashes do not count: `RTX A6000` is `rtx-a6000`."""
    return "".join(filter(str.isalnum, name)).lower()


def digest_of(*told: Any) -> str:
    """A short word for plain values: the same in every process for the same ones."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def word_of(place: str) -> str:
    """Eight letters that tell one run directory from the others that hold a run of the same id."""
    return hashlib.blake2b(place.encode(), digest_size=4).hexdigest()


def _keep_s(text: str) -> float:
    return 0.0 if text.strip() in ("0", "0s", "0m") else parse_duration_s(text, "platform.keep_on_failure")
