"""The schema of every configuration key, as dataclasses: a typo or a wrong type is an error that names it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

# Hydra reads annotations at run time, and omegaconf knows Optional and Dict, not their newer spellings.
from typing import Any, Dict, List, Optional

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from runctl.config.platform import PlatformConfig
from runctl.config.words import (
    ArgsBooleans,
    ArgsKeys,
    ArgsLists,
    ArgsStyle,
    Changed,
    DrillS3,
    Output,
    Prefix,
    PythonEnv,
    Reduce,
    RetryOn,
    ScalingRule,
    SecretScope,
    Show,
    TrainerKind,
)

#: Maps that take new keys from the command line without `+`, by path.
FREE_MAPS = (
    "args",
    "env",
    "secrets",
    "secrets_scope",
    "tags",
    "multipliers",
    "trainer.env",
    "platform.multipliers",
    "platform.args",
)

#: What carries the jobs of `-m` out. Hydra takes plugins from this namespace alone.
LAUNCHER = "hydra_plugins.runctl.RunctlLauncher"


@dataclass
class RunConfig:
    """name: the same one goes on with its run; id: made if not given.

    root: a path or any fsspec URL; by default ./runs, and on AWS the bucket that `runctl aws setup` made.

    changed: accept goes on with a run under other arguments, which is refused otherwise.
    """

    name: Optional[str] = None
    id: Optional[str] = None
    root: Optional[str] = None
    changed: Changed = Changed.refuse


@dataclass
class TrainerConfig:
    """The keys are torchrun's; nproc_per_node is a number, auto, gpu or cpu."""

    kind: TrainerKind = TrainerKind.single
    nproc_per_node: Any = "auto"
    nnodes: int = 1
    max_restarts: int = 0
    omp_threads: Optional[int] = None
    env: Dict[str, Any] = field(default_factory=dict)


@dataclass
class ScalingConfig:
    """rule derives the learning rate's multiplier; strict makes a multiplier without argument an error."""

    rule: ScalingRule = ScalingRule.explicit
    respect_overrides: bool = True
    strict: bool = False


@dataclass
class ResourcesConfig:
    """gpus: how many, 0 for none; gpu: their name, such as L4; gpu_memory_gib: of each, at least; cpus: at least."""

    gpus: Optional[int] = None
    gpu: Optional[str] = None
    gpu_memory_gib: Optional[float] = None
    cpus: Optional[int] = None


@dataclass
class LimitsConfig:
    """max_time: a duration such as 30m or 24h, for one attempt; max_usd: for all attempts together.

    max_usd_per_day: for all runs that this machine knows: nothing is launched that could exceed it within 24 hours.

    idle: how long GPUs and processors may have nothing to do.
    """

    max_time: Optional[str] = None
    max_usd: Optional[float] = None
    max_usd_per_day: Optional[float] = None
    idle: Optional[str] = None


@dataclass
class DataConfig:
    """inputs: [{from: s3://bucket/data, to: data}], brought before the training.

    outputs: [{from: out, to: s3://bucket/out}], brought away after it, however it ends.
    """

    inputs: List[Dict[str, str]] = field(default_factory=list)
    outputs: List[Dict[str, str]] = field(default_factory=list)


@dataclass
class BundleConfig:
    """max_size: how large the project may be that is sent to a rented host."""

    max_size: str = "500MB"


@dataclass
class LogsConfig:
    """show: whose output reaches the terminal; prefix: whose lines begin with [rankN]."""

    show: Show = Show.all
    prefix: Prefix = Prefix.others


@dataclass
class CheckpointConfig:
    """every: 10m, 500steps, 1epoch or auto; grace: how long a stop may take.

    resume: auto, never, require, a step, another run's id, or a path or URL of checkpoints; url: where checkpoints are
    carried to, by default the run directory.

    watch: glob of the checkpoints that a script writes by itself; resume_flag: its option for the path to resume
    from; resume_argv: words that tell it to resume.
    """

    every: str = "10m"
    resume: Any = "auto"
    url: Optional[str] = None
    keep_last: int = 3
    keep_every: Optional[int] = None
    keep_best: Optional[str] = None
    grace: str = "30s"
    watch: Optional[str] = None
    resume_flag: Optional[str] = None
    resume_argv: List[Any] = field(default_factory=list)


