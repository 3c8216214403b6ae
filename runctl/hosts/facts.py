"""What the ranks' command depends on and only the host knows."""

from __future__ import annotations

import os
import sys

from runctl.command import HostFacts
from runctl.errors import ConfigError
from runctl.hosts.gpus import visible_gpus
from runctl.spec import LaunchSpec, Trainer


def here(spec: LaunchSpec, project_dir: str, host_dir: str, package_dir: str, python: str | None = None) -> HostFacts:
    """The facts of this host for one spec; paths as in `HostFacts`; no `python` is our own.

    Raises:
        ConfigError: if the spec asks for GPUs and none is visible.
    """
    return HostFacts(
        python=python or sys.executable,
        package_dir=package_dir,
        project_dir=project_dir,
        host_dir=host_dir,
        nproc=ranks_here(spec.trainer),
        cpu_count=os.cpu_count() or 1,
        omp_preset="OMP_NUM_THREADS" in os.environ,
        wandb_preset="WANDB_RUN_ID" in os.environ,
    )


def ranks_here(trainer: Trainer) -> int:
    """Ranks on this host: as many as asked for, or one for each visible GPU, or each core.

    Raises:
        ConfigError: for `gpu` without one.
    """
    if trainer.kind == "single":
        return 1
    if isinstance(trainer.nproc_per_node, int):
        return trainer.nproc_per_node
    if trainer.nproc_per_node == "cpu":
        return os.cpu_count() or 1
    gpus = visible_gpus()
    if trainer.nproc_per_node == "gpu" and gpus == 0:
        raise ConfigError("trainer.nproc_per_node=gpu: no GPU is visible here; use auto, cpu or a number")
    return max(1, gpus)
