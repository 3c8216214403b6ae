"""Two launches of one run at the same time."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from runctl.rundir import RunDir
from runctl.spec import RunState


def test_of_two_launches_at_once_one_runs_undisturbed_and_the_other_says_why_not(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    script = "import sys, time; time.sleep(2); print('ran', sys.argv[1:])"
    both = [start("run.id=one", f"args.number={number}", script=script) for number in (0, 1)]
    ended = [(*process.communicate(timeout=60), process.returncode) for process in both]
    winner, loser = sorted((0, 1), key=lambda number: ended[number][2])
    assert [ended[winner][2], ended[loser][2]] == [0, 2], ended
    assert ended[winner][0] == f"ran ['--number={winner}']\n"
    assert ended[loser][0] == ""
    (line,) = ended[loser][1].splitlines()
    assert "run one is alive" in line
    rundir = RunDir(str(tmp_path / "project/runs/one"))
    (attempt,) = rundir.attempts()
    assert attempt.state is RunState.SUCCEEDED
    assert rundir.read_spec().args["number"].effective == winner
    assert json.loads(rundir.store.read("outcome.json") or b"")["state"] == "succeeded"
    rundir.lease.check()
