"""The exact command and environment of the ranks on one host (pure).

The plan that `dry_run=true` prints and the agent that starts torchrun build them here, from the same facts.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from runctl.spec import CheckpointPolicy, LaunchSpec

#: The shim that every rank starts through; by path, so that it needs nothing of ours importable.
SHIM = "runctl/training/worker.py"


@dataclass(frozen=True)
class HostFacts:
    """What the command depends on and only the host knows; all paths absolute.

    Attributes:
        python: the interpreter of the ranks.
        package_dir: the folder that holds the package `runctl`.
        project_dir: the root of the user's project.
        host_dir: the attempt's scratch directory on this host.
        nproc: ranks on this host.
        cpu_count: logical cores of this host.
        omp_preset, wandb_preset: whether the host's environment sets OMP_NUM_THREADS, or WANDB_RUN_ID, already.
    """

    python: str
    package_dir: str
    project_dir: str
    host_dir: str
    nproc: int
    cpu_count: int
    omp_preset: bool = False
    wandb_preset: bool = False


def workdir(spec: LaunchSpec, facts: HostFacts) -> str:
    """The ranks' working directory: where the user stood."""
    return posixpath.normpath(PurePosixPath(facts.project_dir) / spec.program.workdir)


def resume_words(policy: CheckpointPolicy, path: str) -> list[str]:
    """What the script is told besides, when it begins from files that it wrote earlier.

    Args:
        policy: its `resume_flag`, an option or, with a `=` at its end, the beginning of one word; its `resume_argv`.
        path: what to resume from, absolute.
    """
    flag = policy.resume_flag
    with_path = [] if flag is None else [flag + path] if flag.endswith("=") else [flag, path]
    return [*with_path, *policy.resume_argv]


def worker_words(spec: LaunchSpec, facts: HostFacts, extra_words: Sequence[str] = ()) -> list[str]:
    """The shim and what it becomes: `worker.py script /abs/train.py --lr=0.1`.

    Args:
        spec: what to run.
        facts: where.
        extra_words: stand behind all the script's other words.
    """
    shim = str(PurePosixPath(facts.package_dir) / SHIM)
    program = spec.program
    if program.module is not None:
        target = ["module", program.module]
    else:
        target = ["script", posixpath.normpath(PurePosixPath(workdir(spec, facts)) / str(program.script))]
    return [shim, *target, *spec.script_words(), *extra_words]


def rank_argv(spec: LaunchSpec, facts: HostFacts, extra_words: Sequence[str] = ()) -> list[str]:
    """The command that starts this host's ranks.

    `trainer=single` is plain python. `trainer=ddp` is torchrun: the c10d rendezvous is spelled out because
    `--standalone` would replace the run id by a random one, and the log directory because torchrun would
    leave one behind in the system's temporary folder.

    Args:
        spec: what to run.
        facts: where.
        extra_words: for the script, known only when the attempt begins (see `resume_words`).
    """
    worker = worker_words(spec, facts, extra_words)
    if spec.trainer.kind == "single":
        return [facts.python, "-u", *worker]
    return [
        facts.python,
        "-m",
        "torch.distributed.run",
        f"--nnodes={spec.trainer.nnodes}",
        f"--nproc-per-node={facts.nproc}",
        f"--max-restarts={spec.trainer.max_restarts}",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=localhost:0",
        f"--rdzv-id={spec.run.id}",
        f"--log-dir={facts.host_dir}/torchrun",
        *worker,
    ]


def rank_env(spec: LaunchSpec, facts: HostFacts, run_dir: str, attempt: int) -> dict[str, str]:
    """What the ranks get beside the host's own environment. The user's variables win over ours."""
    ours = {
        "PYTHONUNBUFFERED": "1",
        "RUNCTL_RUN_ID": spec.run.id,
        "RUNCTL_RUN_NAME": spec.run.name,
        "RUNCTL_RUN_DIR": run_dir,
        "RUNCTL_ATTEMPT": str(attempt),
        "RUNCTL_HOST_DIR": facts.host_dir,
    }
    if not facts.wandb_preset:
        # Attempts are one run there as they are here.
        ours |= {"WANDB_RUN_ID": spec.run.id, "WANDB_RESUME": "allow"}
    if spec.trainer.omp_threads is not None:
        ours["OMP_NUM_THREADS"] = str(spec.trainer.omp_threads)
    elif facts.nproc > 1 and not facts.omp_preset:
        ours["OMP_NUM_THREADS"] = str(max(1, facts.cpu_count // facts.nproc))
    return {**ours, **spec.script_env()}
