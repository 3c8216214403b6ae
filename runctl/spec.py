"""The plain data of a launch: LaunchSpec, Quote, Plan, RunHandle and what becomes of them.

Frozen dataclasses, standard library only, JSON both ways, so that a laptop, an instance and a pod read the
same thing. Paths in a spec are relative to the project; the host that carries it out makes them absolute.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, TypeVar

from runctl.arguments import ArgumentStyle, flatten, render_argv, render_env
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
    """

    script: str | None
    module: str | None
    argv: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()
    workdir: str = "."


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
    """Bounds on an attempt; None is no bound."""

    max_time_s: float | None = None


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
class LaunchSpec:
    """What to run, frozen. Composed once, in the launcher; ranks never see Hydra."""

    run: RunIdentity
    program: Program
    args: dict[str, Argument] = field(default_factory=dict)
    args_style: ArgumentStyle = field(default_factory=ArgumentStyle)
    trainer: Trainer = field(default_factory=Trainer)
    env: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    logs: Logs = field(default_factory=Logs)
    plugins_disabled: tuple[str, ...] = ()
    schema: int = SCHEMA

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
    price_usd_per_hour: float | None = None


@dataclass(frozen=True)
class Quote:
    """What a platform learned by looking; None is what it could not learn."""

    offers: tuple[Offer, ...] = ()
    host: str | None = None


@dataclass(frozen=True)
class Plan:
    """A platform's exact requests for one spec and one quote.

    Attributes:
        argv: the command that starts the ranks, with paths as they are on the host.
        env: what the ranks get beside the host's own environment; secrets by reference, never by value.
        requests: what `submit` sends, in order.
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


@dataclass(frozen=True)
class RunHandle:
    """Where a submitted attempt is to be found: the platform's own address of it."""

    platform: str
    run_id: str
    attempt: int
    address: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """The root cause of a failed attempt, as its rank or torchrun told it."""

    rank: int | None
    host: str
    exit_code: int
    message: str
    traceback: str | None = None
    at: float | None = None


@dataclass
class Attempt:
    """One life of a run on one set of hosts, as the run directory records it.

    Attributes:
        started_at, ended_at: seconds since the epoch.
        end_reason: a word or a sentence for people; empty while it lives.
        cost_usd: filled in by the cost book.
    """

    number: int
    platform: str
    host: str
    market: str = "own"
    started_at: float = 0.0
    ended_at: float | None = None
    state: RunState = RunState.RUNNING
    exit_code: int | None = None
    end_reason: str = ""
    failure: Failure | None = None
    cost_usd: float | None = None


@dataclass
class Outcome:
    """What became of a launch; `output=json` prints it on the last line of stdout."""

    KEYS: ClassVar[tuple[str, ...]] = (
        "platform",
        "host",
        "market",
        "started_at",
        "ended_at",
        "end_reason",
        "cost_usd",
    )

    run_id: str
    name: str
    state: RunState
    exit_code: int
    reason: str
    run_dir: str
    attempts: list[Attempt] = field(default_factory=list)
    step: int | None = None
    resumed_from_step: int | None = None
    steps_lost: int | None = None
    checkpoints: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    cost_usd: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The versioned public form: an attempt shows `KEYS` alone."""
        data = to_data(self)
        data["attempts"] = [{key: attempt[key] for key in self.KEYS} for attempt in data["attempts"]]
        return {"schema": SCHEMA, **data}


T = TypeVar("T")


def to_data(value: Any) -> Any:
    """Dataclasses, enums and tuples as plain JSON data."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_data(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: to_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_data(item) for item in value]
    return value


def from_data(kind: type[T], data: Any) -> T:
    """Plain JSON data as the dataclass `kind`.

    Raises:
        ValueError: for a field that `kind` does not have, naming it: a newer runctl wrote it.
    """
    return typing.cast(T, _decode(kind, data, kind.__name__))


def dumps(value: Any) -> str:
    """A dataclass as one line of JSON."""
    return json.dumps(to_data(value), ensure_ascii=False)


def loads(kind: type[T], text: str) -> T:
    """One JSON document as the dataclass `kind`."""
    return from_data(kind, json.loads(text))


def _decode(kind: Any, data: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(kind)
        if data is None and type(None) in options:
            return None
        structured = [o for o in options if dataclasses.is_dataclass(o)]
        return _decode(structured[0], data, where) if structured else data
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = {f.name for f in dataclasses.fields(kind)}
        unknown = set(data) - names
        if unknown:
            raise ValueError(f"{where} has no field {', '.join(sorted(unknown))}; a newer runctl may have written it")
        return typing.cast(Any, kind)(
            **{name: _decode(hints[name], item, f"{where}.{name}") for name, item in data.items()}
        )
    if origin is tuple:
        return tuple(_decode(typing.get_args(kind)[0], item, where) for item in data)
    if origin is list:
        return [_decode(typing.get_args(kind)[0], item, where) for item in data]
    if origin is dict:
        return {key: _decode(typing.get_args(kind)[1], item, where) for key, item in data.items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(data)
    return data
