"""The loop of one attempt: bring a checkpoint, start the ranks, watch them, stop them, judge their end."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from runctl import command, processes
from runctl.agent import notices, secret_values
from runctl.agent.beginning import RestoreStopped
from runctl.agent.checkpoints import Checkpoints
from runctl.agent.console import Console
from runctl.agent.control import ControlWatch
from runctl.agent.environment.ready import RanksEnvironment
from runctl.agent.inbox import Inbox, Request
from runctl.agent.lifetime import Lifetime, with_disks
from runctl.agent.limits import LimitWatch
from runctl.agent.load import LoadWatch
from runctl.agent.logs import LogPump
from runctl.agent.metrics import MetricsLog
from runctl.agent.milestones import Milestones
from runctl.agent.order import Order
from runctl.agent.pace import Pace
from runctl.agent.ranks import PACKAGE_DIR, PlainRank, Ranks, Report, TorchrunRanks
from runctl.agent.saving import Saving
from runctl.agent.staging import Staging
from runctl.agent.stopping import TICK_S, Stopping
from runctl.agent.troubles import Troubles
from runctl.agent.verdict import Verdict, excused, judge
from runctl.agent.watcher import Watcher
from runctl.checkpoint.progress import ProgressBar
from runctl.errors import CheckpointUnloadable
from runctl.hooks import Hooks
from runctl.hostdir import HostDir
from runctl.hosts import facts
from runctl.nodelogs import NodeLogs
from runctl.outcome import Attempt
from runctl.rundir import HEARTBEAT_S, RunDir
from runctl.spec import LaunchSpec, RunState
from runctl.storage import Stream

#: What a stopped attempt's last output may take to be shown to someone who does not read.
_DRAIN_S = 2.0
#: A large checkpoint takes minutes to write, and of a training that failed it may be all there is: only a stop hurries.
_WRITER_S = 600.0
_LOOK_S = 0.01
#: What the host may be paid for longer, so that the next attempt need not make the environment again.
_KEEP_S = 300.0
_POLL_S = 1.0
NODE = 0


class RunningAttempt:
    """What one attempt holds while its ranks run.

    Args:
        order: what the agent was told.
        spec: what runs.
        rundir: where all of it is kept.
        record: the attempt as the run directory tells of it.
        inbox: where stop requests come from.
        control: hears of more time, and of checkpoints that are wanted.
        events: the stream of events.
        troubles: keeps the first error of records that cannot be written.
        milestones: what people who are away are told of.
    """

    def __init__(
        self, order: Order, spec: LaunchSpec, rundir: RunDir, record: Attempt, *, inbox: Inbox, control: ControlWatch,
        events: Stream, troubles: Troubles, milestones: Milestones,
    ) -> None:  # fmt: skip
        self._order = order
        self._spec = spec
        self._rundir = rundir
        self._record = record
        earlier = rundir.attempts() if spec.limits.max_usd is not None else []
        earlier = [one for one in earlier if one.number != order.attempt]
        self._limits = LimitWatch(spec.limits, with_disks(order, rundir), record.started_at, earlier, _say)
        self._lifetime = Lifetime(order, spec.limits, self._limits, control)
        self._host = record.host
        self._inbox = inbox
        self._events = events
        self._troubles = troubles
        self._milestones = milestones
        self._host_dir = HostDir.for_attempt(spec.run.id, order.attempt, order.run_dir)
        stream = rundir.metrics_stream(f"a{order.attempt}-n{NODE}")
        self._metrics_file = rundir.local_metrics()
        begin = self._metrics_file.stat().st_size if self._metrics_file else None
        self._metrics = MetricsLog(stream, order.attempt, self._host_dir, troubles, begin)
        self._here = facts.here(spec, order.project_dir, str(self._host_dir.path), PACKAGE_DIR, order.python)
        bar = ProgressBar(attached=order.attached)
        self._checkpoints = Checkpoints(spec, rundir, self._host_dir, order.attempt, self._here.nproc, bar=bar)
        self._saving = Saving(control, self._checkpoints, rundir)
        self._environment = RanksEnvironment(order, spec, _say)
        self._stopping = Stopping(
            inbox, self._checkpoints, attached=order.attached, grace_s=spec.checkpoint.grace_s,
            announce=self._say_stopping,
        )  # fmt: skip
        self._pace = Pace(self._host_dir)
        self._load = LoadWatch(rundir, order.attempt, NODE, troubles)
        self._restart = 0
        self._began = time.monotonic()
        self._beat_at = self._polled_at = 0.0

    def progress(self) -> dict[str, Any]:
        """Step, metrics and checkpoints so far, for the status."""
        latest = dict(self._metrics.latest)
        return {"step": self._metrics.step, "metrics": latest, **self._checkpoints.progress()}

    def run(self, warm: TorchrunRanks | None) -> Verdict:
        """Start the ranks, watch them to their end, and judge it.

        Ranks that could not load what they were to begin from are started once more, from the checkpoint before it.

        Args:
            warm: a torchrun child started ahead, or None.
        """
        spec, here = self._spec, self._here
        hooks = Hooks.load(Path(command.workdir(spec, here)), spec.plugins_disabled)
        env = command.rank_env(spec, self._here, self._rundir.url, self._order.attempt)
        values = secret_values.read(self._order, spec, _say)
        self._milestones.begin(hooks, values.agent)
        if hooks.implemented("runctl_worker_started"):
            env["RUNCTL_WORKER_PLUGINS"] = json.dumps(spec.plugins_disabled)
        end_notices = notices.watch(self._order, spec, self._inbox, hooks, events=self._events, troubles=self._troubles)
        staging = Staging(spec.data, Path(command.workdir(spec, here)), _say)
        self._load.start()
        try:
            ready = self._environment.prepare(values.setup, self._meanwhile, self._stopped)
            if ready is None:
                return judge(Report(0), self._stopping.stop, (), self._host)
            self._here = here = replace(here, python=ready.python)
            if warm is not None and (spec.trainer.kind != "ddp" or here.python != sys.executable):
                warm.process.kill()
                warm.process.wait()
                warm = None
            env = {**ready.variables, **env, **values.worker}
            if ready.about:
                self._milestones.note("environment", source=ready.source, **ready.about)
            staging.before(here.python, {**os.environ, **env}, self._meanwhile, self._stopped)
            if self._stopping.stop is not None:
                return judge(Report(0), self._stopping.stop, (), self._host)
            try:
                verdict = self._carry_on(warm, env, hooks)
                if not self._order.attached and "host_fault" in spec.retry_on:
                    verdict = excused(verdict, self._began, Path(self._order.project_dir))
            finally:
                trouble = staging.after(self._meanwhile, lambda: self._stopping.left_s() <= 0)
            if trouble is not None and verdict.state is RunState.SUCCEEDED:
                verdict = replace(verdict, state=RunState.FAILED, exit_code=1, reason=trouble)
            return verdict
        finally:
            end_notices()
            self._load.end()
            self._metrics.close()
            self._checkpoints.close()
            processes.end_descendants()
            self._host_dir.remove()

    def _carry_on(self, warm: TorchrunRanks | None, env: dict[str, str], hooks: Hooks) -> Verdict:
        """From a checkpoint to the ranks' end, and once more from the one before it if they could not load it."""
        spec = self._spec
        verdict = None
        while True:
            try:
                begin = self._checkpoints.begin(self._stopped)
            except RestoreStopped:
                return judge(Report(0), self._stopping.stop, (), self._host)
            except CheckpointUnloadable as error:
                assert verdict is not None  # it is raised once ranks have failed to load
                return replace(verdict, reason=str(error))
            # From here on the metrics of attempts before this one count only up to the step it begins from.
            self._record.resumed_from_step = self._checkpoints.resumed_from_step
            self._rundir.write_attempt(self._record)
            if verdict is None:
                hooks.notify("runctl_before_train", spec=spec, attempt=self._order.attempt, rundir=self._rundir)
            self._milestones.training(self.progress())
            verdict = self._train(self._ranks(warm), env | begin)
            if self._stopping.stop is not None or verdict.failure is None or not self._checkpoints.go_back():
                self._wait_for_upload()
                return verdict
            warm = None

    def _train(self, ranks: Ranks, env: dict[str, str]) -> Verdict:
        """From the ranks' start to the last of what they wrote."""
        spec, here, found, catalog = self._spec, self._here, self._checkpoints.found, self._checkpoints.catalog
        workdir = command.workdir(spec, here)
        watcher = Watcher(
            spec, self._order.attempt, here.nproc, workdir=Path(workdir), catalog=catalog, metrics=self._metrics
        )
        variables, words = watcher.put_back(found)
        self._inbox.catch_signals()
        self._host_dir.create(here.nproc)
        if self._metrics_file is not None:
            self._host_dir.keep_metrics_in(self._metrics_file)
        pump = self._pump(ranks, here.nproc)
        pump.start()
        try:
            watcher.start(found)
            ranks.start(command.rank_argv(spec, here, words), env | variables, workdir, self._stopping.kill_after_s)
            self._environment.keep()
            self._watch(ranks)
            self._milestones.trained()
            stop = self._stopping.stop  # one that comes later cuts the last output short and judges nothing
            self._wait_while(self._checkpoints.writer_hurries, _WRITER_S, _LOOK_S)
        finally:
            processes.end_descendants(but=[self._checkpoints.upload_pid, self._environment.keeper_pid])
            self._drain(pump)
            self._metrics.poll()
        self._note_restart()
        report = ranks.report()
        self._sweep(watcher, clean=report.exit_code == 0)
        return judge(report, self._stopping.heeded(stop), self._host_dir.failures(self._restart), self._host)

    def _pump(self, ranks: Ranks, nproc: int) -> LogPump:
        out = sys.stderr.fileno() if self._order.output_to_stderr else sys.stdout.fileno()
        console = Console(self._spec.logs, nproc, out, sys.stderr.fileno())
        times = NodeLogs(self._rundir, self._order.attempt, NODE).lengths()
        pump = LogPump(console, self._metrics.feed, times, self._troubles)
        for rank in range(nproc):
            log = self._rundir.log_stream(self._order.attempt, NODE, f"r{rank}")
            pump.add_rank(self._host_dir, rank, rank, log)
        if (fd := ranks.log_descriptor()) is not None:
            pump.add_torchrun(fd, self._rundir.log_stream(self._order.attempt, NODE, "torchrun"))
        return pump

    def _ranks(self, warm: TorchrunRanks | None) -> Ranks:
        if self._spec.trainer.kind == "ddp":
            return warm or TorchrunRanks(self._here.python)
        return PlainRank()

    def _watch(self, ranks: Ranks) -> None:
        """Until the ranks have ended: stop requests, limits, the deadline after a stop, heartbeat, metrics."""
        self._limits.ranks_started()
        ended = processes.end_descriptor(ranks.process.pid)
        while not ranks.ended:
            self._stopping.hear(ranks, [] if ended is None else [ended])
            now = time.monotonic()
            self._keep_limits(ranks)
            self._stopping.enforce(ranks)
            processes.reap_orphans(ranks.process.pid)
            self._do_recurring(now)
        if ended is not None:
            os.close(ended)

    def _wait_for_upload(self) -> None:
        """Have the last checkpoint arrive."""
        self._checkpoints.finish_upload()
        self._wait_while(self._checkpoints.upload_goes_on)
        self._environment.hurry()
        self._wait_while(self._environment.keeping, _KEEP_S)

    def _wait_while(self, at_work: Callable[[], bool], within_s: float = math.inf, look_s: float = TICK_S) -> None:
        """Let something that the ranks left be done; a stop gives it no longer than its own time.

        Args:
            at_work: whether it is not done yet.
            within_s: how long it may take without a stop.
            look_s: how often to look.
        """
        began = now = time.monotonic()
        while at_work() and now - began < within_s and self._stopping.left_s() > 0:
            self._stopping.hear(None, [], look_s)
            now = time.monotonic()
            self._do_recurring(now)

    def _drain(self, pump: LogPump) -> None:
        """Let the last output through, for as long as its reader takes; after a stop only for a moment."""
        pump.finish()
        waited_s = 0.0
        while pump.is_alive() and waited_s < _DRAIN_S:
            pump.join(TICK_S)
            self._stopping.hear(None, [], 0)
            waited_s += TICK_S if self._stopping.stop is not None else 0

    def _sweep(self, watcher: Watcher, *, clean: bool) -> None:
        """Let the last of what the script wrote be kept."""
        watcher.finish(clean=clean)
        self._wait_while(lambda: watcher.working, look_s=_LOOK_S)

    def _stopped(self) -> bool:
        """Whether there is a stop before the ranks were started."""
        self._keep_limits(None)
        return self._stopping.heard()

    def _meanwhile(self) -> None:
        """What goes on while there are no ranks."""
        self._stopping.hear(None, [], 0)
        self._do_recurring(time.monotonic())

    def _keep_limits(self, ranks: Ranks | None) -> None:
        if (told := self._lifetime.hear()) is not None:
            self._milestones.note(**told)
        if (alert := self._limits.budget_alert()) is not None:
            self._milestones.spent(alert)
        reached = self._limits.reached(self._checkpoints.upload_pid) if self._stopping.stop is None else None
        if reached is not None:
            self._stopping.ask(ranks, Request(reached))

    def _say_stopping(self, reason: str) -> None:
        with self._troubles.kept():
            self._rundir.write_status(RunState.STOPPING, self._order.attempt, reason=reason, **self.progress())

    def _do_recurring(self, now: float) -> None:
        if now - self._polled_at > _POLL_S:
            self._polled_at = now
            self._metrics.poll()
            self._checkpoints.poll()
            self._saving.poll()
            self._note_restart()
        if now - self._beat_at > HEARTBEAT_S:
            self._beat_at = now
            self._metrics.flush()
            pace = self._pace.progress(self._metrics.step)
            progress = {**self.progress(), **pace, **self._lifetime.told(), "load": self._load.latest}
            with self._troubles.kept():
                self._rundir.beat(self._order.attempt, self._host, os.getpid(), **progress)
            self._milestones.look(progress)

    def _note_restart(self) -> None:
        """Say that torchrun has restarted the ranks, and after which failure."""
        allowed = self._spec.trainer.max_restarts
        restart = self._host_dir.restart() if allowed else 0
        if restart == self._restart:
            return
        why = "; ".join(f"rank {one['rank']}: {one['message']}" for one in self._host_dir.failures(restart - 1)[:1])
        self._restart = restart
        self._metrics.begin_anew()
        _say(f"{why or 'a rank failed'}; restart {restart} of {allowed}")
        self._milestones.note("restarted", restart=restart, reason=why or None)


def _say(text: str) -> None:
    sys.stderr.write(f"runctl: {text}\n")
