"""The loop of one attempt: start the ranks, watch them, stop them, say what became of them."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any

from runctl import command, processes
from runctl.agent.console import Console
from runctl.agent.logs import LogPump
from runctl.agent.metrics import MetricsLog
from runctl.agent.order import Order
from runctl.agent.ranks import PACKAGE_DIR, PlainRank, Ranks, TorchrunRanks
from runctl.agent.verdict import Stop, Verdict, judge
from runctl.errors import ConfigError, RunctlError
from runctl.hooks import Hooks
from runctl.hostdir import HostDir
from runctl.hosts import facts
from runctl.rundir import HEARTBEAT_S, RunDir, event_line
from runctl.spec import Attempt, LaunchSpec, RunState

#: Between SIGTERM and SIGKILL for a script that does not poll for stops.
KILL_AFTER_S = 10.0
_TICK_S = 0.2
_METRICS_S = 1.0
_NODE = 0


def carry_out(order: Order, warm: TorchrunRanks | None) -> int:
    """Carry out one attempt on this host and leave its record in the run directory.

    Args:
        order: what to do.
        warm: a torchrun child started ahead, or None.

    Returns:
        The exit code that the launch should have.
    """
    rundir = RunDir(order.run_dir)
    spec = rundir.read_spec()
    record = Attempt(order.attempt, order.platform, socket.gethostname(), order.market, started_at=time.time())
    rundir.take_lease(os.getpid())
    events = rundir.event_stream(f"a{order.attempt}-n{_NODE}")
    rundir.write_attempt(record)
    rundir.write_status(RunState.RUNNING, order.attempt, host=record.host, pid=os.getpid())
    events.append(event_line("attempt_started", attempt=order.attempt, host=record.host))
    attempt = _Attempt(order, spec, rundir, record.host)
    try:
        verdict = attempt.run(warm)
    except RunctlError as error:
        verdict = Verdict(RunState.FAILED, int(error.exit_code), str(error))
    finally:
        processes.end_descendants()
    record.ended_at = time.time()
    record.state, record.exit_code, record.end_reason = verdict.state, verdict.exit_code, verdict.reason
    record.failure = verdict.failure
    rundir.write_attempt(record)
    rundir.write_status(
        verdict.state, order.attempt, host=record.host, exit_code=verdict.exit_code, reason=verdict.reason,
        **attempt.progress(),
    )  # fmt: skip
    events.append(event_line("attempt_ended", attempt=order.attempt, state=verdict.state, reason=verdict.reason))
    events.close()
    rundir.drop_lease()
    return verdict.exit_code


class _Attempt:
    """What one attempt holds while its ranks run."""

    def __init__(self, order: Order, spec: LaunchSpec, rundir: RunDir, host: str) -> None:
        self._order = order
        self._spec = spec
        self._rundir = rundir
        self._host = host
        self._writer = f"a{order.attempt}-n{_NODE}"
        self._host_dir = HostDir.for_attempt(spec.run.id, order.attempt)
        self._metrics = MetricsLog(rundir.metrics_stream(self._writer), order.attempt, self._host_dir)
        self._stop: Stop | None = None
        self._beat_at = self._polled_at = 0.0

    def progress(self) -> dict[str, Any]:
        """Step and metrics so far, for the status."""
        return {"step": self._metrics.step, "metrics": self._metrics.latest}

    def run(self, warm: TorchrunRanks | None) -> Verdict:
        """Start the ranks, watch them to their end, and judge it."""
        order, spec, host_dir = self._order, self._spec, self._host_dir
        here = facts.here(spec, order.project_dir, str(host_dir.path), PACKAGE_DIR)
        workdir = command.workdir(spec, here)
        hooks = Hooks.load(Path(workdir), spec.plugins_disabled)
        env = command.rank_env(spec, here, self._rundir.url, order.attempt) | _secret_values(spec.secrets)
        if hooks.implemented("runctl_worker_started"):
            env["RUNCTL_WORKER_PLUGINS"] = json.dumps(spec.plugins_disabled)
        hooks.notify("runctl_before_train", spec=spec, attempt=order.attempt, rundir=self._rundir)

        shutil.rmtree(host_dir.path, ignore_errors=True)
        host_dir.create(here.nproc)
        ranks = self._ranks(warm)
        pump = self._pump(ranks, here.nproc)
        pump.start()
        try:
            ranks.start(command.rank_argv(spec, here), env, workdir)
            self._watch(ranks)
            failures = host_dir.failures()
            for failure in failures:
                pump.append(failure["rank"], failure["traceback"])
            return judge(ranks.report(), self._stop, failures, self._host)
        finally:
            processes.end_descendants()
            pump.finish()
            self._metrics.close()
            shutil.rmtree(host_dir.path, ignore_errors=True)

    def _pump(self, ranks: Ranks, nproc: int) -> LogPump:
        out = sys.stderr.fileno() if self._order.output_to_stderr else sys.stdout.fileno()
        pump = LogPump(Console(self._spec.logs, out, sys.stderr.fileno()), self._metrics.feed)
        for rank in range(nproc):
            log = self._rundir.log_stream(self._order.attempt, _NODE, f"r{rank}")
            pump.add_rank(self._host_dir, rank, rank, log)
        if (fd := ranks.log_descriptor()) is not None:
            pump.add_torchrun(fd, self._rundir.log_stream(self._order.attempt, _NODE, "torchrun"))
        return pump

    def _ranks(self, warm: TorchrunRanks | None) -> Ranks:
        if self._spec.trainer.kind == "ddp":
            return warm or TorchrunRanks()
        if warm is not None:
            warm.process.kill()
            warm.process.wait()
        return PlainRank()

    def _watch(self, ranks: Ranks) -> None:
        """Until the ranks have ended: stop requests, limits, the deadline after a stop, heartbeat, metrics."""
        started = time.monotonic()
        ended = processes.end_descriptor(ranks.process.pid)
        launcher: int | None = sys.stdin.fileno()
        while not ranks.ended:
            watched = [fd for fd in (ended, launcher) if fd is not None]
            ready, _, _ = select.select(watched, [], [], _TICK_S)
            if launcher in ready and not self._hear_launcher(ranks):
                launcher = None
            now = time.monotonic()
            limit_s = self._spec.limits.max_time_s
            if limit_s is not None and now - started > limit_s:
                self._stop_ranks(ranks, "max_time")
            if self._stop is not None and now > self._stop.deadline:
                processes.end_descendants()
            self._do_recurring(now)

    def _hear_launcher(self, ranks: Ranks) -> bool:
        """Take in the launcher's stop requests; False once it is gone."""
        data = os.read(sys.stdin.fileno(), 4096)
        for line in data.splitlines():
            request = json.loads(line)
            self._stop_ranks(ranks, request["reason"], at_once=request["now"])
        if not data and self._order.attached:
            self._stop_ranks(ranks, "launcher_gone")
        return bool(data)

    def _stop_ranks(self, ranks: Ranks, reason: str, *, at_once: bool = False) -> None:
        """Signal the ranks, once; `at_once` leaves them no time."""
        if self._stop is None:
            self._stop = Stop(reason, time.monotonic() + (0 if at_once else KILL_AFTER_S))
            self._rundir.write_status(RunState.STOPPING, self._order.attempt, reason=reason, **self.progress())
            ranks.stop()
        elif at_once:
            self._stop = Stop(self._stop.reason, time.monotonic())

    def _do_recurring(self, now: float) -> None:
        if now - self._polled_at > _METRICS_S:
            self._polled_at = now
            self._metrics.poll()
        if now - self._beat_at > HEARTBEAT_S:
            self._beat_at = now
            self._metrics.flush()
            self._rundir.beat(self._order.attempt, self._host, os.getpid(), self._metrics.step)


def _secret_values(secrets: dict[str, str]) -> dict[str, str]:
    """The secrets' values, read from this host's environment.

    Raises:
        ConfigError: for one that is not set, by its name alone.
    """
    values = {}
    for name, reference in secrets.items():
        variable = reference.removeprefix("env:")
        if variable not in os.environ:
            raise ConfigError(f"secrets.{name}={reference}: {variable} is not set in the environment")
        values[name] = os.environ[variable]
    return values
