"""What `+platform=aws` can be told: the schema of its options, and the options checked and frozen."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# OmegaConf reads annotations at run time, and knows Optional and List, not their newer spellings.
from typing import Any, List, Optional

from runctl.durations import parse_duration_s
from runctl.errors import ConfigError
from runctl.platforms.base import Terms
from runctl.platforms.rented import RentedConfig, check_least, listed, terms


@dataclass
class AwsConfig(RentedConfig):
    """instance_type, region: one, or a list in the order in which they are tried; without a type, what resources asks.

    ami: auto takes the newest image for deep learning; instance_profile: the role of the host; security_group: one
    without any way in is made if it is not there; subnets: instead of the default ones.
    """

    kind: str = "aws"
    instance_type: Any = None
    region: Any = None
    zones: List[str] = field(default_factory=list)
    subnets: List[str] = field(default_factory=list)
    ami: str = "auto"
    instance_profile: str = "runctl"
    security_group: str = "runctl"
    root_volume_gib: int = 100
    data_volume_gib: Optional[int] = None


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
    host: str | None
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
        types = listed("platform.instance_type", config.instance_type, r"[a-z0-9-]+\.[a-z0-9-]+", "g6.xlarge")
        if not types and config.instance_type is not None:
            raise ConfigError("platform.instance_type is empty; name one, such as g6.xlarge, or a list of them")
        regions = listed("platform.region", config.region or default_region, r"[a-z]{2}(-[a-z]+)+-\d", "us-east-1")
        check_least(config, {"root_volume_gib": 8, "data_volume_gib": 1})
        its_terms = terms(config, attached=attached)
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
            max_price_usd_per_hour=config.max_price_usd_per_hour,
            ami=config.ami,
            instance_profile=config.instance_profile,
            security_group=config.security_group,
            root_volume_gib=config.root_volume_gib,
            data_volume_gib=config.data_volume_gib,
            host=config.host,
            python=config.python,
            setup=tuple(config.setup),
            bring_up_s=parse_duration_s(config.bring_up, "platform.bring_up"),
            terms=its_terms,
        )
