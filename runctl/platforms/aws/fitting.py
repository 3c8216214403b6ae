"""Which types of instances have what a launch asks for, where none was named: from AWS's own descriptions, by price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runctl.errors import ConfigError
from runctl.platforms.aws import prices
from runctl.platforms.aws.clients import Clients, translated
from runctl.platforms.rented import TYPES_AT_MOST, plain, wanted
from runctl.spec import Resources

#: Types whose prices are asked for: the smallest that fit, for of one family a larger one costs more.
_CANDIDATES = 12


@dataclass(frozen=True)
class InstanceType:
    """What counts of a type of instance; memory of one GPU in bytes."""

    name: str
    cpus: int
    memory_mib: int
    gpus: int = 0
    gpu: str = ""
    gpu_memory_bytes: int = 0

    @classmethod
    def of(cls, told: dict[str, Any]) -> InstanceType | None:
        """One of EC2's descriptions; None for what nobody gets: bare metal, shares of a GPU, GPUs without CUDA."""
        gpus = told.get("GpuInfo", {}).get("Gpus", [])
        whole = all(one.get("GpuPartitionSize", 1.0) == 1.0 and one.get("Manufacturer") == "NVIDIA" for one in gpus)
        if told.get("BareMetal") or not whole or len(gpus) > 1 or (not gpus and _has_other_accelerators(told)):
            return None
        one = gpus[0] if gpus else {}
        return cls(
            told["InstanceType"], told["VCpuInfo"]["DefaultVCpus"], told["MemoryInfo"]["SizeInMiB"],
            one.get("Count", 0), one.get("Name", ""), one.get("MemoryInfo", {}).get("SizeInMiB", 0) << 20,
        )  # fmt: skip

    def fits(self, wanted: Resources) -> bool:
        """Whether it has as many GPUs as are wanted, of the name that is wanted, and enough of everything else.

        A GPU's memory is compared as it is sold: of an L4's 24 GB, which are 24 · 10⁹ bytes, EC2 tells 22,888 MiB.
        """
        return (
            self.gpus == (wanted.gpus or 0)
            and (wanted.gpu is None or plain(wanted.gpu) == plain(self.gpu))
            and self.gpu_memory_bytes >= (wanted.gpu_memory_gib or 0) * 0.999e9
            and self.cpus >= (wanted.cpus or 0)
        )

    @property
    def size(self) -> tuple[int, int, int]:
        return self.gpus * self.gpu_memory_bytes, self.cpus, self.memory_mib


def types(clients: Clients, regions: Sequence[str], resources: Resources) -> tuple[str, ...]:
    """The types that fit, the cheapest first.

    Args:
        clients: AWS's clients.
        regions: where to look.
        resources: what was asked for.

    Raises:
        ConfigError: if nothing fits.
        RunctlError: if AWS does not let us look.
    """
    asked = wanted(resources)
    found: dict[str, InstanceType] = {}
    cheapest: dict[str, float] = {}
    gpus: set[str] = set()
    for region in regions:
        here = _described(clients, region, asked)
        fitting = sorted((one for one in here if one.fits(asked)), key=lambda one: one.size)[:_CANDIDATES]
        found.update({one.name: one for one in fitting})
        gpus.update(one.gpu for one in here if one.gpu)
        names = [one.name for one in fitting]
        # An order by prices on spot holds on demand too, near enough, and is one request instead of many.
        for (name, _), price in prices.spot(clients, names, region).items() if names else ():
            cheapest[name] = min(price, cheapest.get(name, price))
    if not found:
        raise ConfigError(
            f"no type of instance in {', '.join(regions)} has {asked}; "
            + (f"GPUs there: {', '.join(sorted(gpus))}; " if gpus and asked.gpus else "")
            + "ask for something else with resources.*, or name one with platform.instance_type"
        )
    ranked = sorted(found.values(), key=lambda one: (one.name not in cheapest, cheapest.get(one.name, 0.0), one.size))
    return tuple(one.name for one in ranked[:TYPES_AT_MOST])


def _described(clients: Clients, region: str, asked: Resources) -> list[InstanceType]:
    filters = [{"Name": "processor-info.supported-architecture", "Values": ["x86_64"]}]
    if asked.gpus:
        filters.append({"Name": "instance-type", "Values": ["g*", "p*"]})  # hundreds less to read
    else:
        filters.append({"Name": "current-generation", "Values": ["true"]})
    with translated(f"looking for types of instances in {region}"):
        pages = clients.ec2(region).get_paginator("describe_instance_types").paginate(Filters=filters)
        told = [InstanceType.of(one) for page in pages for one in page["InstanceTypes"]]
    return [one for one in told if one is not None]


def _has_other_accelerators(told: dict[str, Any]) -> bool:
    return any(
        told.get(name) for name in ("InferenceAcceleratorInfo", "NeuronInfo", "FpgaInfo", "MediaAcceleratorInfo")
    )
