"""`smoke=true`: two short attempts show whether a launch's checkpoints, stops and resumes work, and what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from saving import SAVES

from runctl import smoke
from runctl.outcome import Attempt, Outcome
from runctl.rundir import RunDir
from runctl.spec import CheckpointPolicy, Data, Every, LaunchSpec, Limits, Program, RunIdentity, RunState, Transfer

LAUNCH = Path(sys.executable).with_name("runctl-launch")
#: Saves, and breaks when it is to go on.
CANNOT_RESUME = """
import os, zipfile
assert "RUNCTL_RESUME_FROM" not in os.environ, "I cannot resume"
with zipfile.ZipFile("out.ckpt", "w") as archive:
    archive.writestr("step", "1")
"""


def smoked(folder: Path, script: str, *words: str, timeout_s: float = 90) -> tuple[int, dict[str, Any], str]:
    (folder / "train.py").write_text(script)
    done = subprocess.run(
        [str(LAUNCH), "smoke=true", "script=train.py", "output=json", *words],
        cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr or "boom" in script or "cannot" in script
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stderr


def proved(told: dict[str, Any]) -> dict[str, bool | None]:
    return {one["what"]: one["proved"] for one in told["smoke"]["proofs"]}


def test_a_script_that_saves_is_stopped_and_resumed_and_its_cost_is_said(tmp_path: Path) -> None:
    code, told, err = smoked(tmp_path, SAVES, "checkpoint.watch=*.ckpt")
    assert code == 0, err
    assert proved(told) == {"environment and script": True, "checkpoint": True, "stop": True, "resume": True}
    assert told["smoke"]["passed"]
    assert len(told["attempts"]) == 2
    assert "2 attempts, 0.0000 USD" in err
    assert "the same launch without smoke=true is the long run" in err
    assert told["run_id"].startswith("smoke-train-")


def test_a_script_that_fails_fails_the_smoke_run_with_its_reason(tmp_path: Path) -> None:
    code, told, _ = smoked(tmp_path, "raise ValueError('boom')")
    assert code == 1
    assert proved(told) == {"environment and script": False}
    assert "boom" in told["smoke"]["proofs"][0]["said"]


def test_a_script_without_checkpoints_is_told_how_to_have_some(tmp_path: Path) -> None:
    code, told, _ = smoked(tmp_path, "print('done')")
    assert code == 1
    assert proved(told) == {"environment and script": True, "checkpoint": False}
    said = told["smoke"]["proofs"][-1]["said"]
    assert "runctl.attach" in said
    assert "checkpoint.watch" in said


def test_a_script_that_cannot_go_on_from_its_checkpoint_fails_the_smoke_run(tmp_path: Path) -> None:
    code, told, _ = smoked(tmp_path, CANNOT_RESUME, "checkpoint.watch=*.ckpt")
    assert code == 1
    assert proved(told)["checkpoint"] is True
    assert proved(told)["resume"] is False
    assert "I cannot resume" in told["smoke"]["proofs"][-1]["said"]


def test_detached_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    done = subprocess.run(
        [str(LAUNCH), "smoke=true", "detach=true", "script=train.py"], cwd=tmp_path, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "smoke=true with detach=true" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_it_is_short_saves_often_and_stays_away_from_the_runs_outputs() -> None:
    spec = LaunchSpec(
        RunIdentity("big", "big", "s3://b/runs"), Program("train.py", None), limits=Limits(max_time_s=86400.0),
        checkpoint=CheckpointPolicy(every=Every("seconds", 3600.0)),
        data=Data(inputs=(Transfer("s3://b/in", "in"),), outputs=(Transfer("out/model.pt", "s3://b/best.pt"),)),
    )  # fmt: skip
    short = smoke.shortened(spec, "smoke-1")
    assert short.run.id == "smoke-1"
    assert short.limits.max_time_s == smoke.TRAIN_S
    assert short.checkpoint.every.count < 60
    assert short.data.inputs == spec.data.inputs
    assert short.data.outputs == (Transfer("out/model.pt", "s3://b/runs/smoke-1/outputs/model.pt"),)
    hurried = LaunchSpec(spec.run, spec.program, limits=Limits(max_time_s=30.0))
    assert smoke.shortened(hurried, "smoke-2").limits.max_time_s == 30.0


@pytest.mark.parametrize(
    ("second", "passed"),
    [
        (Attempt(2, "aws", "i-2", state=RunState.STOPPED, resumed_from_step=7, step=9), True),
        (Attempt(2, "aws", "i-2", state=RunState.INTERRUPTED, resumed_from_step=7, end_reason="lost"), False),
        (Attempt(2, "aws", "i-2", state=RunState.STOPPED, step=2), False),
    ],
)
def test_only_a_second_attempt_that_went_on_is_a_resume(tmp_path: Path, second: Attempt, passed: bool) -> None:
    spec = LaunchSpec(RunIdentity("s", "s", str(tmp_path)), Program("train.py", None))
    first = Attempt(1, "aws", "i-1", state=RunState.STOPPED, step=7)
    outcome = Outcome("s", "s", second.state, 0, "", str(tmp_path), [first, second], checkpoints=["step-000007"])
    proofs = smoke.Smoke(spec, RunDir(str(tmp_path / "s"))).proofs(outcome)
    assert (proofs[-1].what, proofs[-1].proved) == ("resume", passed)
