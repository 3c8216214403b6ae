"""How many GPUs this host shows us, found without importing torch."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_AMD_TOPOLOGY = Path("/sys/class/kfd/kfd/topology/nodes")


def visible_gpus() -> int:
    """Number of GPUs that a process started here may use.

    CUDA_VISIBLE_DEVICES (and its AMD twins) is honoured as CUDA does: the list ends at the first `-1`.
    """
    present = _nvidia() or _amd()
    for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        value = os.environ.get(variable)
        if value is not None:
            # A MIG slice is listed by its UUID and is less than a whole GPU: there the list counts.
            return _listed(value) if "MIG" in value else min(present, _listed(value))
    return present


def _listed(value: str) -> int:
    entries = [entry.strip() for entry in value.split(",") if entry.strip()]
    return entries.index("-1") if "-1" in entries else len(entries)


def _nvidia() -> int:
    """Count through the driver's own library, which also knows what a container may see."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0
    count = ctypes.c_uint(0)
    if nvml.nvmlInit_v2() != 0:
        return 0
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    nvml.nvmlShutdown()
    return count.value


def _amd() -> int:
    """A node of the kernel's compute topology with SIMD units is a GPU; the others are processors."""
    count = 0
    for node in _AMD_TOPOLOGY.glob("*/properties"):
        try:
            fields = dict(line.split(maxsplit=1) for line in node.read_text().splitlines() if " " in line)
        except OSError:
            continue
        count += int(fields.get("simd_count", "0")) > 0
    return count
