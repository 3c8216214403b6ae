"""How many GPUs this host shows us, and how busy they are, found without importing torch."""

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


class _Utilization(ctypes.Structure):
    """`nvmlUtilization_t`: per cent of the last sample period in which a kernel ran, or memory was accessed."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Memory(ctypes.Structure):
    """`nvmlMemory_t`: bytes of a GPU's memory."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class GpuLoad:
    """How busy this host's GPUs are, as the driver's own library tells it."""

    def __init__(self) -> None:
        self._nvml = _opened_nvml()
        self._handles: list[ctypes.c_void_p] = []
        count = ctypes.c_uint(0)
        if self._nvml is not None:
            self._nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        for index in range(count.value):
            handle = ctypes.c_void_p()
            if self._nvml is not None and self._nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) == 0:
                self._handles.append(handle)
        self._silent = len(self._handles) < count.value or (count.value == 0 and _amd() > 0)

    def busiest(self) -> float | None:
        """The share of its time, from 0 to 1, that the busiest GPU works; 0 without one, None if one does not tell."""
        shares = self._shares()
        return None if shares is None else max(shares, default=0.0)

    def share(self) -> float | None:
        """How much of their time (0 to 1) the GPUs work on average; None without any, or if one is silent."""
        shares = self._shares()
        return sum(shares) / len(shares) if shares else None

    def memory_share(self) -> float | None:
        """The share of the GPUs' memory that is taken, from 0 to 1; None without any, or if one does not tell."""
        used = total = 0
        for handle in self._handles:
            found = _Memory()
            if self._nvml is None or self._nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(found)) != 0:
                return None
            used, total = used + found.used, total + found.total
        return None if self._silent or total == 0 else used / total

    def _shares(self) -> list[float] | None:
        if self._silent:
            return None
        shares = []
        for handle in self._handles:
            found = _Utilization()
            if self._nvml is None or self._nvml.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(found)) != 0:
                return None  # sliced with MIG, for one
            shares.append(found.gpu / 100)
        return shares


def _listed(value: str) -> int:
    entries = [entry.strip() for entry in value.split(",") if entry.strip()]
    return entries.index("-1") if "-1" in entries else len(entries)


def _nvidia() -> int:
    """Count through the driver's own library, which also knows what a container may see."""
    nvml = _opened_nvml()
    count = ctypes.c_uint(0)
    if nvml is None:
        return 0
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    nvml.nvmlShutdown()
    return count.value


def _opened_nvml() -> ctypes.CDLL | None:
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return nvml if nvml.nvmlInit_v2() == 0 else None


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
