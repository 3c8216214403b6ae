"""The record of an attempt: opened in the run directory before it begins, closed when it has ended."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time

from runctl import processes
from runctl.agent.attempt import NODE, RunningAttempt
from runctl.agent.control import ControlWatch
from runctl.agent.inbox import Inbox
from runctl.agent.milestones import Milestones
from runctl.agent.order import Order
from runctl.agent.ranks import TorchrunRanks
from runctl.agent.streamed import StreamedOutput
from runctl.agent.troubles import Troubles
from runctl.agent.verdict import Verdict
from runctl.errors import RunctlError
from runctl.hosts import aws
from runctl.outcome import Attempt
from runctl.rundir import RunDir, event_line
from runctl.spec import RunState


def carry_out(order: Order, inbox: Inbox, warm: TorchrunRanks | None) -> int:
    """Carry out one attempt on this host and leave its record in the run directory.

    Args:
        order: what to do. A detached attempt shows its output through the run directory.
        inbox: where stop requests come from.
        warm: a torchrun child started ahead, or None.

    Returns:
        The exit code that the launch should have.
    """
    rundir = RunDir(order.run_dir)
    spec = rundir.read_spec()
    record = Attempt(
        order.attempt, order.platform, socket.gethostname(), order.market, started_at=time.time(),
        price_usd_per_hour=order.price_usd_per_hour, billed_from=order.billed_from,
    )  # fmt: skip
    if order.attached:
        rundir.lease.take(os.getpid(), heir_of=os.getppid())
    else:
        rundir.lease.take(os.getpid(), attempt=order.attempt)
    events = rundir.event_stream(f"a{order.attempt}-n{NODE}")
    rundir.write_attempt(record)
    rundir.write_status(RunState.RUNNING, order.attempt, host=record.host, pid=os.getpid())
    instance = aws.instance_facts() if order.notices == "aws" else None
    about = {} if instance is None else {"instance": instance}
    events.append(event_line("attempt_started", attempt=order.attempt, host=record.host, **about))
    troubles = Troubles()
    milestones = Milestones(order, spec, record, events=events, troubles=troubles, say=_say)
    attempt: RunningAttempt | None = None
    with contextlib.ExitStack() as around:
        if not order.attached:
            around.enter_context(StreamedOutput(rundir.console_stream(order.attempt), troubles))
        control = ControlWatch(rundir, order.attempt, inbox)
        control.start()
        around.callback(control.end)
        try:
            attempt = RunningAttempt(
                order,
                spec,
                rundir,
                record,
                inbox=inbox,
                control=control,
                events=events,
                troubles=troubles,
                milestones=milestones,
            )
            verdict = attempt.run(warm)
        except RunctlError as error:
            verdict = Verdict(RunState.FAILED, int(error.exit_code), str(error))
        finally:
            processes.end_descendants()
    # What was shown is complete before the status says that the attempt has ended.
    record.ended_at = time.time()
    record.state, record.exit_code, record.end_reason = verdict.state, verdict.exit_code, verdict.reason
    record.failure = verdict.failure
    progress = attempt.progress() if attempt is not None else {}
    record.step, record.stall_s = progress.get("step"), progress.get("stall_s")
    milestones.end(verdict, progress)
    with troubles.kept():
        rundir.write_attempt(record)
    # Once the status tells of the end, a launcher ends the host.
    milestones.wait(verdict)
    with troubles.kept():
        rundir.write_status(
            verdict.state, order.attempt, host=record.host, exit_code=verdict.exit_code, reason=verdict.reason,
            **progress,
        )  # fmt: skip
        events.append(event_line("attempt_ended", attempt=order.attempt, state=verdict.state, reason=verdict.reason))
        events.close()
        rundir.lease.drop()
    if troubles.first is not None:
        _say(f"the records of this attempt are not whole: {troubles.first}")
        _say(f"attempt {order.attempt} {verdict.state.value}: {verdict.reason}")
    return verdict.exit_code


def _say(text: str) -> None:
    sys.stderr.write(f"runctl: {text}\n")
