"""The GPUs in EC2's instance types and their compute capabilities (docs.aws.amazon.com, "Accelerated computing";
NVIDIA's list at developer.nvidia.com/cuda-gpus)."""

from __future__ import annotations

from collections.abc import Iterable

from runctl.spec import Offer

_BY_FAMILY = {
    "p3": (7, 0), "p3dn": (7, 0), "g4dn": (7, 5), "p4d": (8, 0), "p4de": (8, 0), "g5": (8, 6), "g6": (8, 9),
    "gr6": (8, 9), "g6e": (8, 9), "p5": (9, 0), "p5e": (9, 0), "p5en": (9, 0), "p6-b200": (10, 0), "g7e": (12, 0),
}  # fmt: skip

_NAMES = {
    "p3": "V100", "p3dn": "V100", "g4dn": "T4", "p4d": "A100", "p4de": "A100", "g5": "A10G", "g6": "L4", "gr6": "L4",
    "g6e": "L40S", "p5": "H100", "p5e": "H200", "p5en": "H200", "p6-b200": "B200", "g5g": "T4G",
}  # fmt: skip


def name_of(machine: str) -> str:
    """The GPU in a type of instance; empty where there is none, or it is not known."""
    return _NAMES.get(machine.partition(".")[0], "")


def of(offers: Iterable[Offer]) -> list[tuple[int, int]]:
    """Those of the types that are offered, as far as they are known."""
    families = dict.fromkeys(offer.machine.partition(".")[0] for offer in offers)
    return [_BY_FAMILY[family] for family in families if family in _BY_FAMILY]
