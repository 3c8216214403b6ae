"""What `+platform=aws` can be told: the schema of its options, and the options checked and frozen."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

# OmegaConf reads annotations at run time, and knows Optional and List, not their newer spellings.
from typing import Any, List, Optional

from runctl.config.platform import PlatformConfig
from runctl.durations import parse_duration_s
from runctl.errors import ConfigError
from runctl.platforms.base import Terms

#: How long a host stays after a failure if nothing is said, and somebody is there to look.
_KEPT_S = 900.0


class Market(Enum):
    spot = "spot"
    on_demand = "on_demand"
    spot_then_on_demand = "spot_then_on_demand"


@dataclass
class AwsConfig(PlatformConfig):
    """instance_type, region: one, or a list in the order in which they are tried; without a type, what resources asks.

    market: spot_then_on_demand rents on demand once there was nothing for fallback_after, or after spot_attempts
    interruptions; wait_for_capacity: how long to try at all.

    ami: auto takes the newest image for deep learning; instance_profile: the role of the host; security_group: one
    without any way in is made if it is not there; subnets: instead of the default ones; python: the ranks' interpreter.

    setup: shell commands on the host before the training; keep_on_failure: how long a host stays for a look.
    """

    kind: str = "aws"
    instance_type: Any = None
    market: Market = Market.spot_then_on_demand
    fallback_after: str = "15m"
    wait_for_capacity: str = "8h"
    spot_attempts: int = 3
    max_attempts: int = 10
    region: Any = None
    zones: List[str] = field(default_factory=list)
    subnets: List[str] = field(default_factory=list)
    max_price_usd_per_hour: Optional[float] = None
    ami: str = "auto"
    instance_profile: str = "runctl"
    security_group: str = "runctl"
    root_volume_gib: int = 100
    data_volume_gib: Optional[int] = None
    python: Optional[str] = None
    setup: List[str] = field(default_factory=list)
    keep_on_failure: Optional[str] = None
    bring_up: str = "15m"


@dataclass(frozen=True)
class AwsOptions:
    """The options, checked; durations in seconds, sizes in GiB; no types where none was named."""

    instance_types: tuple[str, ...]
    regions: tuple[str, ...]
    zones: tuple[str, ...]
    subnets: tuple[str, ...]
    max_price_usd_per_hour: float | None
    ami: str
    instance_profile: str
    security_group: str
    root_volume_gib: int
    data_volume_gib: int | None
    python: str | None
    setup: tuple[str, ...]
    bring_up_s: float
    terms: Terms

    @classmethod
    def of(cls, config: AwsConfig, default_region: str | None, *, attached: bool) -> AwsOptions:
        """Check what was configured.

        Args:
            config: as composed.
            default_region: what AWS's own settings name, if they do.
            attached: whether somebody stays to look at a host that failed.

        Raises:
            ConfigError: for the first value that cannot be.
        """
        types = _listed("platform.instance_type", config.instance_type, r"[a-z0-9-]+\.[a-z0-9-]+", "g6.xlarge")
        if not types and config.instance_type is not None:
            raise ConfigError("platform.instance_type is empty; name one, such as g6.xlarge, or a list of them")
        regions = _listed("platform.region", config.region or default_region, r"[a-z]{2}(-[a-z]+)+-\d", "us-east-1")
        for key, least in (("root_volume_gib", 8), ("data_volume_gib", 1), ("max_attempts", 1), ("spot_attempts", 1)):
            value = getattr(config, key)
            if value is not None and value < least:
                raise ConfigError(f"platform.{key}={value}: at least {least}")
        price = config.max_price_usd_per_hour
        if price is not None and price <= 0:
            raise ConfigError(f"platform.max_price_usd_per_hour={price}: more than 0")
        if not re.fullmatch(r"auto|ami-[0-9a-f]+", config.ami):
            raise ConfigError(f"platform.ami={config.ami}: auto, or an image's id such as ami-0123456789abcdef0")
        if config.zones and config.subnets:
            raise ConfigError("platform.zones and platform.subnets are both given; a subnet lies in one zone already")
        if config.subnets and len(regions) > 1:
            raise ConfigError("platform.subnets belong to one region; platform.region names several")
        return cls(
            instance_types=types,
            regions=regions or ("us-east-1",),
            zones=tuple(config.zones),
            subnets=tuple(config.subnets),
            max_price_usd_per_hour=price,
            ami=config.ami,
            instance_profile=config.instance_profile,
            security_group=config.security_group,
            root_volume_gib=config.root_volume_gib,
            data_volume_gib=config.data_volume_gib,
            python=config.python,
            setup=tuple(config.setup),
            bring_up_s=parse_duration_s(config.bring_up, "platform.bring_up"),
            terms=_terms(config, attached),
        )


def _terms(config: AwsConfig, attached: bool) -> Terms:
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


def _keep_s(text: str) -> float:
    return 0.0 if text.strip() in ("0", "0s", "0m") else parse_duration_s(text, "platform.keep_on_failure")


def _listed(key: str, value: Any, shape: str, example: str) -> tuple[str, ...]:
    """One word or a list of them."""
    words = [] if value is None else [value] if isinstance(value, str) else list(value)
    for word in words:
        if not isinstance(word, str) or not re.fullmatch(shape, word):
            raise ConfigError(f"{key}={word}: such as {example}, or a list: '{key}=[{example},…]'")
    return tuple(words)
