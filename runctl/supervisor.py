"""The supervisor: submit, watch, end. One launch from its plan to its outcome."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from runctl.checkpoint.manifest import folder_name
from runctl.cost import total_usd
from runctl.errors import ExitCode, StorageError
from runctl.hooks import Hooks
from runctl.outcome import Attempt, Outcome
from runctl.platforms.base import Platform
from runctl.rundir import RunDir, event_line
from runctl.spec import LaunchSpec, Plan, RunHandle, RunState

_TICK_S = 0.2
_REASONS = {signal.SIGINT: "user", signal.SIGTERM: "terminated", signal.SIGHUP: "hangup"}


class StopSignals:
    """Signals to the launcher, collected while an attempt runs: the first asks it to stop, the next at once."""

    def __init__(self) -> None:
        self.received: list[signal.Signals] = []

    @contextmanager
    def caught(self) -> Iterator[StopSignals]:
        """Collect instead of dying; the handlers before are put back at the end."""
        # A hangup that is ignored, as nohup has it, stays ignored.
        heard = [number for number in _REASONS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._note) for number in heard}
        try:
            yield self
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.received.append(signal.Signals(signum))


class Supervisor:
    """Carries one planned run out on a platform.

    Args:
        spec: what to run.
        platform: where.
        hooks: the active plugins.
        tell: called with each line for the user.
    """

    def __init__(self, spec: LaunchSpec, platform: Platform, hooks: Hooks, tell: Any) -> None:
        self._spec = spec
        self._platform = platform
        self._hooks = hooks
        self._tell = tell

    def run(self, plan: Plan, rundir: RunDir) -> Outcome:
        """Submit the plan, watch its attempt to the end, and say what became of the run.

        Raises:
            RunctlError: if nothing could be started.
        """
        with StopSignals().caught() as signals:
            attempt = Attempt(plan.attempt, plan.platform, plan.host or "", started_at=time.time())
            events = rundir.event_stream("launcher")
            events.append(event_line("submitted", attempt=plan.attempt, platform=plan.platform))
            handle = self._platform.submit(plan)
            self._hooks.notify("runctl_attempt_started", spec=self._spec, attempt=attempt, rundir=rundir)
            state = self._watch(handle, signals)
        attempt = self._record_of(attempt, handle, state, rundir)
        price = self._platform.price_usd_per_hour(plan)
        self._hooks.notify("runctl_attempt_ended", spec=self._spec, attempt=attempt, price_usd_per_hour=price)
        outcome = self._outcome(attempt, rundir)
        try:
            rundir.write_attempt(attempt)
            rundir.write_outcome(outcome)
            events.append(event_line("run_ended", state=outcome.state, exit_code=outcome.exit_code))
            events.close()
        except StorageError as error:
            # What became of the training is known all the same, and matters more than its record.
            self._tell(f"the records of this run are not whole: {error}")
        self._hooks.notify("runctl_run_ended", spec=self._spec, outcome=outcome, rundir=rundir)
        return outcome

    def _watch(self, handle: RunHandle, signals: StopSignals) -> RunState:
        """Until the attempt has ended; the first signal stops it gracefully, a second one at once.

        Returns:
            How the platform saw it end.
        """
        told = 0
        while not (state := self._platform.wait(handle, _TICK_S)).ended:
            for signum in signals.received[told:]:
                told += 1
                if told == 1:
                    self._tell(f"{signum.name}: stopping; once more to stop at once")
                elif told == 2:
                    self._tell("stopping at once")
                self._platform.cancel(handle, _REASONS[signum], now=told > 1)
        return state

    def _record_of(self, attempt: Attempt, handle: RunHandle, state: RunState, rundir: RunDir) -> Attempt:
        """The agent's own record, or one for an agent that could not write it."""
        record = rundir.read_attempt(attempt.number)
        if record is not None and record.state.ended:
            return record
        # Whoever else holds the lease now carries the run out: then this launch came second.
        rundir.check_lease(besides=os.getpid())
        self._platform.clean_up(handle)
        record = record or attempt
        record.ended_at = time.time()
        if state is RunState.INTERRUPTED:
            record.end_reason = "interrupted: the agent was killed"
            record.exit_code = int(ExitCode.HOST_LOST)
        else:
            record.end_reason = f"{state.value}: the agent could not leave a record of the attempt"
            record.exit_code = 0 if state is RunState.SUCCEEDED else int(ExitCode.FAILED)
        record.state = state
        status = rundir.read_status() or {}
        kept = ("step", "metrics", "checkpoints", "resumed_from_step")
        progress = {key: status[key] for key in kept if key in status}
        record.step = self._last_step(rundir, record)
        with contextlib.suppress(StorageError):  # told at the end
            rundir.write_status(record.state, record.number, reason=record.end_reason, **progress)
        return record

    def _last_step(self, rundir: RunDir, record: Attempt) -> int | None:
        """The last step that the metrics of an attempt tell of."""
        steps = [e["step"] for e in rundir.metrics() if e["attempt"] == record.number and "step" in e]
        return max(steps, default=None)

    def _outcome(self, attempt: Attempt, rundir: RunDir) -> Outcome:
        status = rundir.read_status() or {}
        attempts = [*(earlier for earlier in rundir.attempts() if earlier.number != attempt.number), attempt]
        return Outcome(
            run_id=self._spec.run.id,
            name=self._spec.run.name,
            state=attempt.state,
            exit_code=attempt.exit_code if attempt.exit_code is not None else int(ExitCode.HOST_LOST),
            reason=attempt.end_reason,
            run_dir=rundir.url,
            attempts=attempts,
            step=status.get("step"),
            resumed_from_step=attempt.resumed_from_step,
            steps_lost=_steps_lost(attempts),
            checkpoints=[folder_name(step) for step in status.get("checkpoints", ())],
            metrics=status.get("metrics") or {},
            cost_usd=total_usd([one.cost_usd for one in attempts]),
        )


def _steps_lost(attempts: list[Attempt]) -> int | None:
    """Steps that the attempt before had done and the last one had to do again; None for a first attempt."""
    if len(attempts) < 2:
        return None
    before = attempts[-2].step
    return None if before is None else max(0, before - (attempts[-1].resumed_from_step or 0))
