"""What every platform must do. A platform's own tests derive from these classes and give them a bench."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from runctl import processes
from runctl.encoding import dumps, loads, to_data
from runctl.errors import PlatformError
from runctl.platforms.base import Platform
from runctl.rundir import RunDir, run_url
from runctl.spec import LaunchSpec, Limits, Plan, Program, RunHandle, RunIdentity, RunState

REPORT = """
import json, os, sys
from pathlib import Path
with Path("starts").open("a") as file:
    print(json.dumps({"argv": sys.orig_argv, "env": dict(os.environ), "cwd": os.getcwd()}), file=file)
"""
POLITE = """
import signal, sys, time
def stop(signum, frame):
    open("stopped", "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
open("ready", "w").close()
time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("ready", "w").close()
time.sleep(60)
"""
WITH_A_STRAY = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
open("ready", "w").close()
import time; time.sleep(60)
"""


@dataclass
class Bench:
    """A platform, a project for it, and runs whose directories it can reach; here for hosts that share our files.

    Attributes:
        make: makes the platform for a project folder.
        root: an empty folder of the test's own.
    """

    make: Callable[[Path], Platform]
    root: Path
    patience_s: float = 30.0
    answers_s: float = 1.0
    #: How long a stop at once may take.
    at_once_s: float = 6.0
    platform: Platform = field(init=False)

    def __post_init__(self) -> None:
        self.project = self.root / "project"
        self.project.mkdir()
        self.platform = self.make(self.project)

    def spec(self, script: str = "") -> LaunchSpec:
        """A run of this script, with its run directory as the launcher prepares it."""
        (self.project / "train.py").write_text(script)
        run_id = f"contract-{os.getpid()}-{time.time_ns()}"
        spec = LaunchSpec(
            RunIdentity(run_id, "contract", self.run_root),
            Program("train.py", None, tail=("--lr", "1e-3", "it's $(odd)\n")),
            env={"GREETING": "hello you"},
            limits=Limits(max_time_s=600.0),
        )
        self.rundir(spec).write_spec(spec)
        return spec

    @property
    def run_root(self) -> str:
        return str(self.root / "runs")

    def rundir(self, spec: LaunchSpec) -> RunDir:
        return RunDir(run_url(spec.run.root, spec.run.id))

    def plan(self, spec: LaunchSpec, attempt: int = 1) -> Plan:
        return self.platform.plan(spec, self.platform.quote(spec), attempt)

    def submitted(self, script: str) -> RunHandle:
        return self.platform.submit(self.plan(self.spec(script)))

    def end_of(self, handle: RunHandle) -> RunState:
        deadline = time.monotonic() + self.patience_s
        while not (state := self.platform.wait(handle, 0.2)).ended:
            assert time.monotonic() < deadline, "it did not end"
        return state

    def written(self, name: str) -> list[Path]:
        """The files of this name that scripts wrote, in the order of their hosts."""
        path = self.project / name
        return [path] if path.exists() else []

    def until(self, name: str, handle: RunHandle) -> None:
        """Wait for a file that the script writes; somebody waits for the attempt meanwhile."""
        deadline = time.monotonic() + self.patience_s
        while not self.written(name):
            assert time.monotonic() < deadline, f"no {name}"
            self.platform.wait(handle, 0.02)

    def starts(self) -> list[dict]:
        """What each start of the script `REPORT` found around it, with the host's paths as they were planned."""
        return [json.loads(line) for path in self.written("starts") for line in path.read_text().splitlines()]

    def lose_the_agent(self, handle: RunHandle) -> None:
        """Kill it, and nothing else."""
        os.kill(handle.address["pid"], signal.SIGKILL)

    def traces(self) -> object:
        """Files and processes: what looking and planning must leave as it is."""
        files = sorted((str(path), path.stat().st_mtime_ns) for path in self.root.rglob("*"))
        return files, sorted(process.pid for process in psutil.Process().children(recursive=True))


class PlanContract:
    """Looking and planning."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        raise NotImplementedError

    def test_looking_and_planning_change_nothing(self, bench: Bench) -> None:
        spec = bench.spec(REPORT)
        before = bench.traces()
        bench.plan(spec)
        assert bench.traces() == before

    def test_planning_is_deterministic(self, bench: Bench) -> None:
        spec = bench.spec()
        quote = bench.platform.quote(spec)
        assert bench.platform.plan(spec, quote, 1) == bench.platform.plan(spec, quote, 1)
        assert bench.make(bench.project).plan(spec, quote, 1) == bench.platform.plan(spec, quote, 1)

    def test_a_plan_is_plain_data_both_ways(self, bench: Bench) -> None:
        plan = bench.plan(bench.spec())
        assert loads(Plan, dumps(plan)) == plan
        assert json.loads(json.dumps(to_data(plan))) == to_data(plan)

    def test_a_plan_names_run_attempt_and_platform(self, bench: Bench) -> None:
        spec = bench.spec()
        plan = bench.plan(spec, attempt=3)
        assert (plan.run_id, plan.attempt, plan.platform) == (spec.run.id, 3, bench.platform.kind)
        assert plan.run_dir == run_url(spec.run.root, spec.run.id)
        assert plan.env["RUNCTL_ATTEMPT"] == "3"
        assert plan.argv[-3:] == ("--lr", "1e-3", "it's $(odd)\n")
        assert os.path.isabs(plan.workdir)  # noqa: PTH117 (a path of the host's, not of ours)

    def test_a_price_is_none_or_not_negative(self, bench: Bench) -> None:
        prices = [offer.price_usd_per_hour for offer in bench.plan(bench.spec()).offers]
        assert all(price is None or price >= 0 for price in prices)

    def test_a_plan_of_another_platform_is_refused(self, bench: Bench) -> None:
        plan = loads(Plan, dumps(bench.plan(bench.spec())).replace(f'"{bench.platform.kind}"', '"elsewhere"'))
        assert plan.platform == "elsewhere"
        with pytest.raises(PlatformError, match=f"platform {bench.platform.kind} cannot submit a plan for elsewhere"):
            bench.platform.submit(plan)


class PlatformContract(PlanContract):
    """The whole life of an attempt."""

    @pytest.fixture(autouse=True)
    def nothing_stays_behind(self, bench: Bench, monkeypatch: pytest.MonkeyPatch):
        handles: list[RunHandle] = []
        submit = bench.platform.submit
        monkeypatch.setattr(bench.platform, "submit", lambda plan: handles.append(submit(plan)) or handles[-1])
        yield
        for handle in handles:
            bench.platform.clean_up(handle)

    def test_it_is_ready(self, bench: Bench) -> None:
        bench.platform.check_ready(bench.spec())

    def test_what_was_planned_is_what_runs(self, bench: Bench) -> None:
        plan = bench.plan(bench.spec(REPORT))
        assert bench.end_of(bench.platform.submit(plan)) is RunState.SUCCEEDED
        (start,) = bench.starts()
        assert tuple(start["argv"]) == plan.argv
        assert start["cwd"] == plan.workdir
        assert start["env"].items() >= plan.env.items()

    def test_a_second_submit_of_an_attempt_starts_nothing(self, bench: Bench) -> None:
        plan = bench.plan(bench.spec(REPORT))
        first = bench.platform.submit(plan)
        assert bench.platform.submit(plan) == first
        bench.end_of(first)
        assert bench.platform.submit(plan) == first
        assert len(bench.starts()) == 1

    def test_the_next_attempt_is_another_one(self, bench: Bench) -> None:
        spec = bench.spec(REPORT)
        handles = []
        for attempt in (1, 2):
            handles.append(bench.platform.submit(bench.plan(spec, attempt)))
            assert bench.end_of(handles[-1]) is RunState.SUCCEEDED
        assert handles[0] != handles[1]
        assert [start["env"]["RUNCTL_ATTEMPT"] for start in bench.starts()] == ["1", "2"]
        assert [attempt.number for attempt in bench.rundir(spec).attempts()] == [1, 2]

    def test_waiting_takes_no_longer_than_asked_for_and_tells_the_end(self, bench: Bench) -> None:
        handle = bench.submitted(STUBBORN)
        bench.until("ready", handle)
        state = RunState.PENDING
        while state is RunState.PENDING:
            began = time.monotonic()
            state = bench.platform.wait(handle, 0.2)
            assert time.monotonic() - began < bench.answers_s
        assert state is RunState.RUNNING
        bench.platform.cancel(handle, "user", now=True)
        assert bench.end_of(handle).ended
        began = time.monotonic()
        assert bench.platform.wait(handle, 30.0).ended
        assert time.monotonic() - began < bench.answers_s

    def test_a_failing_script_is_a_failed_attempt_on_record(self, bench: Bench) -> None:
        spec = bench.spec("import sys; sys.exit(7)")
        assert bench.end_of(bench.platform.submit(bench.plan(spec))) is RunState.FAILED
        (attempt,) = bench.rundir(spec).attempts()
        assert (attempt.state, attempt.exit_code, attempt.platform) == (RunState.FAILED, 7, bench.platform.kind)

    def test_a_graceful_cancel_lets_the_script_finish(self, bench: Bench) -> None:
        spec = bench.spec(POLITE)
        handle = bench.platform.submit(bench.plan(spec))
        bench.until("ready", handle)
        bench.platform.cancel(handle, "user")
        assert bench.end_of(handle).ended
        assert bench.written("stopped")
        assert bench.rundir(spec).attempts()[0].state is RunState.STOPPED

    def test_a_cancel_for_now_does_not_wait_for_the_script(self, bench: Bench) -> None:
        handle = bench.submitted(STUBBORN)
        bench.until("ready", handle)
        bench.platform.cancel(handle, "user")
        bench.platform.cancel(handle, "user", now=True)
        began = time.monotonic()
        assert bench.end_of(handle).ended
        assert time.monotonic() - began < bench.at_once_s, "the grace period of a graceful stop is 10 s"

    def test_a_cancel_after_the_end_is_harmless(self, bench: Bench) -> None:
        spec = bench.spec(REPORT)
        handle = bench.platform.submit(bench.plan(spec))
        state = bench.end_of(handle)
        bench.platform.cancel(handle, "user")
        bench.platform.cancel(handle, "user", now=True)
        assert bench.platform.wait(handle, 0.1) is state
        assert bench.rundir(spec).attempts()[0].state is RunState.SUCCEEDED

    def test_cleaning_up_after_a_lost_agent_leaves_nothing_running(self, bench: Bench) -> None:
        handle = bench.submitted(WITH_A_STRAY)
        bench.until("ready", handle)
        bench.lose_the_agent(handle)
        assert bench.end_of(handle).ended
        bench.platform.clean_up(handle)
        bench.platform.clean_up(handle)
        deadline = time.monotonic() + 5
        while left := processes.find_by_environment("RUNCTL_RUN_ID", handle.run_id):
            assert time.monotonic() < deadline, left
            time.sleep(0.05)

    def test_cleaning_up_touches_nothing_of_other_runs(self, bench: Bench) -> None:
        other = bench.submitted(STUBBORN)
        bench.until("ready", other)
        ended = bench.submitted(REPORT)
        bench.end_of(ended)
        bench.platform.clean_up(ended)
        assert bench.platform.wait(other, 0.3) is RunState.RUNNING
        bench.platform.cancel(other, "user", now=True)
        bench.end_of(other)
