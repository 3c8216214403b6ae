"""The supervisor: submit, watch, end, and begin again. One launch from its plan to its outcome."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from runctl import asking, bills, unrecorded
from runctl.buying import Buyer
from runctl.checkpoint.manifest import folder_name
from runctl.cost import total_usd
from runctl.errors import ExitCode, PlatformError, RunctlError, Stopped, StorageError
from runctl.following import Follower
from runctl.hooks import Hooks
from runctl.outcome import Attempt, Outcome
from runctl.platforms.base import Platform
from runctl.rundir import RunDir, event_line
from runctl.signals import REASONS, StopSignals
from runctl.spec import LaunchSpec, Offer, Plan, RunHandle, RunState
from runctl.stops import Stop
from runctl.storage import Stream

_TICK_S = 0.2


class Supervisor:
    """Carries one run out on a platform, in as many attempts as it takes and may have.

    Args:
        spec: what to run.
        platform: where.
        hooks: the active plugins.
        rundir: the run's directory.
        tell: called with each line for the user.
        output: takes what a remote attempt prints; None for nobody.
        stop_when: asked again and again with the attempt's number: why it is to be stopped, or None.
        signals: which ask for a stop; None for those to this process.
        attended: whether whoever sits at the terminal may be asked.
    """

    def __init__(
        self, spec: LaunchSpec, platform: Platform, hooks: Hooks, rundir: RunDir, tell: Any, *,
        output: TextIO | None, stop_when: Callable[[int], str | None] = lambda _: None,
        signals: StopSignals | None = None, attended: bool = True,
    ) -> None:  # fmt: skip
        self._spec = spec
        self._platform = platform
        self._hooks = hooks
        self._rundir = rundir
        self._tell = tell
        self._output = output
        self._stop_when = stop_when
        self._signals = signals
        self._attended = attended
        self._lost: list[Offer] = []
        self._buyer = Buyer(spec, platform, rundir, approve=self._approve, tell=tell, agree=self._agree)

    def first_plan(self, attempt: int) -> Plan:
        """A plan for the launch's first attempt, approved.

        Raises:
            RunctlError: what looking, planning and the plugins raise.
        """
        return self._buyer.plan(attempt, self._lost)

    def run(self, plan: Plan, *, found: RunHandle | None = None, detach: bool = False) -> Outcome | None:
        """Submit the plan, watch its attempt to the end, begin others if it is interrupted, and say what became of it.

        Args:
            plan: of the first attempt, approved.
            found: an attempt of this plan that lives already; nothing is submitted for it.
            detach: leave as soon as something is submitted.

        Returns:
            The outcome; None for a run that was left to itself.

        Raises:
            RunctlError: if nothing could be started.
        """
        first = plan.attempt
        events = self._rundir.event_stream("launcher")
        attempt: Attempt | None = None
        trouble: RunctlError | None = None
        while True:
            try:
                plan, attempt = self._carry_out(plan, found, attempt, events, detach=detach)
                if attempt is None:
                    events.close()
                    return None
                tried = plan.attempt - first + 1
                if tried >= self._platform.terms.max_attempts or not self._goes_on(attempt):
                    break
                self._tell(f"attempt {attempt.number}: {attempt.end_reason}")
                with (self._signals or StopSignals()).caught() as signals, signals.raised():
                    plan, found = self._buyer.plan_again(plan.attempt + 1, self._lost), None
            except (RunctlError, KeyboardInterrupt) as error:
                if attempt is None:
                    raise
                trouble = error if isinstance(error, RunctlError) else Stopped("stopped before another host was found")
                self._tell(str(trouble))
                break
        attempts = [*(one for one in self._rundir.attempts() if one.number != attempt.number), attempt]
        outcome = outcome_of(self._spec, self._rundir, attempts, trouble)
        try:
            self._rundir.write_outcome(outcome)
            events.append(event_line("run_ended", state=outcome.state, exit_code=outcome.exit_code))
            events.close()
        except StorageError as error:
            # What became of the training is known all the same, and matters more than its record.
            self._tell(f"the records of this run are not whole: {error}")
        self._hooks.notify("runctl_run_ended", spec=self._spec, outcome=outcome, rundir=self._rundir)
        return outcome

    def _goes_on(self, attempt: Attempt) -> bool:
        """Whether another host is worth renting after an attempt."""
        if attempt.state is not RunState.INTERRUPTED or attempt.lost_to not in self._spec.retry_on:
            return False
        if attempt.lost_to != "host_fault" and not attempt.is_unreached:
            return True
        before = self._rundir.read_attempt(attempt.number - 1)
        # Two hosts in a row that break at the same step, or that are never heard of: then it is hardly the hosts.
        if attempt.is_unreached:
            return before is None or not before.is_unreached
        return before is None or before.lost_to != "host_fault" or before.step != attempt.step

    def _carry_out(
        self, plan: Plan, found: RunHandle | None, before: Attempt | None, events: Stream, *, detach: bool
    ) -> tuple[Plan, Attempt | None]:
        """One attempt, from its submission to its record; None for one that was left to itself."""
        rented = self._platform.terms.rented
        began_at = time.time()
        with (self._signals or StopSignals()).caught() as signals:
            if found is not None:
                where = found.address.get("instance")
                self._tell(f"{plan.run_id} runs on {where}: following it · {self._rundir.url}")
            events.append(event_line("submitted" if found is None else "found", attempt=plan.attempt,
                                     platform=plan.platform))  # fmt: skip
            try:
                # Until there is a host, Ctrl-C ends the launch.
                with signals.raised() if rented and found is None else contextlib.nullcontext():
                    if found is None:
                        plan, found = self._buyer.buy(plan, self._lost, detach=detach)
            except KeyboardInterrupt:
                self._buyer.undo(plan)  # out of reach of a second one
                raise
            offer = self._platform.offer(plan, found)
            attempt = Attempt(
                plan.attempt, plan.platform, plan.host or str(found.address.get("instance", "")),
                offer.market if offer is not None else "own", started_at=began_at,
            )  # fmt: skip
            self._hooks.notify("runctl_attempt_started", spec=self._spec, attempt=attempt, rundir=self._rundir)
            if rented:  # the agent reckons with it, and nobody may be here at its end
                bills.ask(self._rundir, self._platform, plan, found, attempt)
            if detach:
                return plan, None
            state = self._watch(found, signals)
        if state is None:
            return plan, None
        try:
            attempt = unrecorded.settled(self._platform, self._rundir, attempt, plan=plan, handle=found, state=state)
        finally:
            if rented:
                self._end_host(found, state, attempt)
        price = offer.price_usd_per_hour if offer is not None else None
        rates = bills.ask(self._rundir, self._platform, plan, found, attempt) if rented else None
        self._hooks.notify(
            "runctl_attempt_ended", spec=self._spec, attempt=attempt, price_usd_per_hour=price, rates=rates
        )
        if offer is not None and attempt.state is RunState.INTERRUPTED:
            self._lost.append(offer)
        try:
            self._rundir.write_attempt(attempt)
        except StorageError as error:
            self._tell(f"the record of attempt {attempt.number} is not whole: {error}")
        return plan, attempt

    def _approve(self, plan: Plan) -> None:
        self._hooks.require("runctl_before_submit", spec=self._spec, plan=plan)

    def _agree(self, text: str) -> bool:
        """The user's yes to something that costs money; where nobody is asked it is said and done."""
        if self._attended:
            return asking.agree(text)
        self._tell(text)
        return True

    def _watch(self, handle: RunHandle, signals: StopSignals) -> RunState | None:
        """Until the attempt has ended, or its user has left it.

        Returns:
            How the platform saw it end; None if it was left to itself.
        """
        rented = self._platform.terms.rented
        follower = None
        if rented and self._output is not None:
            follower = Follower(self._rundir, handle.attempt, self._output.fileno())
            follower.start()
        told, asked, stop = 0, False, Stop(self._platform, handle, self._tell)
        while not (state := self._platform.wait(handle, _TICK_S)).ended:
            stop.ask_again()
            if not stop.is_asked and (why := self._stop_when(handle.attempt)) is not None:
                stop.ask(why)
            if asked and (typed := asking.answer()) is not None:
                asked = False
                if typed == "":
                    break
                if typed.startswith("s"):
                    self._tell("stopping; Ctrl-C stops at once")
                    stop.ask("user")
                else:
                    self._tell("it goes on")
                    told = 0
                    signals.received.clear()
            for signum in signals.received[told:]:
                told += 1
                if rented and signum is not signal.SIGINT:
                    break
                if told == 1 and rented and self._attended and asking.can_ask():
                    asking.ask("\nEnter leaves it running, s stops it, Ctrl-C stops it at once:")
                    asked = True
                    continue
                if self._attended:  # or else it is said once for many
                    once = f"{signum.name}: stopping; once more to stop at once"
                    self._tell(once if told == 1 else "stopping at once")
                stop.ask(REASONS[signum], now=told > 1)
            else:
                continue
            break
        if follower is not None:
            if state.ended:
                follower.finish()
            else:
                follower.leave()
        return state if state.ended else None

    def _end_host(self, handle: RunHandle, state: RunState, attempt: Attempt) -> None:
        """See to it that a rented host ends; one that failed may stay a while for whoever wants to look.

        A host whose agent had the last word is as good as before, and waits in its berth for the next run.
        """
        keep_s = self._platform.terms.keep_on_failure_s if state is RunState.FAILED else 0.0
        berth = self._platform.berth
        if (
            berth is not None
            and berth.keep_s > 0
            and state in (RunState.SUCCEEDED, RunState.FAILED)
            and not self._platform.why(handle)
        ):
            berth.keep(handle, attempt.ended_at or time.time())
            keep_s = berth.keep_s
        try:
            stays = self._platform.clean_up(handle, keep_s=keep_s)
        except PlatformError as error:
            self._tell(f"{error}; it ends itself at its deadline")
            return
        if stays and (berth is None or berth.host is not handle):
            self._tell(
                f"{handle.address.get('instance')} stays for {keep_s / 60:.0f} minutes (platform.keep_on_failure)"
            )


