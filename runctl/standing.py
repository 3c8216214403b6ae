"""Where a run stands, from its run directory: what `runctl ps`, `show`, `wait` and the others tell of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from runctl import extension
from runctl.cost import cost_usd, total_usd
from runctl.encoding import to_data
from runctl.lease import TIMEOUT_S
from runctl.outcome import Attempt
from runctl.registry import Entry
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, RunState

#: A run of which nothing has been heard, though it should live.
LOST = "lost"
#: How long a rented host may be silent before its agent speaks: capacity is waited for, and the host brought up.
_SILENT_S = 3600.0
#: For so long an interrupted run may get another host from its launcher, or a lost one be heard of again.
ANOTHER_S = 900.0

#: What the index need not hold: it is what a field is without it.
_NOTHING: tuple[Any, ...] = (None, "", [], {})
#: The states of runs that will not go on by themselves.
_ENDED = {LOST, *(one.value for one in RunState if one.ended)}


def has_ended(state: str) -> bool:
    """Whether a run in that state will not go on by itself."""
    return state in _ENDED


@dataclass(frozen=True)
class Standing:
    """One run, as its run directory told of it at one moment.

    Attributes:
        state: a `RunState`'s value, or `lost` for one that should live and gives no sign.
        attempt: number of the newest attempt, 0 before the first.
        began_at, ended_at: of the run altogether (seconds since the epoch); None where it has not.
        heard_at: the last sign of life of its agent.
        step: the last one that is known to be completed.
        total_steps: how many there will be, where the training says so.
        epochs: likewise of epochs.
        resumed_from_step: where the newest attempt began.
        steps_per_s: over the last minute.
        metrics: the latest value of each.
        load: how busy the host is: `gpu`, `gpu_memory`, `cpu`, `memory` as shares from 0 to 1, where they are known.
        cost_usd: of all attempts until now; None where a price is not known.
        host_ends_at: of a lost run, when its host ends itself at the latest (seconds since the epoch); None where that
            is not known.
        checkpoints: steps of those that the run holds, as the status told last.
        reason: why it ended.
        looked_at: the moment (seconds since the epoch).
    """

    run_id: str
    name: str
    url: str
    platform: str
    state: str
    script: str = ""
    attempt: int = 0
    host: str = ""
    market: str = ""
    began_at: float | None = None
    ended_at: float | None = None
    heard_at: float | None = None
    step: int | None = None
    total_steps: int | None = None
    epochs: int | None = None
    resumed_from_step: int | None = None
    steps_per_s: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    load: dict[str, float] = field(default_factory=dict)
    price_usd_per_hour: float | None = None
    cost_usd: float | None = None
    host_ends_at: float | None = None
    checkpoints: tuple[int, ...] = ()
    reason: str = ""
    exit_code: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    looked_at: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether it does not go on just now; one whose host was lost may yet, see `may_go_on`."""
        return has_ended(self.state)

    @property
    def billed_until(self) -> float:
        """Until when an attempt costs something that has not ended, as far as it was looked at."""
        return self.looked_at if self.host_ends_at is None else min(self.looked_at, self.host_ends_at)

    @property
    def eta_s(self) -> float | None:
        """Seconds to the last step at the pace of the last minute, or None."""
        if self.total_steps is None or self.step is None or not self.steps_per_s or self.ended:
            return None
        return max(0, self.total_steps - self.step) / self.steps_per_s

    def to_json(self) -> dict[str, Any]:
        """The public form."""
        data: dict[str, Any] = to_data(self)
        return {**data, "eta_s": self.eta_s}

    def entry(self, created_at: float | None = None, project: str | None = None) -> Entry:
        """What the registry keeps of it."""
        created = created_at or self.began_at or self.looked_at
        return Entry(
            self.url, self.run_id, self.name, self.platform, self.state, created, self.looked_at, project, self.tags,
            {key: value for key, value in to_data(self).items() if value not in _NOTHING},
        )  # fmt: skip

    @classmethod
    def seen(cls, entry: Entry) -> Standing:
        """As it was seen last; of a run that nobody has looked at yet, what its launch told."""
        if not entry.seen:
            return cls(
                entry.id, entry.name, entry.url, entry.platform, entry.state, "", began_at=entry.created_at,
                tags=entry.tags, looked_at=entry.seen_at,
            )  # fmt: skip
        told = {**entry.seen, "state": entry.state, "checkpoints": tuple(entry.seen.get("checkpoints", ()))}
        try:
            return cls(**told)
        except TypeError:  # another version noted it
            return cls(**{key: value for key, value in told.items() if key in cls.__dataclass_fields__})


def place_of(platform: str, market: str, host: str) -> str:
    """Where something runs, for people: `aws spot i-1`."""
    return " ".join(filter(None, [platform, market if market != "own" else "", host]))


