"""What became of an attempt, judged from what its ranks left behind."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runctl.agent.ranks import RankExit, Report, describe_exit
from runctl.agent.stop import Stop
from runctl.errors import ExitCode
from runctl.hosts import faults
from runctl.outcome import HOST_FAULT, Failure
from runctl.spec import RunState

#: What a rank says whose peer has gone: gloo, NCCL and the store each in their own words.
_LOST_PEER = re.compile(
    r"connection (closed|reset|refused) by|broken pipe|socket closed|remote process exited|connectFullMesh"
    r"|DistBackendError|DistNetworkError|DistStoreError",
    re.IGNORECASE,
)

#: What each reason for a stop means for the user, and the exit code of the launch.
_STOPS = {
    "user": ("stopped by Ctrl-C", ExitCode.USER_INTERRUPT),
    "terminated": ("stopped by SIGTERM", ExitCode.STOPPED),
    "asked": ("stopped by runctl stop", ExitCode.STOPPED),
    "hangup": ("stopped, its terminal was closed", ExitCode.STOPPED),
    "launcher_gone": ("stopped, its launcher was gone", ExitCode.STOPPED),
    "smoke": ("stopped, it has shown what it was to show", ExitCode.STOPPED),
    "max_time": ("stopped at limits.max_time", ExitCode.LIMIT),
    "max_usd": ("stopped at limits.max_usd", ExitCode.LIMIT),
    "idle": ("stopped by limits.idle: GPUs and processors had nothing to do", ExitCode.LIMIT),
    "spot_notice": ("interrupted", ExitCode.HOST_LOST),
}


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
        stop: the stop request, if there was one. It does not excuse a rank that had failed before it came.
        failures: what ranks said of their failures after the last restart, the earliest first.
        host: this host's name.
    """
    failure = None if report.exit_code == 0 else _root_cause(report, failures, host)
    if stop is not None and (failure is None or failure.at is None or failure.at > stop.at):
        # A newer launcher may ask for a stop with a word that is not known here.
        reason, code = _STOPS.get(stop.reason, (f"stopped: {stop.reason}", ExitCode.STOPPED))
        state = RunState.INTERRUPTED if code is ExitCode.HOST_LOST else RunState.STOPPED
        return Verdict(state, int(code), f"{reason}: {stop.detail}" if stop.detail else reason)
    if failure is None:
        return Verdict(RunState.SUCCEEDED, 0, "succeeded")
    who = "torchrun" if failure.rank is None else f"rank {failure.rank}"
    return Verdict(RunState.FAILED, failure.exit_code, f"{who} failed: {failure.message}", failure)


def excused(verdict: Verdict, began: float, project_dir: Path) -> Verdict:
    """A failure that was a rented host's own is an interruption: another host goes on.

    Args:
        verdict: on the attempt.
        began: when it did, on the monotonic clock.
        project_dir: where it wrote.
    """
    failure = verdict.failure
    if failure is None:
        return verdict
    said = "\n".join(filter(None, [failure.message, failure.traceback]))
    fault = faults.host_fault(said, began, project_dir)
    if fault is None:
        return verdict
    reason = f"{HOST_FAULT}: {fault} ({verdict.reason.splitlines()[0]})"
    return replace(verdict, state=RunState.INTERRUPTED, exit_code=int(ExitCode.HOST_LOST), reason=reason)


def _root_cause(report: Report, failures: Sequence[dict[str, Any]], host: str) -> Failure:
    """The failure that made the others fail.

    A rank that ended by itself without a word comes first: the kernel killed it, and its peers then failed in
    their collectives. An abort is an exception to that, for NCCL aborts a rank whose peers are gone. Next is the
    earliest of the failures that ranks told of, those that only miss a peer last: a script that tears down its
    process group while its exception unwinds is heard of after them.
    """
    codes = {exit.rank: exit for exit in report.exits}
    told = {failure["rank"] for failure in failures}
    first = [exit for exit in report.exits if exit.first] or list(report.exits)
    silent = [exit for exit in first if exit.rank not in told]
    killed = next((exit for exit in silent if exit.by_signal != signal.SIGABRT), None)
    if killed is None and failures:
        cause = next((one for one in failures if not _LOST_PEER.search(one["message"])), failures[0])
        rank = cause["rank"]
        code = codes[rank].exit_code if rank in codes and codes[rank].first else 1
        return Failure(rank, host, code, cause["message"], cause["traceback"], cause["at"])
    ended = killed or next(iter(silent or first), None)
    if ended is not None:
        return Failure(ended.rank, host, ended.exit_code, _end_of(ended))
    message = (report.error or "ended without a word").strip()
    return Failure(None, host, report.exit_code, message, report.traceback)


def _end_of(exit: RankExit) -> str:
    said = describe_exit(-exit.by_signal if exit.by_signal else exit.exit_code)
    if exit.by_signal == signal.SIGKILL:
        said += "; the kernel does that when memory runs out (see dmesg)"
    return said
