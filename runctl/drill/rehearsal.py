"""A launch, or the whole command of a sweep, rehearsed: a cloud on loopback, the launch as a process of its own
in it, and what happens to it on the way.

The launch sees no account but the drill's: its environment holds no variable of AWS's but ours, and it refuses to go
on if they led anywhere but to loopback (`assert_inside`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from runctl.agreement import Agreement
from runctl.drill import report, sweep_report
from runctl.drill.scenario import Event
from runctl.drill.stages import Host, Stage
from runctl.errors import ConfigError

#: Set in the environment of a launch that is being rehearsed.
INSIDE = "RUNCTL_DRILL_URL"
_RUNPOD = "RUNPOD_API_BASE_URL"
_LOOK_S = 0.05
_LAUNCH = "from runctl.launch import main; main()"


class Rehearsal:
    """One launch in the drill.

    Args:
        run_id: of the run; of a sweep None.
        sweep: of a sweep, where its record lies below the root.
        stage: where it is rehearsed.
        words: the launch's own words, without `drill`.
        tail: what stands behind `--`.
        scenario: its name.
        events: what happens, in order.
        notice_s: how long an instance has after the word that it is taken back.
        report_to: a file for the report as JSON.
        tell: takes lines for the user.
    """

    def __init__(
        self,
        run_id: str | None,
        stage: Stage,
        *,
        sweep: str = "",
        words: Sequence[str],
        tail: Sequence[str] | None,
        scenario: str,
        events: Sequence[Event],
        notice_s: float,
        report_to: Path | None,
        tell: Callable[[str], None],
    ) -> None:
        self._run_id = run_id
        self._sweep = sweep
        self._stage = stage
        for event in events:
            stage.check(event)
        behind = [] if tail is None else ["--", *tail]
        self._argv = [
            sys.executable, "-c", _LAUNCH, *words, f"drill={scenario}",
            *([] if run_id is None else [f"run.id={run_id}"]), f"run.root={stage.root}", *behind,
        ]  # fmt: skip
        self._events = events
        self._notice_s = notice_s
        self._report_to = report_to
        self._tell = tell
        self._steps: dict[str, int] = {}
        self._was_killed = False

    def run(self) -> int:
        """Rehearse, and show what came of it.

        Returns:
            The launch's exit code.
        """
        with self._stage as stage:
            began = time.time()
            code = self._launch(stage, began)
            left = self._left_running(stage)
            self._report(stage, left, took_s=time.time() - began)
        return code if not left or self._waits else code or 1

    @property
    def _waits(self) -> bool:
        """Whether hosts that live wait for the next job of a launcher that was killed, as those of `sweep.hosts` do."""
        return self._was_killed and any(re.match(r"\+*sweep\.hosts=", word) for word in self._argv)

    def _report(self, stage: Stage, left: list[str], *, took_s: float) -> None:
        """Show what came of it, and write it down; nothing where only the plan was asked for."""
        if self._run_id is None:
            of_jobs = sweep_report.gather(stage, self._sweep, took_s=took_s, now=time.time())
            if of_jobs.lines or left:
                sweep_report.show(of_jobs, left, waits=self._waits)
                if self._report_to is not None:
                    sweep_report.write(of_jobs, left, self._report_to)
            return
        told = report.gather(stage, self._run_id, steps=self._steps, took_s=took_s)
        if told.lines or left:
            report.show(told, left)
            if self._report_to is not None:
                report.write(told, left, self._report_to)

    def _launch(self, stage: Stage, began: float) -> int:
        """The launch, again after it was killed, and the events meanwhile."""
        environment = {**stage.environment(os.environ), INSIDE: ",".join(stage.urls)}
        if self._run_id is None:
            environment["TERM"] = "dumb"  # a table that is drawn anew in place would wipe out what is told from here
        waiting = list(self._events)
        launch: subprocess.Popen[bytes] | None = None
        # Ctrl-C is for the launch, which hears it as well. (A handler, unlike SIG_IGN, is not handed down.)
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            while True:
                launch = subprocess.Popen(self._argv, env=environment)
                killed = False
                while launch.poll() is None:
                    if waiting and self._is_due(waiting[0], stage, began):
                        event = waiting.pop(0)
                        killed = self._carry_out(event, stage, launch)
                    time.sleep(_LOOK_S)
                if not killed:
                    break
                self._tell("drill: the launcher is killed; the same launch again")
                time.sleep(1.0)
        finally:
            signal.signal(signal.SIGINT, before)
            if launch is not None and launch.poll() is None:  # without a cloud it has nothing to go on with
                launch.kill()
                launch.wait()
        if waiting and stage.hosts():
            self._tell(f"drill: the run ended before {', '.join(one.do for one in waiting)} could happen")
        return launch.returncode if launch.returncode >= 0 else 128 - launch.returncode

    def _is_due(self, event: Event, stage: Stage, began: float) -> bool:
        if event.do == "fault" and event.at_step is None:
            return time.time() - began >= event.at_s
        living = [one for one in stage.hosts() if one.is_running]
        if event.do in ("interrupt", "kill", "rebalance") and not living:
            return False
        if event.at_step is None:
            return time.time() - began >= event.at_s
        for one in living:
            self._steps[one.id] = max(self._steps.get(one.id, 0), self._step(one, stage))
        return any(self._steps[one.id] >= event.at_step for one in living)

    def _step(self, host: Host, stage: Stage) -> int:
        """Steps that the training on an instance has completed: as its ranks say, else as its status tells."""
        steps = [-1]
        for path in host.folder.glob("tmp/runctl-*/*/a*/agreement-*"):
            with contextlib.suppress(OSError, ValueError):
                agreement = Agreement(path)
                steps += agreement.steps()
                agreement.close()
        if max(steps) < 0:
            status = stage.read(f"{host.run_id}/status.json")
            steps.append((json.loads(status).get("step") or -1) if status is not None else -1)
        return max(steps)

    def _carry_out(self, event: Event, stage: Stage, launch: subprocess.Popen[bytes]) -> bool:
        """Have an event happen; whether it killed the launcher."""
        if event.fault is not None:
            stage.inject(event.fault)
            return False
        if event.do == "kill_launcher":
            launch.kill()
            self._was_killed = True
            return True
        host = self._meant(event, stage)
        if event.do == "interrupt":
            self._tell(f"drill: {stage.interrupt(host, self._notice_s)}")
        elif event.do == "kill":
            self._tell(f"drill: {host} is gone")
            stage.kill(host)
        else:
            stage.rebalance(host)
        return False

    def _meant(self, event: Event, stage: Stage) -> str:
        """The host to which an event happens: a run's newest; in a sweep the first one that has come so far."""
        living = [one.id for one in stage.hosts() if one.is_running]
        if self._run_id is not None:
            return living[-1]
        return next((one for one in living if self._steps.get(one, -1) >= (event.at_step or -1)), living[0])

    def _left_running(self, stage: Stage) -> list[str]:
        """Hosts that live although the launch has ended; they get a moment to end by themselves."""
        deadline = time.monotonic() + 10.0
        while True:
            left = [one.id for one in stage.hosts() if one.is_running]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.2)


def is_inside(environ: Mapping[str, str]) -> bool:
    """Whether this launch is being rehearsed.

    Raises:
        ConfigError: if it is, and a cloud's clients would go anywhere but to the drill's.
    """
    told = environ.get(INSIDE)
    if told is None:
        return False
    urls = told.split(",")
    endpoints = {
        name: value for name, value in environ.items() if name.startswith("AWS_ENDPOINT_URL") or name == _RUNPOD
    }
    elsewhere = [name for name, value in endpoints.items() if value not in urls]
    profile = environ.get("AWS_PROFILE") or environ.get("AWS_SESSION_TOKEN")
    unused = set(urls) - set(endpoints.values())
    if any(urlsplit(url).hostname != "127.0.0.1" for url in urls) or unused or elsewhere or profile:
        raise ConfigError(
            f"{INSIDE}={told}: a drill goes to loopback alone, and AWS's or RunPod's variables say otherwise; unset it"
        )
    return True
