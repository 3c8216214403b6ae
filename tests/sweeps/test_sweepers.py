"""Whoever chooses the jobs, and whoever carries them out: Hydra's own sweeper, Optuna's, and others' launchers."""

from __future__ import annotations

import re

import pytest

from runctl.errors import ConfigError
from runctl.launch import launch

#: A parabola whose lowest point is at 3; told to fail beyond 5.
PARABOLA = """
import sys
x = float(sys.argv[1].split("=")[1])
if x > 5:
    sys.exit(4)
print(f"step=1 loss={(x - 3) ** 2} size={x}")
"""
OPTUNA = ("hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=1", "sweep.metric=loss", "sweep.max_parallel=2")


@pytest.fixture(autouse=True)
def parabola(project) -> None:
    project.script(PARABOLA)


def swept(jobs: list[dict]) -> list[str]:
    return [job["overrides"]["args.x"] for job in jobs]


@pytest.mark.parametrize("words", [["args.x=range(1,4)"], ["args.x=1,2,3", "hydra.sweeper.max_batch_size=2"]])
def test_ranges_and_batches(project, words) -> None:
    done = project.sweep(*words, "sweep.metric=loss")
    assert done.code == 0, done.err
    assert swept(done.jobs) == ["1", "2", "3"]
    assert [job["metrics"]["loss"] for job in done.jobs] == [4.0, 1.0, 0.0]


def test_what_the_project_sweeps_by_itself_and_a_glob_of_its_own_groups(project) -> None:
    for name, x in (("small", 1), ("middle", 2)):
        file = project.folder / "conf" / "runctl" / "model" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# @package _global_\nargs: {{x: {x}}}\n")
    (project.folder / "conf" / "runctl.yaml").write_text(
        "defaults: [{/model: small}]\nhydra: {sweeper: {params: {model: 'glob(*)'}}}\n"
    )
    done = project.sweep("sweep.metric=loss")
    assert done.code == 0, done.err
    told = {job["overrides"]["model"]: job["metrics"]["loss"] for job in done.jobs}
    assert told == {"small": 4.0, "middle": 1.0}


@pytest.mark.parametrize("pluses", ["", "+"])
def test_what_a_file_would_sweep_may_be_typed_as_a_whole(project, pluses: str, capfd) -> None:
    assert launch(["-m", "script=train.py", pluses + 'hydra.sweeper.params={args.x: "1,2"}', "dry_run=true"]) == 0
    assert re.findall(r"train\.py --x=(\d)", capfd.readouterr().out) == ["1", "2"]


@pytest.mark.parametrize("word", ["+hydra.sweeper.params.args.x=1", "hydra.sweeper.params.args.x=1",
                                  "hydra.sweeper.params=x"])  # fmt: skip
def test_a_single_key_of_what_a_file_would_sweep_is_said_to_be_typed_by_itself(word: str) -> None:
    with pytest.raises(ConfigError, match="what is swept is typed by itself, as in -m args"):
        launch(["-m", "script=train.py", word])


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [*(pytest.param(name, marks=pytest.mark.soak) for name in ("basic", "submitit_local")), "joblib"]
)  # fmt: skip
def test_under_another_launcher_jobs_are_the_same(project, launcher: str) -> None:
    words = (f"hydra/launcher={launcher}", "args.x=2,6", "sweep.metric=loss")
    done = project.sweep(*words)
    assert done.code == 4
    assert [job["state"] for job in done.jobs] == ["succeeded", "failed"]
    assert re.search(r"x=2 +succeeded +1 ", done.err)
    again = project.sweep("args.x=1,2", "sweep.metric=loss")
    assert again.code == 0
    assert "x=2   succeeded (before)" in again.err
    assert swept(again.jobs) == ["2", "6", "1"]


@pytest.mark.slow
def test_optuna_finds_the_lowest_point_and_the_same_study_runs_nothing_again(project) -> None:
    words = (*OPTUNA, "args.x=interval(0,5)", "hydra.sweeper.n_trials=6", "hydra.sweeper.n_jobs=2")
    done = project.sweep(*words)
    assert done.code == 0, done.err
    assert len(done.jobs) == 6
    assert min(job["metrics"]["loss"] for job in done.jobs) < 0.5
    again = project.sweep(*words)
    assert again.err.count("(before)") == 6, "the seed makes the same proposals, given the same values"


def test_a_failing_trial_ends_no_study(project) -> None:
    done = project.sweep(*OPTUNA, "args.x=choice(2,6,7)", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2")
    assert done.code == 4
    assert {job["state"] for job in done.jobs} == {"succeeded", "failed"}


def test_a_study_may_have_two_goals(project) -> None:
    goals = ("hydra.sweeper.direction=[minimize,maximize]", "sweep.metric=[loss,size]")
    done = project.sweep(*OPTUNA, *goals, "args.x=interval(0,5)", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2")
    assert done.code == 0, done.err
    assert all(set(job["metrics"]) == {"loss", "size"} for job in done.jobs)


def test_a_metric_that_no_job_tells_of_is_said_to_be_missing(project) -> None:
    with pytest.raises(ConfigError):
        project.sweep(*OPTUNA, "sweep.metric=lost", "args.x=interval(0,5)", "hydra.sweeper.n_trials=1")
    assert len(list(project.runs.glob("train-*"))) == 1
    done = project.sweep("args.x=1,2", "sweep.metric=lost")
    assert done.code == 0
    assert "sweep.metric=lost: no job has told of it" in done.err
