"""What of this machine each of the jobs that run at once gets: GPUs, and processors to count on."""

from __future__ import annotations

import os
import queue
from dataclasses import dataclass, field

from runctl import warm
from runctl.config.sweeps import SweepSettings
from runctl.errors import ConfigError, NotBuiltYet
from runctl.hosts.gpus import visible_gpus
from runctl.platforms.base import Berth, Platform
from runctl.spec import LaunchSpec

#: Hosts that are rented at once where nothing is said.
_HOSTS = 4
#: How long a host that stays waits for its next job; what comes later than that comes from a launcher that has gone.
_WARM_S = 300.0


@dataclass(frozen=True)
class Slot:
    """A place for one job at a time.

    Attributes:
        variables: what a job there has in its environment.
        berth: where its rented host stays for the next job; None where each job has a host of its own.
    """

    variables: dict[str, str] = field(default_factory=dict)
    berth: Berth | None = None


class Slots:
    """The places of a sweep.

    Args:
        slots: all of them.

    Attributes:
        berths: those of them that have one.
    """

    def __init__(self, slots: list[Slot]) -> None:
        self.count = len(slots)
        self.berths = [slot.berth for slot in slots if slot.berth is not None]
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            self._free.put(slot)

    def take(self) -> Slot:
        """A free one; there is one for whoever runs in a thread of `count`."""
        return self._free.get()

    def give(self, slot: Slot) -> None:
        """Have it back."""
        self._free.put(slot)


def rented(settings: SweepSettings, platform: Platform, root: str, name: str, keep_s: float | None) -> Slots:
    """Places on hosts of their own, or on hosts that stay.

    Args:
        settings: `sweep.*`.
        platform: where.
        root: where runs lie.
        name: the sweep's, whose own its hosts are until it ends.
        keep_s: how long hosts are to wait for the next launch once the sweep has ended; None if they are not.

    Raises:
        ConfigError: if hosts of their own were to wait.
        NotBuiltYet: where no host can stay.
    """
    if settings.hosts is None:
        if keep_s is not None:
            raise ConfigError("platform.keep_warm with -m goes with sweep.hosts=N: hosts of one job each do not wait")
        return Slots([Slot() for _ in range(settings.max_parallel or _HOSTS)])
    if not platform.has_berths:
        raise NotBuiltYet(
            f"sweep.hosts={settings.hosts}: on platform={platform.kind} this version rents a host for each job; "
            f"sweep.max_parallel={settings.hosts} has as many at once"
        )
    waiting = warm.Waiting(root, platform.kind, name)
    keep_s = _WARM_S if keep_s is None else keep_s
    return Slots([Slot(berth=Berth(keep_s, waiting)) for _ in range(settings.hosts)])


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
