"""The same command again: what is done is not done again, what broke goes on, what is new is added."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runctl.composed import Composed
from runctl.outcome import Attempt
from runctl.sweeps.turn import Turn

#: Counts to six in the time that it is given, and goes on from its checkpoint.
COUNTS = """
import sys, time, torch, runctl
model = torch.nn.Linear(1, 1)
ck = runctl.attach(model=model, optimizer=torch.optim.SGD(model.parameters(), 0.1))
x = sys.argv[1]
for step in ck.steps(6):
    with open("steps.txt", "a") as steps:
        steps.write(f"{x}:{step}\\n")
    time.sleep(float(open("pause.txt").read()))
print(f"step={step} loss=1")
"""

#: Is done once it may be, or at its second attempt.
WAITS = """
import os, sys, time
from pathlib import Path
x = sys.argv[1][-1]
with open("begun.txt", "a") as begun:
    begun.write(f"{x}\\n")
while not Path(f"go-{x}").exists() and os.environ["RUNCTL_ATTEMPT"] == "1":
    time.sleep(0.02)
with open("done.txt", "a") as done:
    done.write(f"{x}\\n")
"""


def test_what_has_finished_is_not_done_again_and_what_is_new_is(project) -> None:
    assert project.sweep("args.x=1,2").code == 0
    again = project.sweep("args.x=1,2,3")
    assert again.code == 0
    assert project.done() == ["1", "2", "3"]
    assert [job["state"] for job in again.jobs] == ["succeeded"] * 3
    assert again.err.count("succeeded (before)") == 2


def test_another_name_is_another_sweep(project) -> None:
    project.sweep("args.x=1")
    other = project.sweep("args.x=1", "run.name=other", name="other")
    assert project.done() == ["1", "1"]
    assert [job["overrides"] for job in other.jobs] == [{}], "one value is no sweep"


def test_another_script_is_another_job_and_other_code_is_said(project) -> None:
    project.script("x = 1\n", "helper.py")
    project.sweep("args.x=1,2")
    project.script("x = 2\n", "helper.py")
    again = project.sweep("args.x=1,2")
    assert project.done() == ["1", "2"]
    assert "2 of them were done with other code of this project" in again.err
    project.script((project.folder / "train.py").read_text() + "\n# mended\n")
    project.sweep("args.x=1,2")
    assert project.done() == ["1", "2", "1", "2"]


def test_whatever_else_is_swept_tells_jobs_apart(project) -> None:
    project.script("import os; print('step=1 seed=' + os.environ['SEED'])")
    done = project.sweep("env.SEED=1,2", "sweep.metric=seed")
    assert [job["metrics"]["seed"] for job in done.jobs] == [1.0, 2.0]


def test_what_a_job_came_to_stays_when_the_sweep_is_judged_by_something_else(project) -> None:
    project.sweep("args.x=1,2", "sweep.metric=loss")
    project.sweep("args.x=2,3", "sweep.metric=los")
    again = project.sweep("args.x=1,2", "sweep.metric=accuracy")
    assert project.done() == ["1", "2", "3"]
    assert [(row["loss"], row["accuracy"]) for row in again.table] == [("2.0", "-2.0"), ("3.0", "-3.0"), ("", "")]
    assert [job["metrics"] for job in again.jobs[:2]] == [
        {"loss": 2.0, "accuracy": -2.0},
        {"loss": 3.0, "accuracy": -3.0},
    ]
    anew = project.sweep("args.x=1", "sweep.metric=accuracy", "checkpoint.resume=never")
    assert anew.jobs[0]["metrics"] == {"accuracy": -2.0}, "what it came to before is not what it comes to now"


def test_what_failed_is_done_again_only_if_that_is_said(project) -> None:
    assert project.sweep("args.fail=3", "args.x=1,2").code == 3
    again = project.sweep("args.fail=3", "args.x=1,2")
    assert again.code == 3
    assert project.done() == ["1", "2"]
    assert "sweep.retry_failed=true goes on with them" in again.err
    project.sweep("args.fail=3", "args.x=1,2", "sweep.retry_failed=true")
    assert project.done() == ["1", "2", "1", "2"]


def test_what_fails_between_two_looks_of_a_launcher_that_was_started_again_is_not_done_again(
    project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.sweep("args.fail=3", "args.x=1,2").code == 3
    real, looked = Turn._has_ended, set()

    def at_work_at_first(self: Turn, launch: Composed, attempts: list[Attempt]) -> bool:
        first = launch.spec.run.id not in looked
        looked.add(launch.spec.run.id)
        return not first and real(self, launch, attempts)

    monkeypatch.setattr(Turn, "_has_ended", at_work_at_first)
    again = project.sweep("args.fail=3", "args.x=1,2")
    assert (again.code, project.done(), len(looked)) == (3, ["1", "2"], 2)
    assert [(job["state"], job["exit_code"]) for job in again.jobs] == [("failed", 3)] * 2


def test_fresh_begins_all_of_it_anew_and_the_next_command_goes_on_with_that(project) -> None:
    first = project.sweep("args.x=1,2")
    fresh = project.sweep("args.x=1,2", "sweep.fresh=true")
    assert project.done() == ["1", "2", "1", "2"]
    assert not {job["run_id"] for job in first.jobs} & {job["run_id"] for job in fresh.jobs}
    project.sweep("args.x=1,2")
    assert project.done() == ["1", "2", "1", "2"]


def launched(project, home: Path, *words: str) -> subprocess.Popen[str]:
    """A launcher that can be killed."""
    command = [str(Path(sys.executable).with_name("runctl-launch")), "-m", "script=train.py", *words]
    env = {**os.environ, "XDG_CONFIG_HOME": str(home)}
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def wait_for(launcher: subprocess.Popen[str], file: Path, *told: str) -> None:
    deadline = time.monotonic() + 60
    while not file.exists() or not all(one in file.read_text() for one in told):
        assert launcher.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def test_a_launcher_that_is_killed_and_started_again_does_no_job_twice(project, tmp_path: Path) -> None:
    project.script(WAITS)
    words = ("args.x=1,2,3,4,5", "sweep.max_parallel=2")
    (project.folder / "go-1").touch()
    launcher = launched(project, tmp_path, *words)
    wait_for(launcher, project.folder / "done.txt", "1")
    wait_for(launcher, project.folder / "begun.txt", "2", "3")
    launcher.kill()
    launcher.communicate()
    for x in (4, 5):
        (project.folder / f"go-{x}").touch()
    again = project.sweep(*words)
    assert again.code == 0, again.err
    assert [job["state"] for job in again.jobs] == ["succeeded"] * 5
    assert sorted(project.done()) == ["1", "2", "3", "4", "5"]
    assert again.err.count("(before)") == 1


@pytest.mark.soak
def test_ctrl_c_stops_all_of_it_and_the_same_command_goes_on(project, tmp_path: Path) -> None:
    project.script(COUNTS)
    (project.folder / "pause.txt").write_text("0.5")
    words = ("args.x=1,2,3", "sweep.max_parallel=2", "checkpoint.every=1h")
    launcher = launched(project, tmp_path, *words)
    steps = project.folder / "steps.txt"
    wait_for(launcher, steps, "--x=1:1", "--x=2:1")
    launcher.send_signal(signal.SIGINT)
    _, err = launcher.communicate(timeout=60)
    assert launcher.returncode == 130
    assert "SIGINT: stopping all of it" in err
    assert err.count("stopped by Ctrl-C after") == 2
    assert "not started" in err
    (project.folder / "pause.txt").write_text("0")
    again = project.sweep(*words)
    assert again.code == 0, again.err
    assert sorted(steps.read_text().split()) == [f"--x={x}:{step}" for x in (1, 2, 3) for step in range(6)]
