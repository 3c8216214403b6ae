"""`sweep.*`, checked and frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runctl.config.schemas import LaunchConfig
from runctl.errors import ConfigError

_GOALS = ("minimize", "maximize")


@dataclass(frozen=True)
class Objective:
    """One number by which a job is judged.

    Attributes:
        metric: its name in the run's metrics.
        reduce: `last`, `best` or `mean` of its values.
        maximize: whether more is better.
    """

    metric: str
    reduce: str = "last"
    maximize: bool = False


@dataclass(frozen=True)
class SweepSettings:
    """How a sweep is carried out.

    Attributes:
        objectives: what a job is judged by, the first first.
        max_parallel: jobs at once; None is for whoever knows the machine.
        gpus_per_job: of this machine's; None likewise.
        hosts: that are rented once, for one job after the other; None is for a host for each job.
        max_usd: once the sweep has cost so much, no new job starts; None is no bound.
        fresh: begin every job anew.
        retry_failed: go on with those that failed.
    """

    objectives: tuple[Objective, ...] = ()
    max_parallel: int | None = None
    gpus_per_job: int | None = None
    hosts: int | None = None
    max_usd: float | None = None
    fresh: bool = False
    retry_failed: bool = False


def settings(cfg: LaunchConfig, direction: Any = None) -> SweepSettings:
    """`sweep.*`.

    Args:
        cfg: the composed configuration.
        direction: what a sweeper that optimises was told, which is the goal where none is given.

    Raises:
        ConfigError: for a value that cannot be.
    """
    sweep = cfg.sweep
    for key, least in (("max_parallel", 1), ("gpus_per_job", 0), ("hosts", 1)):
        value = getattr(sweep, key)
        if value is not None and value < least:
            raise ConfigError(f"sweep.{key}={value}: at least {least}")
    if sweep.max_usd is not None and not sweep.max_usd > 0:
        raise ConfigError(f"sweep.max_usd={sweep.max_usd}: more than 0")
    if sweep.hosts is not None and sweep.max_parallel is not None:
        raise ConfigError(
            f"sweep.hosts={sweep.hosts} and sweep.max_parallel={sweep.max_parallel}: hosts that stay for one job after "
            "the other, or a host for each job; give one of the two"
        )
    metrics = _words("metric", sweep.metric)
    goals = _words("goal", sweep.goal) or [str(getattr(one, "name", one)) for one in _listed(direction)]
    for goal in goals:
        if goal not in _GOALS:
            raise ConfigError(f"sweep.goal={goal}: minimize or maximize")
    goals = goals or ["minimize"]
    if len(goals) == 1:
        goals = goals * max(1, len(metrics))
    if metrics and len(goals) != len(metrics):
        raise ConfigError(
            f"sweep.goal has {len(goals)} words and sweep.metric {len(metrics)}; one goal for each metric"
        )
    objectives = tuple(
        Objective(metric, sweep.reduce.value, goal == "maximize") for metric, goal in zip(metrics, goals, strict=False)
    )
    return SweepSettings(
        objectives, sweep.max_parallel, sweep.gpus_per_job, sweep.hosts, sweep.max_usd, sweep.fresh, sweep.retry_failed
    )


def _words(key: str, value: Any) -> list[str]:
    words = _listed(value)
    for word in words:
        if not isinstance(word, str) or not word.strip():
            raise ConfigError(f"sweep.{key}={word}: a word, or a list of words")
    return words


def _listed(value: Any) -> list[Any]:
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    return [] if value is None else list(value) if listed else [value]
