"""The plain data of a launch: LaunchSpec, Quote, Plan, RunHandle; what becomes of them stands in `outcome`.

Frozen dataclasses, standard library only, JSON both ways, so that a laptop, an instance and a pod read the
same thing. Paths in a spec are relative to the project; the host that carries it out makes them absolute.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from runctl.arguments import ArgumentStyle, flatten, render_argv, render_env
from runctl.environment import Environment
from runctl.scaling import Argument

SCHEMA = 1


class RunState(str, Enum):
    """Where a run, or one attempt of it, stands."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"

    @property
    def ended(self) -> bool:
        return self not in (RunState.PENDING, RunState.RUNNING, RunState.STOPPING)


@dataclass(frozen=True)
class RunIdentity:
    """Which run this is and where its run directory lies."""

    id: str
    name: str
    root: str


@dataclass(frozen=True)
class Program:
    """What each rank executes.

    Attributes:
        script: path of the script relative to `workdir` (absolute if it lies outside the project), or None.
        module: dotted name of a module to run as `python -m` does, or None.
        argv: words handed over as they are, ahead of the rendered arguments.
        tail: words typed after `--`, handed over verbatim behind everything else.
        workdir: where the user stood, relative to the project's root.
        digest: SHA-256 of the script's text when it was launched; None for a module.
    """

    script: str | None
    module: str | None
    argv: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()
    workdir: str = "."
    digest: str | None = None


@dataclass(frozen=True)
class Trainer:
    """How many ranks, and who starts them. The keys are torchrun's.

    Attributes:
        kind: `single` runs plain python, `ddp` runs torchrun.
        nproc_per_node: ranks on each host, or `auto`, `gpu`, `cpu`, resolved on the host.
        nnodes: hosts.
        max_restarts: restarts in place after a rank failed.
        omp_threads: OMP_NUM_THREADS of a rank; None shares the host's cores among its ranks.
        env: variables for the ranks alone.
    """

    kind: str = "single"
    nproc_per_node: int | str = "auto"
    nnodes: int = 1
    max_restarts: int = 0
    omp_threads: int | None = None
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """Bounds on a run; None is no bound. They are kept by the host, so that they hold with the laptop closed.

    Attributes:
        max_time_s: how long one attempt may train.
        max_usd: what all attempts together may cost.
        idle_s: how long GPUs and processors may have nothing to do.
        max_usd_per_day: what all runs that the launcher's machine knows may cost in 24 hours, this one among them; kept
            by launchers alone, which start nothing that could exceed it, for no host knows of the others.
    """

    max_time_s: float | None = None
    max_usd: float | None = None
    idle_s: float | None = None
    max_usd_per_day: float | None = None


@dataclass(frozen=True)
class Resources:
    """What a host must have; None is whatever it has.

    Attributes:
        gpus: so many GPUs.
        gpu: their name, such as L4.
        gpu_memory_gib: memory of each, at least, as GPUs are sold: an L4 counts as 24, though it tells of 22.4 GiB.
        cpus: virtual processors, at least.
    """

    gpus: int | None = None
    gpu: str | None = None
    gpu_memory_gib: float | None = None
    cpus: int | None = None

    def __str__(self) -> str:
        memory = f" of {self.gpu_memory_gib:g} GiB or more" if self.gpu_memory_gib else ""
        gpus = f"{self.gpus or 'no'} {self.gpu or 'GPU'}{'s' if self.gpus and self.gpus > 1 else ''}{memory}"
        return gpus + (f" and {self.cpus} processors or more" if self.cpus else "")


@dataclass(frozen=True)
class Transfer:
    """Files that are brought from one place to another.

    Attributes:
        source: a path, relative to the script's working directory, or an fsspec URL.
        target: likewise.
    """

    source: str
    target: str


@dataclass(frozen=True)
class Data:
    """What is brought to the host before the training, and from it afterwards.

    Attributes:
        inputs: brought before it.
        outputs: brought away after it, also after a failure or an interruption.
        before_train: command lines that run once on the host between the two; a `.py` runs under the ranks' Python.
    """

    inputs: tuple[Transfer, ...] = ()
    outputs: tuple[Transfer, ...] = ()
    before_train: tuple[str, ...] = ()


@dataclass(frozen=True)
class Logs:
    """What of the ranks' output reaches the terminal; the run directory gets all of it.

    Attributes:
        show: `all` ranks, only `rank0`, or `none`.
        prefix: which ranks' lines begin with `[rankN]`: the `others` than 0, `all`, or `none`.
    """

    show: str = "all"
    prefix: str = "others"


