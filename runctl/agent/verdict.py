"""What became of an attempt, judged from what its ranks left behind (pure)."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runctl.agent.ranks import RankExit, Report, describe_exit
from runctl.errors import ExitCode
from runctl.spec import Failure, RunState

#: Signals by which a rank dies of its own or the kernel's doing; SIGTERM and SIGABRT follow from another's.
_OWN_DEATHS = {signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}

#: What each reason for a stop means for the user, and the exit code of the launch.
_STOPS = {
    "user": ("stopped by Ctrl-C", ExitCode.USER_INTERRUPT),
    "terminated": ("stopped by SIGTERM", ExitCode.STOPPED),
    "hangup": ("stopped, its terminal was closed", ExitCode.STOPPED),
    "launcher_gone": ("stopped, its launcher was gone", ExitCode.STOPPED),
    "max_time": ("stopped at limits.max_time", ExitCode.LIMIT),
}


@dataclass(frozen=True)
class Stop:
    """A stop request: why, and until when (monotonic seconds) the ranks may take."""

    reason: str
    deadline: float


@dataclass(frozen=True)
class Verdict:
    """State, exit code and reason of an ended attempt, and its root cause if it failed."""

    state: RunState
    exit_code: int
    reason: str
    failure: Failure | None = None


def judge(report: Report, stop: Stop | None, failures: Sequence[dict[str, Any]], host: str) -> Verdict:
    """Say what became of an attempt.

    Args:
        report: how the ranks ended.
        stop: the stop request, if there was one.
        failures: the uncaught exceptions that ranks left, the earliest first.
        host: this host's name.
    """
    if stop is not None:
        reason, code = _STOPS[stop.reason]
        return Verdict(RunState.STOPPED, int(code), reason)
    if report.exit_code == 0:
        return Verdict(RunState.SUCCEEDED, 0, "succeeded")
    failure = _root_cause(report, failures, host)
    who = "torchrun" if failure.rank is None else f"rank {failure.rank}"
    return Verdict(RunState.FAILED, failure.exit_code, f"{who} failed: {failure.message}", failure)


def _root_cause(report: Report, failures: Sequence[dict[str, Any]], host: str) -> Failure:
    """The failure that made the others fail.

    A rank that the kernel killed comes first: its peers then fail in their collectives and leave tracebacks of
    that. Otherwise the earliest uncaught exception of the last restart; otherwise the first rank that failed.
    """
    codes = {exit.rank: exit for exit in report.exits}
    killed = next((exit for exit in report.exits if exit.by_signal in _OWN_DEATHS), None)
    last_restart = max((failure["restart"] for failure in failures), default=0)
    raised = next((failure for failure in failures if failure["restart"] == last_restart), None)
    if killed is None and raised is not None:
        rank = raised["rank"]
        code = codes[rank].exit_code if rank in codes else 1
        return Failure(rank, host, code, raised["message"], raised["traceback"], raised["at"])
    first = killed or next(iter(report.exits), None)
    if first is not None:
        return Failure(first.rank, host, first.exit_code, _end_of(first))
    return Failure(None, host, report.exit_code, (report.error or "ended without a word").strip())


def _end_of(exit: RankExit) -> str:
    said = describe_exit(-exit.by_signal if exit.by_signal else exit.exit_code)
    if exit.by_signal == signal.SIGKILL:
        said += "; the kernel does that when memory runs out (see dmesg)"
    return said