def look(rundir: RunDir, spec: LaunchSpec | None = None) -> Standing:
    """Where a run stands now.

    Args:
        rundir: its run directory.
        spec: its spec, if that was read before.

    Raises:
        StorageError: if the run directory cannot be read, or is none.
    """
    now = time.time()
    spec = spec or rundir.read_spec()
    status, beat = rundir.read_status() or {}, rundir.heartbeat() or {}
    attempts = rundir.attempts()
    plan = rundir.last_submission()
    newest = attempts[-1] if attempts else None
    number = max(newest.number if newest else 0, plan.attempt if plan else 0)
    # What the agent says of an attempt counts for that attempt alone.
    beat = beat if beat.get("attempt") == number else {}
    told = [one for one in (status, beat) if one.get("attempt") == number] or [status]
    progress = {key: value for one in sorted(told, key=_at) for key, value in one.items()}
    heard = max(_at(status), _at(beat)) or None
    state = _state(rundir, newest, number, status, heard=heard, now=now)
    ends_at = extension.host_ends_at(rundir, number) if state == LOST and number else None
    until = now if ends_at is None else min(now, ends_at)
    return Standing(
        spec.run.id, spec.run.name, rundir.url,
        newest.platform if newest else plan.platform if plan else "local",
        state, spec.program.script or f"-m {spec.program.module}",
        attempt=number,
        host=newest.host if newest and newest.number == number else "",
        market=newest.market if newest else "",
        began_at=attempts[0].started_at if attempts else None,
        ended_at=newest.ended_at if newest and newest.number == number else None,
        heard_at=heard,
        step=progress.get("step") if progress.get("step") is not None else newest.step if newest else None,
        total_steps=progress.get("total_steps"),
        epochs=progress.get("epochs"),
        resumed_from_step=newest.resumed_from_step if newest else None,
        steps_per_s=progress.get("steps_per_s"),
        metrics=progress.get("metrics") or {},
        load=progress.get("load") or {},
        price_usd_per_hour=newest.price_usd_per_hour if newest else None,
        cost_usd=total_usd([attempt_cost_usd(one, until) for one in attempts]) if attempts else None,
        host_ends_at=ends_at,
        checkpoints=tuple(status.get("checkpoints") or ()),
        reason=newest.end_reason if newest and newest.number == number else "",
        exit_code=newest.exit_code if newest and newest.number == number else None,
        tags=dict(spec.tags),
        looked_at=now,
    )  # fmt: skip


def may_go_on(rundir: RunDir, now: Standing) -> bool:
    """Whether more may come of a run: one whose host was lost gets another for as long as its launcher may try.

    Args:
        rundir: the run's.
        now: where it stands.

    Raises:
        StorageError: if the run directory cannot be read.
    """
    if not now.ended:
        return True
    last_at = now.ended_at or now.heard_at
    if now.state not in (RunState.INTERRUPTED.value, LOST) or now.platform == "local" or last_at is None:
        return False
    outcome = rundir.read_outcome()
    if outcome is not None and any((one.get("ended_at") or 0.0) >= last_at - 1 for one in outcome["attempts"][-1:]):
        return False  # its launcher has said that this was all
    return now.looked_at - last_at < ANOTHER_S


def _at(told: dict[str, Any]) -> float:
    return float(told.get("at", 0.0))


def attempt_cost_usd(attempt: Attempt, now: float) -> float | None:
    """What an attempt has cost by `now` (seconds since the epoch); None where its price is not known."""
    if attempt.cost_usd is not None:
        return attempt.cost_usd
    if attempt.price_usd_per_hour is None and attempt.market == "own":
        return 0.0
    return cost_usd(attempt.price_usd_per_hour, max(0.0, (attempt.ended_at or now) - attempt.billed_since))


def _state(
    rundir: RunDir, newest: Attempt | None, number: int, status: dict[str, Any], *, heard: float | None, now: float
) -> str:
    if newest is not None and newest.number == number and newest.state.ended:
        return newest.state.value
    if number == 0:  # not even submitted: only its launcher, which holds the lease, is there
        return RunState.PENDING.value if rundir.lease.is_held() else LOST
    if newest is None or newest.number < number:  # submitted, and its agent has not spoken
        ended_at = newest.ended_at if newest is not None else None
        since = max(heard or 0.0, ended_at or 0.0, rundir.submitted_at(number) or 0.0)
        return LOST if now - since > _SILENT_S else RunState.PENDING.value
    if rundir.lease.is_held() or (heard is not None and now - heard < TIMEOUT_S and newest.platform != "local"):
        told = status.get("state") if status.get("attempt") == number else None
        return str(told) if told in (RunState.RUNNING.value, RunState.STOPPING.value) else RunState.RUNNING.value
    return LOST
