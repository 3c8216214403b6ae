"""How busy this host is: its GPUs, processors and memory, as shares from 0 to 1."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import psutil

from runctl.hosts.gpus import GpuLoad

#: The bounds of a container stand here (cgroup v2); the host's own group has none of these files.
_CGROUP = Path("/sys/fs/cgroup")


class HostLoad:
    """Samples the load; in a container with bounds of its own, of what it may have.

    Args:
        cgroup: where the kernel tells of this container.
    """

    def __init__(self, cgroup: Path = _CGROUP) -> None:
        self._gpus = GpuLoad()
        self._cgroup = cgroup
        self._used_s: float | None = None
        self._at = time.monotonic()
        psutil.cpu_percent(None)  # the first call has nothing to compare with

    def sample(self) -> dict[str, float]:
        """Shares since the sample before: `gpu` and `gpu_memory` of all GPUs together, `cpu`, `memory`.

        What this host does not tell is left out.
        """
        cpu = self._container_cpu()
        memory = self._container_memory()
        shares = {
            "gpu": self._gpus.share(),
            "gpu_memory": self._gpus.memory_share(),
            "cpu": psutil.cpu_percent(None) / 100 if cpu is None else cpu,
            "memory": psutil.virtual_memory().percent / 100 if memory is None else memory,
        }
        return {name: round(min(1.0, share), 3) for name, share in shares.items() if share is not None}

    def _container_cpu(self) -> float | None:
        """`cpu.max` is how many microseconds of processor time there are in a period, or `max`."""
        bound = self._told("cpu.max").split()
        stat = dict(line.split(maxsplit=1) for line in self._told("cpu.stat").splitlines() if " " in line)
        if len(bound) != 2 or not bound[0].isdigit() or "usage_usec" not in stat:
            return None
        before, began = self._used_s, self._at
        self._used_s, self._at = int(stat["usage_usec"]) / 1e6, time.monotonic()
        passed_s = self._at - began
        if before is None or passed_s <= 0:
            return None
        return (self._used_s - before) / (passed_s * int(bound[0]) / int(bound[1]))

    def _container_memory(self) -> float | None:
        """Without what is only cached, which the kernel takes back when somebody needs memory."""
        bound, used = self._told("memory.max").strip(), self._told("memory.current").strip()
        if not bound.isdigit() or not used.isdigit() or int(bound) == 0:
            return None
        stat = dict(line.split(maxsplit=1) for line in self._told("memory.stat").splitlines() if " " in line)
        return max(0, int(used) - int(stat.get("inactive_file", "0"))) / int(bound)

    def _told(self, name: str) -> str:
        with contextlib.suppress(OSError):
            return (self._cgroup / name).read_text()
        return ""
