"""What of this machine each of the jobs that run at once gets: GPUs, and processors to count on."""

from __future__ import annotations

import os
import queue
from dataclasses import dataclass

from runctl.config.sweeps import SweepSettings
from runctl.errors import ConfigError
from runctl.hosts.gpus import visible_gpus
from runctl.spec import LaunchSpec

#: Hosts that are rented at once where nothing is said.
_HOSTS = 4


@dataclass(frozen=True)
class Slot:
    """A place for one job at a time.

    Attributes:
        variables: what a job there has in its environment.
    """

    variables: dict[str, str]


class Slots:
    """The places of a sweep.

    Args:
        slots: all of them.
    """

    def __init__(self, slots: list[Slot]) -> None:
        self.count = len(slots)
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            self._free.put(slot)

    def take(self) -> Slot:
        """A free one; there is one for whoever runs in a thread of `count`."""
        return self._free.get()

    def give(self, slot: Slot) -> None:
        """Have it back."""
        self._free.put(slot)


def rented(settings: SweepSettings) -> Slots:
    """Places on hosts of their own."""
    return Slots([Slot({}) for _ in range(settings.max_parallel or _HOSTS)])


def here(settings: SweepSettings, spec: LaunchSpec) -> Slots:
    """Places on this machine: its GPUs are shared out, and its processors divided.

    Without a word of how many, as many jobs run at once as there are GPUs for; without GPUs one.

    Raises:
        ConfigError: if there are not as many GPUs as is said.
    """
    gpus = _gpus()
    each = settings.gpus_per_job
    if each is not None and each > len(gpus):
        raise ConfigError(f"sweep.gpus_per_job={each}: this machine shows {len(gpus)}")
    count = settings.max_parallel
    if each is not None and count is not None and each * count > len(gpus):
        raise ConfigError(
            f"sweep.max_parallel={count} with sweep.gpus_per_job={each} takes {each * count} GPUs, and this machine "
            f"shows {len(gpus)}; leave one of the two out, or lower it"
        )
    if each is None:
        each = _wanted(spec, len(gpus)) if count is None else max(1, len(gpus) // count)
    if count is None:
        count = len(gpus) // each if gpus and each else 1
    shares = [gpus[number * each : (number + 1) * each] for number in range(len(gpus) // each)] if each else [[]]
    return Slots([Slot(_variables(spec, count, shares[number % len(shares)] if gpus else None))
                  for number in range(count)])  # fmt: skip


def _variables(spec: LaunchSpec, count: int, gpus: list[str] | None) -> dict[str, str]:
    variables = {} if gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    preset = spec.trainer.omp_threads is not None or "OMP_NUM_THREADS" in os.environ
    if count > 1 and not preset:
        nproc = spec.trainer.nproc_per_node
        ranks = nproc if isinstance(nproc, int) else max(1, len(gpus or ()))
        variables["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // (count * ranks)))
    return variables


def _gpus() -> list[str]:
    """The GPUs of this machine by the words that CUDA knows them by."""
    count = visible_gpus()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return [str(number) for number in range(count)]
    return [word.strip() for word in given.split(",") if word.strip()][:count]


def _wanted(spec: LaunchSpec, gpus: int) -> int:
    """How many GPUs a job has by itself: as many as ranks, and all of them where that hangs on how many there are."""
    if spec.resources.gpus is not None:
        return min(spec.resources.gpus, gpus)
    if spec.trainer.kind == "single":
        return min(1, gpus)
    nproc = spec.trainer.nproc_per_node
    return min(nproc, gpus) if isinstance(nproc, int) else gpus
