"""Several jobs of a sweep at once on this machine: what each gets, and what becomes of the others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from runctl.config.sweeps import SweepSettings
from runctl.errors import ConfigError
from runctl.launch import launch
from runctl.spec import LaunchSpec, Program, RunIdentity, Trainer
from runctl.sweeps import slots

#: Waits until both are there: it ends only if two jobs run at once.
MEETS = """
import os, sys, time
from pathlib import Path
Path(f"here-{sys.argv[1][-1]}").touch()
deadline = time.monotonic() + 20
while len(list(Path(".").glob("here-*"))) < 2:
    time.sleep(0.01)
    assert time.monotonic() < deadline, "it is alone"
print("step=1 threads=" + os.environ.get("OMP_NUM_THREADS", "0"))
"""


def spec(**trainer: object) -> LaunchSpec:
    return LaunchSpec(RunIdentity("a", "a", "runs"), Program("train.py", None), trainer=Trainer(**trainer))


def test_as_many_run_at_once_as_is_said_and_share_the_processors(project) -> None:
    project.script(MEETS)
    done = project.sweep("args.x=1,2", "sweep.max_parallel=2", "sweep.metric=threads")
    assert done.code == 0, done.err
    expected = 0.0 if "OMP_NUM_THREADS" in os.environ else float(max(1, (os.cpu_count() or 1) // 2))
    assert [job["metrics"] for job in done.jobs] == [{"threads": expected}] * 2
    assert len({job["run_dir"] for job in done.jobs}) == 2


def test_what_jobs_at_once_print_is_in_their_logs_and_ours_names_them(project) -> None:
    done = project.sweep("args.x=1,2", "sweep.max_parallel=2")
    assert done.out == ""
    assert "[x=1] succeeded" in done.err and "[x=2] succeeded" in done.err
    for job in done.jobs:
        assert "loss=" in Path(job["run_dir"], "logs/a1/n0/r0.log").read_text()


def test_a_job_that_fails_ends_no_other_and_the_sweep_with_its_code(project) -> None:
    done = project.sweep("args.fail=0,5,0", "args.x=1,2", "sweep.max_parallel=2")
    assert done.code == 5
    assert [job["state"] for job in done.jobs] == ["succeeded"] * 2 + ["failed"] * 2
    assert [job["exit_code"] for job in done.jobs] == [0, 0, 5, 5]
    assert "[fail=5 x=1] failed with exit code 5" in done.err
    assert len(done.jobs) == 4, "the same arguments twice are one job"


def test_a_traceback_of_a_failing_job_is_shown_under_its_name(project) -> None:
    project.script("import sys\nif sys.argv[1] == '--x=2': raise ValueError('bad batch')\n")
    done = project.sweep("args.x=1,2", "sweep.max_parallel=2")
    assert done.code == 1
    assert "[x=2] rank 0 on" in done.err and "ValueError: bad batch" in done.err


def test_a_configuration_that_cannot_be_is_an_error_at_once_if_it_is_the_first(project) -> None:
    with pytest.raises(ConfigError, match=r"no_such\.py"):
        project.sweep("script=no_such.py,train.py")
    assert not project.runs.exists()


def test_a_configuration_that_cannot_be_fails_its_job_alone_among_others(project) -> None:
    done = project.sweep("script=train.py,no_such.py,train.py", "args.x=1,2")
    assert done.code == 2
    assert project.done() == ["1", "2"]
    assert "no_such.py" in done.err


def test_the_table_is_sorted_by_the_metric_and_says_all(project) -> None:
    done = project.sweep("args.x=2,1,3", "sweep.metric=loss", "sweep.reduce=best")
    rows = [line.split() for line in done.err.splitlines() if line.strip().startswith("x=")]
    assert [row[:4] for row in rows] == [[f"x={x}", "succeeded", str(x), "3"] for x in (1, 2, 3)]
    assert [(row["args.x"], row["loss"], row["step"], row["state"]) for row in done.table] == [
        ("2", "2.0", "3", "succeeded"), ("1", "1.0", "3", "succeeded"), ("3", "3.0", "3", "succeeded")
    ]  # fmt: skip


def test_the_best_may_be_the_highest(project) -> None:
    done = project.sweep("args.x=2,1", "sweep.metric=accuracy", "sweep.goal=maximize")
    rows = [line.split() for line in done.err.splitlines() if line.strip().startswith("x=")]
    assert [row[0] for row in rows] == ["x=1", "x=2"]
    assert [row[2] for row in rows] == ["-2", "-3"], "the last value of each"


def test_for_a_program_the_last_line_is_the_sweep(project) -> None:
    done = project.sweep("args.x=1,2", "output=json", "sweep.metric=loss", "sweep.reduce=mean")
    told = json.loads(done.out.splitlines()[-1])
    assert [(job["overrides"], job["metrics"]) for job in told["jobs"]] == [
        ({"args.x": "1"}, {"loss": pytest.approx(7 / 3)}), ({"args.x": "2"}, {"loss": pytest.approx(10 / 3)})
    ]  # fmt: skip
    assert done.out.count("\n") == 1, "what the trainings print is on standard error"


@pytest.mark.parametrize(
    ("settings", "trainer", "expected"),
    [
        (SweepSettings(), {}, ["0", "1", "2", "3"]),
        (SweepSettings(), {"kind": "ddp"}, ["0,1,2,3"]),
        (SweepSettings(), {"kind": "ddp", "nproc_per_node": 2}, ["0,1", "2,3"]),
        (SweepSettings(max_parallel=2), {"kind": "ddp"}, ["0,1", "2,3"]),
        (SweepSettings(gpus_per_job=2), {}, ["0,1", "2,3"]),
        (SweepSettings(max_parallel=6), {}, ["0", "1", "2", "3", "0", "1"]),
        (SweepSettings(max_parallel=1), {}, ["0,1,2,3"]),
    ],
)
def test_gpus_are_shared_out(settings, trainer, expected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "visible_gpus", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    places = slots.here(settings, spec(**trainer))
    taken = [places.take() for _ in range(places.count)]
    assert [slot.variables["CUDA_VISIBLE_DEVICES"] for slot in taken] == expected


def test_gpus_that_were_chosen_are_the_ones_that_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "visible_gpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    places = slots.here(SweepSettings(), spec())
    assert [places.take().variables["CUDA_VISIBLE_DEVICES"] for _ in range(places.count)] == ["3", "5"]


def test_more_gpus_than_there_are_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "visible_gpus", lambda: 2)
    with pytest.raises(ConfigError, match="takes 4 GPUs, and this machine shows 2"):
        slots.here(SweepSettings(max_parallel=4, gpus_per_job=1), spec())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["sweep.max_parallel=0"], "sweep.max_parallel=0: at least 1"),
        (["sweep.goal=more", "sweep.metric=loss"], "sweep.goal=more: minimize or maximize"),
        (["sweep.goal=[minimize,maximize]", "sweep.metric=loss"], "one goal for each metric"),
        (["sweep.max_usd=0"], "more than 0"),
        (["sweep.gpus_per_job=99"], "sweep.gpus_per_job=99: this machine shows"),
        (["sweep.hosts=2"], "it is for platforms that rent"),
        (["sweep.hosts=2", "sweep.max_parallel=2"], "give one of the two"),
        (["detach=true"], "detach=true with -m would start every job at once"),
        (["+platform=aws", "run.root=s3://b/r", "detach=true"], "detach=true with -m would start every job at once"),
        (["sweep.metrics=loss"], "did you mean sweep.metric"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(project, words, why) -> None:
    with pytest.raises(ConfigError, match=why.replace("[", r"\[")):
        project.sweep("args.x=1,2", *words)
    assert project.done() == []


def test_checkpoints_of_jobs_at_once_must_not_be_the_same_files(project) -> None:
    both = ("args.x=1,2", "sweep.max_parallel=2", "checkpoint.resume_flag=--resume")
    with pytest.raises(ConfigError, match=r"checkpoint\.watch=out/\*\.pt: jobs that run at once would write the same"):
        project.sweep(*both, "checkpoint.watch=out/*.pt")
    assert project.done() == [] and not project.runs.exists(), "nor is the first one begun"
    assert project.sweep(*both, "checkpoint.watch='out-${args.x}/*.pt'").code == 0


def test_what_a_platform_does_to_arguments_is_said_once_for_all_jobs(project, capfd) -> None:
    (project.folder / "conf").mkdir()
    (project.folder / "conf" / "runctl.yaml").write_text(
        "args: {batch_size: 8}\nplatform: {multipliers: {batch_size: 4}}\n"
    )
    assert launch(["-m", "script=train.py", "args.x=1,2,3", "dry_run=true"]) == 0
    assert capfd.readouterr().err.count("batch_size") == 1