@dataclass
class DrillConfig:
    """events: what happens to the launch, in order: [{at_step: 20, do: interrupt}, {at: 30s, do: kill}].

    do: interrupt, kill (a host, without notice), kill_launcher, or fault with action, code, status, times, market.
    notice: how long AWS leaves an instance after its word; attempts of a launch get none of your account's.
    report: a file for what the report says, as JSON.
    s3: what answers for S3: moto, or swift (extra runctl[swift]), slower to start and as strict as S3.
    """

    name: str = "none"
    s3: DrillS3 = DrillS3.moto
    notice: str = "120s"
    report: Optional[str] = None
    events: List[Dict[str, Any]] = field(default_factory=list)


@dataclass
class SweepConfig:
    """metric: what a job of -m is judged by, a name in its metrics or several; reduce: its last, best or mean value.

    goal: minimize or maximize, one for each metric; max_parallel: jobs at once; gpus_per_job: of this machine's.

    hosts: so many are rented once and stay, for one job after the other.

    max_usd: once the sweep has cost so much, no new job starts; fresh: begin every job anew; retry_failed: go on with
    those that failed.
    """

    metric: Any = None
    reduce: Reduce = Reduce.last
    goal: Any = None
    max_parallel: Optional[int] = None
    gpus_per_job: Optional[int] = None
    hosts: Optional[int] = None
    max_usd: Optional[float] = None
    fresh: bool = False
    retry_failed: bool = False


@dataclass
class DockerConfig:
    """image: in which everything runs under python_env=docker; it has the ranks' Python, with torch."""

    image: Optional[str] = None


@dataclass
class PluginsConfig:
    """disable: plugins to leave out; list: print the active ones and stop."""

    disable: List[str] = field(default_factory=list)
    list: bool = False


@dataclass
class LaunchConfig:
    """Everything that `runctl-launch` knows."""

    script: Optional[str] = None
    module: Optional[str] = None
    args: Dict[str, Any] = field(default_factory=dict)
    argv: List[Any] = field(default_factory=list)
    args_style: ArgsStyle = ArgsStyle.argparse
    args_keys: ArgsKeys = ArgsKeys.keep
    args_booleans: ArgsBooleans = ArgsBooleans.value
    args_lists: ArgsLists = ArgsLists.repeat
    python_env: PythonEnv = PythonEnv.system
    docker: DockerConfig = field(default_factory=DockerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    #: A `PlatformConfig`, or what the platform's own class derives from it: known when its kind is.
    platform: Any = field(default_factory=PlatformConfig)
    multipliers: Dict[str, Any] = field(default_factory=dict)
    scaling: ScalingConfig = field(default_factory=ScalingConfig)
    run: RunConfig = field(default_factory=RunConfig)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    retry_on: List[RetryOn] = field(default_factory=lambda: [RetryOn.interrupted, RetryOn.host_fault])
    data: DataConfig = field(default_factory=DataConfig)
    before_train: List[str] = field(default_factory=list)
    bundle: BundleConfig = field(default_factory=BundleConfig)
    env: Dict[str, Any] = field(default_factory=dict)
    secrets: Dict[str, str] = field(default_factory=dict)
    secrets_scope: Dict[str, SecretScope] = field(default_factory=dict)
    notify: List[str] = field(default_factory=list)  # secrets, or where one is kept, that hold URLs of apprise's
    tags: Dict[str, Any] = field(default_factory=dict)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logs: LogsConfig = field(default_factory=LogsConfig)
    plugins: PluginsConfig = field(default_factory=PluginsConfig)
    drill: DrillConfig = field(default_factory=DrillConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    detach: bool = False
    dry_run: bool = False
    smoke: bool = False
    explain: bool = False
    output: Output = Output.text


def schema() -> DictConfig:
    """The schema as a config node, with the free maps open for new keys."""
    node: DictConfig = OmegaConf.structured(LaunchConfig)
    for path in FREE_MAPS:
        if not path.startswith("platform."):
            OmegaConf.set_struct(OmegaConf.select(node, path), False)
    # What a platform has, its own class says once its kind is known (`config.checker`).
    OmegaConf.set_struct(node.platform, False)
    return node


def register(kinds: Iterable[str] = ()) -> None:
    """Make the schema known to Hydra under the name that the primary configuration starts from.

    Args:
        kinds: platforms of plugins, each an option of the group `platform` that a file of that name replaces.
    """
    store = ConfigStore.instance()
    store.store(name="runctl_schema", node=schema(), provider="runctl")
    store.store(group="hydra/launcher", name="runctl", node={"_target_": LAUNCHER}, provider="runctl")
    for kind in kinds:
        store.store(group="platform", name=kind, node={"kind": kind}, provider="runctl")
