"""The plain data of what became of a launch: its attempts, their failures, the outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from runctl.encoding import to_data
from runctl.spec import SCHEMA, RunState

#: How the end reason of an attempt begins whose host broke.
HOST_FAULT = "host fault"
#: What the end reason of an attempt says whose host was never heard of.
UNREACHED = "was not up within platform.bring_up"


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
        resumed_from_step: the step of the checkpoint it began from, or None.
        step: the last step it is known to have completed.
        stall_s: how long its training loop waited for copies of what was saved; None where that is not known.
        cost_usd: filled in by the cost book.
        price_usd_per_hour: of its host; None where it is not known.
        billed_from: since when the host was billed (seconds since the epoch); None for `started_at`.
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
    resumed_from_step: int | None = None
    step: int | None = None
    stall_s: float | None = None
    cost_usd: float | None = None
    price_usd_per_hour: float | None = None
    billed_from: float | None = None

    @property
    def billed_since(self) -> float:
        """From when its host costs something (seconds since the epoch)."""
        return self.started_at if self.billed_from is None else self.billed_from

    @property
    def begun(self) -> bool:
        """Whether it came so far that it did a step, or knew from which one to go on."""
        return self.resumed_from_step is not None or self.step is not None

    @property
    def lost_to(self) -> str:
        """What an interrupted attempt was lost to, in the words of `retry_on`."""
        return "host_fault" if self.end_reason.startswith(HOST_FAULT) else "interrupted"

    @property
    def is_unreached(self) -> bool:
        """Whether its host was never heard of."""
        return UNREACHED in self.end_reason


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
