"""What `+platform=runpod` can be told: the schema of its options, and the options checked and frozen."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

# OmegaConf reads annotations at run time, and knows Optional and List, not their newer spellings.
from typing import Any, List, Optional

from runctl.durations import parse_duration_s
from runctl.errors import ConfigError
from runctl.platforms.base import Terms
from runctl.platforms.rented import RentedConfig, check_least, listed, terms

#: RunPod's own image with torch 2.8 and CUDA 12.8, by the name under which many public projects use it; not tried here,
#: for that takes an account. Its start script starts sshd if there is a PUBLIC_KEY.
IMAGE = "runpod/pytorch:2.8.0-py3.11-cuda12.8.1-cudnn-devel-ubuntu22.04"
#: Where volumes are mounted: RunPod's custom.
MOUNT_PATH = "/workspace"
SSH_PORT = "22/tcp"
#: RunPod's own images start their sshd so.
START = "if [ -x /start.sh ]; then exec /start.sh; fi; exec start.sh"


class CloudType(Enum):
    secure = "secure"
    community = "community"
    any = "any"


class Transport(Enum):
    ssh = "ssh"
    start_command = "start_command"


@dataclass
class RunpodConfig(RentedConfig):
    """gpu_type: RunPod's id or name, or a list in the order in which they are tried; without, what resources asks.

    cloud_type: secure are data centers, community are the machines of others, which are cheaper; any tries both.

    bid_usd_per_hour: of the whole pod, on spot; without one it is the lowest that is accepted.

    image: with Python and bash, and over ssh with sshd; network_volume: its id or name; ports: besides SSH's, such as
    6006/http; template: a template's id.

    collect: how long a pod whose results lie on it alone waits, after its end, for a launcher to bring them.

    start: what the image's container runs by itself.

    transport: how the host gets the project: over ssh, or by a start_command that fetches it from object storage.
    """

    kind: str = "runpod"
    gpu_type: Any = None
    gpu_count: Optional[int] = None
    cloud_type: CloudType = CloudType.secure
    bid_usd_per_hour: Optional[float] = None
    image: str = IMAGE
    container_disk_gb: int = 50
    volume_gb: int = 0
    network_volume: Optional[str] = None
    data_centers: List[str] = field(default_factory=list)
    cuda_versions: List[str] = field(default_factory=list)
    ports: List[str] = field(default_factory=list)
    template: Optional[str] = None
    collect: str = "1h"
    start: str = START
    transport: Transport = Transport.ssh


@dataclass(frozen=True)
class RunpodOptions:
    """The options, checked; durations in seconds, sizes in GB; no types where none was named.

    Attributes:
        clouds: `secure`, `community`.
        ports: SSH's among them.
    """

    gpu_types: tuple[str, ...]
    gpu_count: int | None
    clouds: tuple[str, ...]
    bid_usd_per_hour: float | None
    max_price_usd_per_hour: float | None
    image: str
    container_disk_gb: int
    volume_gb: int
    network_volume: str | None
    data_centers: tuple[str, ...]
    cuda_versions: tuple[str, ...]
    ports: tuple[str, ...]
    template: str | None
    collect_s: float
    start: str
    transport: Transport
    host: str | None
    python: str | None
    setup: tuple[str, ...]
    bring_up_s: float
    terms: Terms

    @classmethod
    def of(cls, config: RunpodConfig, *, attached: bool) -> RunpodOptions:
        """Check what was configured.

        Args:
            config: as composed.
            attached: whether somebody stays to look at a host that failed.

        Raises:
            ConfigError: for the first value that cannot be.
        """
        types = listed("platform.gpu_type", config.gpu_type, r"[\w .+-]*\w[\w .+-]*", "'RTX 4090'")
        if not types and config.gpu_type is not None:
            raise ConfigError("platform.gpu_type is empty; name one, such as 'RTX 4090', or a list of them")
        check_least(config, {"gpu_count": 1, "container_disk_gb": 5, "volume_gb": 0})
        its_terms = terms(config, attached=attached)
        bid, most = config.bid_usd_per_hour, config.max_price_usd_per_hour
        if bid is not None and bid <= 0:
            raise ConfigError(f"platform.bid_usd_per_hour={bid}: more than 0")
        if bid is not None and "spot" not in its_terms.markets:
            raise ConfigError(
                f"platform.bid_usd_per_hour={bid}: nobody bids on demand; platform.market=spot, or no bid"
            )
        if bid is not None and most is not None and bid > most:
            raise ConfigError(f"platform.bid_usd_per_hour={bid}: more than platform.max_price_usd_per_hour={most}")
        if config.host is not None and config.transport is Transport.start_command:
            raise ConfigError(
                f"platform.host={config.host}: a pod that runs already is reached over SSH; leave "
                "platform.transport=start_command away"
            )
        if config.start != START and config.transport is Transport.start_command:
            raise ConfigError(
                f"platform.start={config.start}: with platform.transport=start_command the image's own start is not "
                "run; leave it away, or do what it does in a line of platform.setup"
            )
        if config.template is not None and config.transport is Transport.start_command:
            raise ConfigError(
                f"platform.template={config.template}: a template has a start command of its own, and "
                "platform.transport=start_command is another; leave one of them away"
            )
        if not config.image.strip():
            raise ConfigError(f"platform.image is empty; name one, such as {IMAGE}")
        if config.network_volume and config.volume_gb:
            raise ConfigError("platform.network_volume and platform.volume_gb are both given; a pod mounts one of them")
        if config.network_volume and config.cloud_type is CloudType.community:
            raise ConfigError(
                "platform.network_volume: there is none in the community cloud; platform.cloud_type=secure"
            )
        clouds = ("secure", "community") if config.cloud_type is CloudType.any else (config.cloud_type.value,)
        return cls(
            gpu_types=types,
            gpu_count=config.gpu_count,
            clouds=("secure",) if config.network_volume else clouds,
            bid_usd_per_hour=bid,
            max_price_usd_per_hour=most,
            image=config.image.strip(),
            container_disk_gb=config.container_disk_gb,
            volume_gb=config.volume_gb,
            network_volume=config.network_volume,
            data_centers=listed("platform.data_centers", config.data_centers, r"[A-Z0-9-]+", "EU-RO-1"),
            cuda_versions=listed("platform.cuda_versions", config.cuda_versions, r"\d+\.\d+", "'12.8'"),
            ports=_ports(config.ports),
            template=config.template,
            collect_s=parse_duration_s(config.collect, "platform.collect"),
            start=config.start,
            transport=config.transport,
            host=config.host,
            python=config.python,
            setup=tuple(config.setup),
            bring_up_s=parse_duration_s(config.bring_up, "platform.bring_up"),
            terms=its_terms,
        )


def _ports(given: list[str]) -> tuple[str, ...]:
    ports = listed("platform.ports", given, r"\d{1,5}/(tcp|http)", "6006/http")
    for port in ports:
        if not 0 < int(re.split("/", port)[0]) < 65536:
            raise ConfigError(f"platform.ports={port}: a port is 1 to 65535")
    return tuple(dict.fromkeys((SSH_PORT, *ports)))
