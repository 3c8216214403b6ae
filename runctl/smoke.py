"""A launch proved before it is long: two minutes of the user's own script, stopped, resumed, and paid for.

On the platform itself and with the user's own environment, data and checkpoints, under a run id of its own: the first
attempt goes to its first checkpoint that lies where the run's lie, and is stopped; the second begins from it on another
host and is stopped a step later.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath

from runctl import terminal
from runctl.checkpoint.manifest import folder_name
from runctl.checkpoint.remote import RemoteCatalog
from runctl.errors import ExitCode, StorageError
from runctl.hooks import Hooks
from runctl.outcome import Attempt, Outcome
from runctl.platforms.base import Platform
from runctl.rundir import RunDir, run_url
from runctl.spec import Every, LaunchSpec, RunIdentity, RunState, Transfer
from runctl.storage import open_store
from runctl.supervisor import Supervisor

#: How long each of the two attempts may train.
TRAIN_S = 120.0
_EVERY_S = 10.0
_LOOK_S = 1.0
#: The stop request's word.
REASON = "smoke"


def shortened(spec: LaunchSpec, run_id: str) -> LaunchSpec:
    """The launch as it is tried: capped, saved often, and away from the real run's name and outputs.

    Args:
        spec: as it will be launched.
        run_id: of the trial.
    """
    limit_s = min(TRAIN_S, spec.limits.max_time_s or TRAIN_S)
    # A script that writes its own checkpoints writes them when it does.
    every = spec.checkpoint.every if spec.checkpoint.watch is not None else Every("seconds", _EVERY_S)
    outputs = f"{spec.run.root.rstrip('/')}/{run_id}/outputs"
    return replace(
        spec,
        run=RunIdentity(run_id, spec.run.name, spec.run.root),
        limits=replace(spec.limits, max_time_s=limit_s),
        checkpoint=replace(spec.checkpoint, every=every),
        # Nobody is to be told of a trial.
        secrets={**spec.secrets_for("setup"), **spec.secrets_for("worker")},
        notify=(),
        data=replace(
            spec.data,
            outputs=tuple(Transfer(one.source, f"{outputs}/{PurePosixPath(one.source).name}")
                          for one in spec.data.outputs),
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class Proof:
    """One thing that a long run depends on.

    Attributes:
        what: it is.
        proved: whether it was seen to work; None if it did not come to that.
        said: what was seen.
    """

    what: str
    proved: bool | None
    said: str


class Smoke:
    """Watches the two attempts of a trial, and says what they proved.

    Args:
        spec: as `shortened` made it.
        rundir: of the trial.
    """

    def __init__(self, spec: LaunchSpec, rundir: RunDir) -> None:
        self._spec = spec
        self._rundir = rundir
        place = rundir.url if spec.checkpoint.url is None else run_url(spec.checkpoint.url, spec.run.id)
        self._durable = RemoteCatalog(open_store(place))
        self._look_at = 0.0

    def stop_when(self, attempt: int) -> str | None:
        """Why an attempt may end now: the first has a checkpoint, the second went on from it; None as long as not."""
        now = time.monotonic()
        if now < self._look_at:
            return None
        self._look_at = now + _LOOK_S
        try:
            if attempt == 1:
                return REASON if self._durable.steps() else None
            beat, record = self._rundir.heartbeat() or {}, self._rundir.read_attempt(attempt)
        except StorageError:
            return None  # the launch itself says so
        begun = record.resumed_from_step if record is not None else None
        return REASON if begun is not None and beat.get("attempt") == attempt and (beat["step"] or 0) > begun else None

    def is_worth_resuming(self, first: Outcome) -> bool:
        """Whether the first attempt left something that a second one can begin from."""
        return bool(first.checkpoints) and first.state in (RunState.STOPPED, RunState.SUCCEEDED)

    def proofs(self, outcome: Outcome) -> list[Proof]:
        """What was proved, in the order in which a run needs it."""
        first, second = outcome.attempts[0], outcome.attempts[1] if len(outcome.attempts) > 1 else None
        began = first.state is not RunState.FAILED or first.step is not None
        begun = [folder_name(one.resumed_from_step) for one in outcome.attempts if one.resumed_from_step is not None]
        saved = begun or outcome.checkpoints
        proofs = [Proof("environment and script", began, "the script ran" if began else _end(first))]
        if not began:
            return proofs
        if not saved:
            return [*proofs, Proof("checkpoint", False, self._why_no_checkpoint(first))]
        proofs.append(Proof("checkpoint", True, f"{saved[0]} lies in {self._spec.checkpoint.url or self._rundir.url}"))
        stopped = first.state is RunState.STOPPED
        proofs.append(
            Proof("stop", True, f"at step {first.step}" if first.step is not None else "in time")
            if stopped
            else Proof("stop", None if first.state is RunState.SUCCEEDED else False, _end(first))
        )
        if second is None:
            proofs.append(Proof("resume", None, "it did not come to that"))
        elif second.resumed_from_step is None:
            proofs.append(Proof("resume", False, f"the second attempt began at step 0: {_end(second)}"))
        else:
            good = second.state in (RunState.STOPPED, RunState.SUCCEEDED)
            lost = outcome.steps_lost
            where = f"from step {second.resumed_from_step} on {second.host}"
            proofs.append(
                Proof("resume", good, where + (f", {lost} steps lost" if lost is not None else "")
                      + ("" if good else f"; then {_end(second)}"))
            )  # fmt: skip
        return proofs

    def _why_no_checkpoint(self, first: Attempt) -> str:
        if first.state is RunState.FAILED:
            return f"none before the end: {_end(first)}"
        watch = self._spec.checkpoint.watch
        if watch is not None:
            return f"nothing complete matched checkpoint.watch={watch} before the end: {_end(first)}"
        return (
            f"none before the end ({_end(first)}): call runctl.attach(...) in the script, or name the files that it "
            "writes by itself: checkpoint.watch=GLOB"
        )


def run(spec: LaunchSpec, platform: Platform, hooks: Hooks, *, as_json: bool) -> int:
    """Carry a trial out, and say what it proved.

    Args:
        spec: as `shortened` made it.
        platform: where.
        hooks: the active plugins.
        as_json: whether the last line of standard output is for programs.

    Returns:
        0 if all was proved that a long run depends on.

    Raises:
        RunctlError: if nothing could be started.
    """
    platform.check_ready(spec)
    RunDir.check(spec.run.root)
    rundir = RunDir(run_url(spec.run.root, spec.run.id))
    trial = Smoke(spec, rundir)
    supervisor = Supervisor(
        spec, platform, hooks, rundir, terminal.tell, output=sys.stderr if as_json else sys.stdout,
        stop_when=trial.stop_when,
    )  # fmt: skip
    plan = supervisor.first_plan(1)
    if not platform.terms.rented:
        rundir.lease.take(os.getpid())
    rundir.write_spec(platform.staged(spec))
    terminal.show_start(spec, plan)
    outcome = supervisor.run(plan)
    if outcome is not None and trial.is_worth_resuming(outcome):
        outcome = supervisor.run(supervisor.first_plan(2)) or outcome
    if outcome is None:
        terminal.show_left(spec, platform.kind)
        return 0
    proofs = trial.proofs(outcome)
    _show(proofs, outcome)
    if as_json:
        told = {"passed": _passed(proofs), "proofs": [asdict(one) for one in proofs]}
        terminal.show_json({**outcome.to_json(), "smoke": told})
    return int(ExitCode.OK if _passed(proofs) else ExitCode.FAILED)


def _show(proofs: list[Proof], outcome: Outcome) -> None:
    width = max(len(proof.what) for proof in proofs)
    for proof in proofs:
        word = {True: "works", False: "FAILS", None: "not seen"}[proof.proved]
        terminal.tell(f"smoke: {proof.what:<{width}}  {word:<8}  {proof.said}")
    cost = "at no known price" if outcome.cost_usd is None else f"{outcome.cost_usd:.4f} USD"
    attempts = f"{len(outcome.attempts)} attempt{'s' * (len(outcome.attempts) > 1)}"
    terminal.tell(f"smoke: {attempts}, {cost} · {outcome.run_dir}")
    if _passed(proofs):
        terminal.tell("smoke: the same launch without smoke=true is the long run")


def _passed(proofs: list[Proof]) -> bool:
    return (
        proofs[-1].what == "resume" and all(proof.proved is not False for proof in proofs) and bool(proofs[-1].proved)
    )


def _end(attempt: Attempt) -> str:
    return attempt.end_reason.splitlines()[0] if attempt.end_reason else attempt.state.value