@dataclass(frozen=True)
class Every:
    """How often a checkpoint is due: every so many `steps`, `epochs` or `seconds`.

    With `auto` the interval is worked out while the training runs, and `count` means nothing.
    """

    unit: str = "seconds"
    count: float = 600.0


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay.

    Attributes:
        keep_last: so many of the newest, never fewer than two.
        keep_every: each whose step is a multiple of this, or None.
        keep_best: name of a metric whose lowest value is kept as well, or None; `-name` keeps the highest.
    """

    keep_last: int = 3
    keep_every: int | None = None
    keep_best: str | None = None


@dataclass(frozen=True)
class CheckpointPolicy:
    """When checkpoints are taken, which stay, and what an attempt begins from.

    Attributes:
        every: when one is due.
        resume: `auto` begins from the newest that verifies if there is one, `require` ends without one, `never`
            begins at step 0, a number begins from that step.
        origin: path or URL of another run's checkpoints, from which a run that has none yet begins; None without.
        url: checkpoints are carried to `<url>/<run id>` instead of the run directory; None for that.
        grace_s: how long a stop may take, from the request to the last rank's end.
        mean_time_to_interruption_s: how long the platform lets a host run on average; `every=auto` reckons with it.
        retention: which stay.
        watch: glob, relative to the script's working directory, of checkpoints that the script writes by itself.
        resume_flag: the script's option for the path to resume from, or None.
        resume_argv: words that tell the script to resume.
    """

    every: Every = field(default_factory=Every)
    resume: str = "auto"
    origin: str | None = None
    url: str | None = None
    grace_s: float = 30.0
    mean_time_to_interruption_s: float = 86400.0
    retention: Retention = field(default_factory=Retention)
    watch: str | None = None
    resume_flag: str | None = None
    resume_argv: tuple[str, ...] = ()


@dataclass(frozen=True)
class LaunchSpec:
    """What to run, frozen. Composed once, in the launcher; ranks never see Hydra.

    Attributes:
        secrets: by variable, where each is kept: `env:NAME`, `ssm:/path`, `secretsmanager:id` or `runpod:name`; never
            its value.
        notify: names of those secrets whose values say who is told what becomes of the run (URLs of apprise's).
        retry_on: after what another host is rented: `interrupted`, `host_fault`.
        secrets_scope: by variable, who gets it: `setup`, `worker` or `both`; without an entry it is `worker`, and
            nobody but the agent gets what `notify` names.
    """

    run: RunIdentity
    program: Program
    args: dict[str, Argument] = field(default_factory=dict)
    args_style: ArgumentStyle = field(default_factory=ArgumentStyle)
    trainer: Trainer = field(default_factory=Trainer)
    environment: Environment = field(default_factory=Environment)
    env: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    secrets_scope: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    limits: Limits = field(default_factory=Limits)
    data: Data = field(default_factory=Data)
    logs: Logs = field(default_factory=Logs)
    checkpoint: CheckpointPolicy = field(default_factory=CheckpointPolicy)
    notify: tuple[str, ...] = ()
    retry_on: tuple[str, ...] = ("interrupted", "host_fault")
    bundle_max_bytes: int = 500_000_000
    plugins_disabled: tuple[str, ...] = ()
    schema: int = SCHEMA

    def secrets_for(self, scope: str) -> dict[str, str]:
        """The secrets that the host's `setup`, its `worker`s or its `agent` get."""
        if scope == "agent":
            return {name: self.secrets[name] for name in self.notify}
        scopes = {name: "agent" if name in self.notify else "worker" for name in self.secrets} | self.secrets_scope
        return {name: kept for name, kept in self.secrets.items() if scopes[name] in (scope, "both")}

    def effective_args(self) -> dict[str, Any]:
        """The script's arguments after scaling, flat."""
        return flatten({name: arg.effective for name, arg in self.args.items()})

    def script_words(self) -> list[str]:
        """The words behind the script's name on its command line."""
        program = self.program
        return [*program.argv, *render_argv(self.effective_args(), self.args_style), *program.tail]

    def script_env(self) -> dict[str, str]:
        """The user's own variables: env, the trainer's env, and the arguments where they travel so."""
        return {**render_env(self.effective_args(), self.args_style), **self.env, **self.trainer.env}


@dataclass(frozen=True)
class Offer:
    """One thing a platform would rent us, with its price where that is known."""

    platform: str
    machine: str
    market: str
    region: str | None = None
    zone: str | None = None
    price_usd_per_hour: float | None = None


@dataclass(frozen=True)
class Quote:
    """What a platform learned by looking; None is what it could not learn.

    Attributes:
        offers: in the order in which they are to be tried.
        facts: what the platform's plan needs besides.
        unknown: what could not be looked up, and why.
    """

    offers: tuple[Offer, ...] = ()
    host: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A platform's exact requests for one spec and one quote.

    Attributes:
        argv: the command that starts the ranks, with paths as they are on the host.
        env: what the ranks get beside the host's own environment; secrets by reference, never by value.
        requests: what `submit` sends, in order.
        estimate_usd: of the dearest offer up to the limit of time; None where it is not known.
        notes: what people should know before they say yes.
    """

    run_id: str
    attempt: int
    platform: str
    argv: tuple[str, ...]
    env: dict[str, str]
    nproc_per_node: int | None
    nnodes: int
    workdir: str
    run_dir: str
    host: str | None = None
    offers: tuple[Offer, ...] = ()
    requests: tuple[dict[str, Any], ...] = ()
    estimate_usd_per_hour: float | None = None
    estimate_usd: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def orders(self) -> dict[str, Any]:
        """What the host's keeper is told; nothing where there is none."""
        return next((one["orders"] for one in self.requests if "orders" in one), {})


@dataclass(frozen=True)
class RunHandle:
    """Where a submitted attempt is to be found: the platform's own address of it."""

    platform: str
    run_id: str
    attempt: int
    address: dict[str, Any] = field(default_factory=dict)