def outcome_of(
    spec: LaunchSpec, rundir: RunDir, attempts: Sequence[Attempt], trouble: RunctlError | None = None
) -> Outcome:
    """What became of a run.

    Args:
        spec: what was to run.
        rundir: the run's directory.
        attempts: its attempts, all of them ended; at least one.
        trouble: why no other one was begun, if that is an error.

    Raises:
        StorageError: if the run directory cannot be read.
    """
    status, last = rundir.read_status() or {}, attempts[-1]
    return Outcome(
        run_id=spec.run.id,
        name=spec.run.name,
        state=last.state,
        exit_code=_exit_code(last, trouble),
        reason=last.end_reason if trouble is None else f"{last.end_reason}; {trouble}",
        run_dir=rundir.url,
        attempts=list(attempts),
        step=status.get("step"),
        resumed_from_step=last.resumed_from_step,
        steps_lost=_steps_lost(attempts),
        checkpoints=[folder_name(step) for step in status.get("checkpoints", ())],
        metrics=status.get("metrics") or {},
        cost_usd=total_usd([one.cost_usd for one in attempts]),
    )


def _exit_code(attempt: Attempt, trouble: RunctlError | None) -> int:
    if trouble is not None:
        return int(trouble.exit_code)
    return attempt.exit_code if attempt.exit_code is not None else int(ExitCode.HOST_LOST)


def _steps_lost(attempts: Sequence[Attempt]) -> int | None:
    """Steps that the attempt before had done and the last one had to do again; None for a first attempt."""
    *earlier, last = attempts
    # One that ended before it began anything did nothing again.
    before = next((one.step for one in reversed(earlier) if one.begun), None)
    return None if before is None or not last.begun else max(0, before - (last.resumed_from_step or 0))
