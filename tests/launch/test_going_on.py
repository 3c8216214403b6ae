"""A name or an id goes on with its run: what is resumed, refused, or done already."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runctl import identity
from runctl.errors import ConfigError
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, Program, RunIdentity

SCRIPT = """
import sys
import torch, runctl
weight = torch.nn.Linear(1, 1)
ck = runctl.attach(model=weight)
print("from", ck.step, "words", sys.argv[1:])
for step in ck.steps(6):
    ck.log(loss=1.0 / (step + 1))
    if step == 3 and "--fail=True" in sys.argv:
        ck.save()
        raise RuntimeError("no more today")
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the project lies after a first attempt that failed, for those who begin with one."""
    return tmp_path_factory.mktemp("failed")


@pytest.fixture
def failed(project: Path, launch: Callable, kept: Path) -> None:
    """A first attempt of `run.name=base` that failed behind a checkpoint of step 3."""
    if not (kept / "project").exists():
        (project / "train.py").write_text(SCRIPT)
        (project / "conf").mkdir()
        (project / "conf" / "runctl.yaml").write_text("script: train.py\nargs: {lr: 0.1, fail: true}\n")
        assert launch("run.name=base").code == 1
        shutil.copytree(project, kept / "project")
    else:
        shutil.copytree(kept / "project", project, dirs_exist_ok=True)


@pytest.mark.slow
@pytest.mark.usefixtures("failed")
def test_the_same_name_goes_on_with_its_run(launch: Callable) -> None:
    launched = launch("run.name=base", "args.fail=false", "run.changed=accept", "output=json")
    outcome = launched.outcome
    assert (outcome["state"], outcome["resumed_from_step"], outcome["step"]) == ("succeeded", 3, 6), launched.err
    assert len(outcome["attempts"]) == 2
    assert outcome["steps_lost"] == 1, "step 4 was logged, and done again"
    assert outcome["checkpoints"][-1] == "step-000006"
    steps = [json.loads(line)["step"] for line in Path(outcome["run_dir"], "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 4, 5, 6]


@pytest.mark.usefixtures("failed")
def test_other_arguments_under_a_name_are_refused_with_the_difference(launch: Callable) -> None:
    launched = launch("run.name=base", "args.lr=0.01", "args.warmup=5")
    assert launched.code == 2
    assert "lr: 0.1 → 0.01; warmup: not given → 5" in launched.err
    assert "run.changed=accept" in launched.err
    assert "another run.name" in launched.err
    assert "Traceback" not in launched.err


A = Program("a.py", None, digest="1")


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (Program("b.py", None, digest="2"), "script: a.py → b.py"),
        (Program(None, "pkg.train"), "script: a.py → not given; module: not given → pkg.train"),
        (Program("a.py", None, workdir="other", digest="2"), "script: a.py → other/a.py"),
    ],
)
def test_another_script_under_a_name_is_refused(tmp_path: Path, now: Program, told: str) -> None:
    rundir, spec = kept_as(tmp_path, A)
    other = replace(spec, program=now)
    with pytest.raises(ConfigError, match=f"run one exists with other arguments: {told}. run.changed=accept"):
        identity.going_on(other, rundir, [], "local", accept=False)
    assert identity.going_on(other, rundir, [], "local", accept=True) == other
    assert not identity.script_changed(other, rundir), "it was never in this run"


@pytest.mark.parametrize(
    ("now", "changed"),
    [
        (replace(A, digest="2"), True),
        (replace(A, script="../a.py", workdir="below", digest="2"), True),
        (replace(A, script="moved/a.py"), False),
    ],
)
def test_the_same_script_goes_on_from_wherever_it_is_launched(tmp_path: Path, now: Program, changed: bool) -> None:
    rundir, spec = kept_as(tmp_path, A)
    again = replace(spec, program=now)
    assert identity.going_on(again, rundir, [], "local", accept=False) == again
    assert identity.script_changed(again, rundir) == changed


def kept_as(folder: Path, program: Program) -> tuple[RunDir, LaunchSpec]:
    """A run of that program."""
    spec = LaunchSpec(RunIdentity("one", "one", str(folder)), program)
    rundir = RunDir(str(folder / "one"))
    rundir.write_spec(spec)
    return rundir, spec


def test_a_launch_without_a_name_is_a_new_run(project: Path, launch: Callable) -> None:
    (project / "train.py").write_text("print('trained')")
    for _ in range(2):
        assert launch("script=train.py").code == 0
    assert len(list((project / "runs").glob("train-*"))) == 2


def test_a_finished_run_says_so_and_starts_nothing(project: Path, launch: Callable) -> None:
    (project / "train.py").write_text("print('trained')")
    first = launch("script=train.py", "run.id=once", "output=json").outcome
    again = launch("script=train.py", "run.id=once", "output=json")
    assert again.code == 0
    assert again.outcome == first
    assert "trained" not in again.err
    assert "once has finished" in again.err
    (project / "runs" / "once" / "outcome.json").unlink()
    assert launch("script=train.py", "run.id=once", "output=json").outcome == first, "as if its launcher had left it"


@pytest.mark.slow
def test_resume_never_runs_a_finished_run_again(project: Path, launch: Callable) -> None:
    (project / "train.py").write_text(SCRIPT)
    assert launch("script=train.py", "run.id=once").code == 0
    again = launch("script=train.py", "run.id=once", "checkpoint.resume=never", "output=json")
    assert again.outcome["resumed_from_step"] is None
    assert "from 0" in again.err


@pytest.mark.parametrize("resume", ["require", "5"])
def test_a_checkpoint_that_a_new_run_has_not_is_refused_before_it_begins(
    project: Path, launch: Callable, resume: str
) -> None:
    (project / "train.py").write_text(SCRIPT)
    launched = launch("script=train.py", f"checkpoint.resume={resume}")
    assert launched.code == 2
    assert f"checkpoint.resume={resume}: " in launched.err and "there is no checkpoint" in launched.err
    assert not (project / "runs").exists()


@pytest.mark.usefixtures("failed")
def test_resume_from_a_step_of_choice(project: Path, launch: Callable) -> None:
    launched = launch("run.name=base", "checkpoint.resume=77")
    assert launched.code == 2
    assert "no checkpoint of step 77; there are 3" in launched.err
    [rundir] = (project / "runs").glob("base-*")
    assert len(list((rundir / "attempts").glob("*.json"))) == 1


@pytest.mark.usefixtures("failed")
def test_a_changed_script_is_said_and_not_refused(project: Path, launch: Callable) -> None:
    (project / "train.py").write_text(SCRIPT + "print('mended')\n")
    launched = launch("run.name=base")
    assert "train.py has changed since" in launched.err


def test_jobs_of_a_sweep_share_a_name_and_are_told_apart_by_their_arguments(project: Path, launch: Callable) -> None:
    (project / "train.py").write_text("import sys; print('did', sys.argv[1])")
    words = ("-m", "script=train.py", "run.name=sweep", "args.lr=1,2")
    assert launch(*words).out.splitlines() == ["did --lr=1", "did --lr=2"]
    again = launch("-m", "script=train.py", "run.name=sweep", "args.lr=1,2,3")
    assert again.out.splitlines() == ["did --lr=3"], "what has finished is not done again"


@pytest.mark.usefixtures("failed")
def test_what_lies_beyond_a_chosen_step_is_superseded_and_kept(project: Path, launch: Callable) -> None:
    [folder] = (project / "runs").glob("*/checkpoints")
    anew = launch("run.name=base", "checkpoint.resume=never", "checkpoint.every=1h")
    assert "checkpoints of steps 3 are superseded" in anew.err
    assert (folder / "superseded-by-a2" / "step-000003" / "data.pt").is_file()
    again = launch("run.name=base")
    assert "resuming from step 3 " in again.err, "the second attempt's own, not the first's"
    assert json.loads((folder / "step-000003" / "manifest.json").read_text())["attempt"] == 2


@pytest.mark.usefixtures("failed")
def test_a_dry_run_of_a_run_that_exists_refuses_what_the_launch_refuses(project: Path, launch: Callable) -> None:
    [rundir] = (project / "runs").glob("base-*")
    planned = launch("run.name=base", "dry_run=true", "output=json")
    assert planned.code == 0 and f"{rundir.name} exists: this would be its attempt 2" in planned.err
    assert rundir.name in json.dumps(planned.outcome["plan"])
    for words in (("run.name=base",), (f"run.id={rundir.name}",)):
        refused = launch(*words, "args.lr=0.01", "dry_run=true")
        assert refused.code == 2 and "lr: 0.1 → 0.01" in refused.err
    assert "no checkpoint of step 77" in launch("run.name=base", "checkpoint.resume=77", "dry_run=true").err
    assert "there are none" in launch("checkpoint.resume=77", "dry_run=true").err
    record = rundir / "attempts" / "1.json"
    record.write_text(record.read_text().replace('"failed"', '"succeeded"'))
    assert "has finished: the launch would start nothing" in launch("run.name=base", "dry_run=true").err
