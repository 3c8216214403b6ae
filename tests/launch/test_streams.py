"""Standard streams that are closed, as cron jobs and services have them, or full, or read by nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runctl.rundir import RunDir

TIMEOUT_S = 90


def shell(project: Path, program: str, *words: str, streams: str) -> subprocess.CompletedProcess[str]:
    """A console script whose standard streams the shell redirects."""
    command = ["sh", "-c", f'exec "$@" {streams}', "sh", str(Path(sys.executable).parent / program), *words]
    env = {**os.environ, "XDG_CONFIG_HOME": str(project / "no-config")}
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_a_training_runs_with_closed_streams(project: Path, closed: str) -> None:
    (project / "train.py").write_text("print('step=1 loss=0.5')\n")
    done = shell(project, "runctl-launch", "script=train.py", "run.id=closed", streams=closed)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    rundir = RunDir(str(project / "runs" / "closed"))
    [attempt] = rundir.attempts()
    assert (attempt.state.value, attempt.step) == ("succeeded", 1)
    assert b"".join(rundir.read_log(1, 0, "r0")) == b"step=1 loss=0.5\n"


def test_a_command_runs_with_closed_output(project: Path) -> None:
    done = shell(project, "runctl", "ps", "--all", streams=">&-")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [("runctl", "ps", "--all"), ("runctl", "--help"), ("runctl-launch", "--version")])
def test_a_full_output_is_told_in_one_line(project: Path, words: tuple[str, ...]) -> None:
    done = shell(project, *words, streams=">/dev/full")
    assert (done.returncode, done.stderr) == (1, "runctl: standard output cannot be written: No space left on device\n")


def test_a_training_whose_outcome_cannot_be_printed_has_succeeded(project: Path) -> None:
    (project / "train.py").write_text("print('step=1 loss=0.5')\n")
    done = shell(project, "runctl-launch", "script=train.py", "run.id=one", "output=json", streams=">/dev/full")
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith(f"runctl: the outcome stands in {project}/runs/one/outcome.json\n")
    assert RunDir(str(project / "runs" / "one")).store.read("outcome.json") is not None


def test_a_table_that_nobody_reads_ends_quietly(project: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [str(Path(sys.executable).parent / "runctl"), "ps", "--all"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=project, timeout=TIMEOUT_S, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")
