"""Which driver a CUDA needs, and which CUDA a GPU needs (pure).

Sources: of drivers "Minor Version Compatibility" (docs.nvidia.com/deploy/cuda-compatibility), which gives 450.80.02 for
CUDA 11, 525 for 12 and 580 for 13; the figures behind the last two, and which CUDA first compiles for which GPU, are
those of the toolkits' release notes, from memory. Versions are compared by their numbers alone.
"""

from __future__ import annotations

import re

#: The oldest driver for Linux that runs programs built for any minor version.
_DRIVERS = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
#: The first CUDA for GPUs of a compute capability, and the first that knows them no more.
_FIRST = (((12, 0), "12.8"), ((10, 0), "12.8"), ((8, 9), "11.8"), ((8, 6), "11.1"), ((8, 0), "11.0"))
_LAST: tuple[tuple[tuple[int, int], str], ...] = (((7, 5), "13.0"),)


def driver_for(cuda: str) -> str | None:
    """The oldest driver that runs it; None where that is not known."""
    return _DRIVERS.get(_numbers(cuda)[0])


def complaint(cuda: str, driver: str | None, capability: tuple[int, int] | None) -> str | None:
    """Why programs that were built for a CUDA do not run on a host, or None.

    Args:
        cuda: such as `12.8`.
        driver: of the host; None is not known, and no reason.
        capability: of its GPU, such as (8, 9); None likewise.
    """
    needed = driver_for(cuda)
    if driver is not None and needed is not None and _numbers(driver) < _numbers(needed):
        return f"CUDA {cuda} needs the driver {needed} or newer, and this host has {driver}"
    if capability is None:
        return None
    named = f"a GPU of compute capability {capability[0]}.{capability[1]}"
    first = next((version for least, version in _FIRST if capability >= least), None)
    if first is not None and _numbers(cuda) < _numbers(first):
        return f"{named} needs CUDA {first} or newer, and torch was built for {cuda}"
    for least, gone in _LAST:
        if capability < least and _numbers(cuda) >= _numbers(gone):
            return f"CUDA {gone} and newer know {named} no more, and torch was built for {cuda}"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)) or (0,)
