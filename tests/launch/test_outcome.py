"""Whole launches on this machine, looked at from outside: exit code, JSON, and the run directory."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

DDP = """
import os
import torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.ones(1)
dist.all_reduce(total)
if dist.get_rank() == 0:
    for step in range(1, 4):
        print(f"step={step} loss={1 / step:.2f}", flush=True)
    print("ranks", int(total.item()), "in", os.getcwd())
dist.destroy_process_group()
"""
OUTCOME_KEYS = [
    "schema", "run_id", "name", "state", "exit_code", "reason", "run_dir", "attempts", "step",
    "resumed_from_step", "steps_lost", "checkpoints", "metrics", "cost_usd",
]  # fmt: skip
ATTEMPT_KEYS = ["platform", "host", "market", "started_at", "ended_at", "end_reason", "cost_usd"]


@pytest.mark.slow
def test_ddp_from_the_projects_own_file(project: Path, launch: Callable) -> None:
    (project / "train.py").write_text(DDP)
    (project / "conf").mkdir()
    (project / "conf" / "runctl.yaml").write_text(
        "defaults:\n  - override /trainer: ddp\nscript: train.py\ntrainer: {nproc_per_node: 2}\n"
    )
    launched = launch()
    assert launched.code == 0, launched.err
    assert f"ranks 2 in {project}" in launched.out
    assert sorted(p.name for p in project.iterdir()) == ["conf", "runs", "train.py"]


def test_outcome_has_exactly_the_documented_shape(project: Path, launch: Callable) -> None:
    (project / "train.py").write_text(DDP)
    launched = launch("trainer=ddp", "trainer.nproc_per_node=2", "script=train.py", "output=json", "run.name=My Run")
    outcome = launched.outcome
    assert list(outcome) == OUTCOME_KEYS
    assert list(outcome["attempts"][0]) == ATTEMPT_KEYS
    assert (outcome["state"], outcome["exit_code"], outcome["name"]) == ("succeeded", 0, "My Run")
    assert outcome["run_id"].startswith("my-run-")
    assert (outcome["step"], outcome["metrics"], outcome["cost_usd"]) == (3, {"loss": 0.33}, 0.0)
    assert len(launched.out.splitlines()) == 1, "the training's output belongs to stderr"
    assert "ranks 2" in launched.err
    assert json.loads(Path(outcome["run_dir"], "outcome.json").read_text()) == outcome


def test_metrics_of_the_script_land_in_the_run_directory(project: Path, launch: Callable) -> None:
    (project / "train.py").write_text(
        "import runctl\nrunctl.log(step=1, loss=0.5)\nrunctl.log(step=2, loss=0.25, lr=1e-3)\n"
    )
    outcome = launch("script=train.py", "output=json").outcome
    lines = Path(outcome["run_dir"], "metrics.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [(e["step"], e["loss"]) for e in entries] == [(1, 0.5), (2, 0.25)]
    assert outcome["metrics"] == {"loss": 0.25, "lr": 0.001}


def test_multirun_launches_one_run_for_each_value(project: Path, launch: Callable) -> None:
    (project / "train.py").write_text("import sys; print('got', sys.argv[1:])")
    launched = launch("-m", "script=train.py", "args.learning_rate=0.1,0.01")
    assert launched.code == 0, launched.err
    assert launched.out.splitlines() == ["got ['--learning_rate=0.1']", "got ['--learning_rate=0.01']"]
    assert sorted(p.name for p in project.iterdir()) == ["runs", "train.py"], "no multirun/ or outputs/ folder"
    assert len(list((project / "runs").glob("train-*"))) == 2


def test_multirun_goes_on_after_a_failing_job_and_exits_with_its_code(project: Path, launch: Callable) -> None:
    (project / "train.py").write_text("import sys; print(sys.argv[1]); sys.exit(int(sys.argv[1][-1]))")
    launched = launch("-m", "script=train.py", "args.code=0,5,1")
    assert launched.code == 5
    assert launched.out.splitlines() == ["--code=0", "--code=5", "--code=1"]


def test_the_script_runs_where_the_user_stands(project: Path, launch: Callable) -> None:
    (project / "sub").mkdir()
    (project / "train.py").write_text("import os, sys; print(os.getcwd(), sys.path[0])")
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    launched = launch("script=../train.py", cwd=project / "sub")
    assert launched.out.split() == [str(project / "sub"), str(project)], launched.err
    spec = json.loads(next((project / "sub" / "runs").glob("*/spec.json")).read_text())
    assert (spec["program"]["script"], spec["program"]["workdir"]) == ("../train.py", "sub")


def test_the_run_directory_says_where_the_run_came_from(project: Path, launch: Callable) -> None:
    (project / "train.py").write_text("print('hello')\n")
    for words in (["init", "-q"], ["add", "train.py"], ["commit", "-qm", "first"]):
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *words], cwd=project, check=True)
    (project / "train.py").write_text("print('changed')\n")
    outcome = launch("script=train.py", "output=json").outcome
    kept = Path(outcome["run_dir"], "provenance")
    about = json.loads((kept / "git.json").read_text())
    assert len(about["commit"]) == 40
    assert about["dirty_files"][0] == " M train.py"
    assert "+print('changed')" in (kept / "git.diff").read_text()
    assert json.loads((kept / "versions.json").read_text())["packages"]["torch"]
    assert "script: train.py" in Path(outcome["run_dir"], "config.yaml").read_text()


def test_disabling_the_cost_book_leaves_the_cost_unknown(project: Path, launch: Callable) -> None:
    (project / "train.py").write_text("pass")
    assert launch("script=train.py", "output=json", "-p", "no:cost").outcome["cost_usd"] is None
    assert launch("script=train.py", "output=json", "plugins.disable=[cost]").outcome["cost_usd"] is None
