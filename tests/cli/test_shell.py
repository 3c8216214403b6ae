"""`runctl shell`: where it leads, and what it says is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from made import Home

from runctl.errors import ConfigError
from runctl.platforms.hosts import Host, note, noted
from runctl.registry import Entry
from runctl.rundir import RunDir
from runctl.spec import Limits, Plan, RunHandle, RunState

INSIDE = "import os; print(os.getcwd(), os.environ['RUNCTL_RUN_ID'], os.environ['RUNCTL_RUN_DIR'])"


def test_of_a_run_here_it_is_in_its_project_with_its_variables(home: Home, tmp_path: Path) -> None:
    rundir = home.run("base", state=RunState.SUCCEEDED, noted=False)
    project = tmp_path / "elsewhere"
    project.mkdir()
    home.registry.note(Entry.begun(rundir.url, rundir.read_spec(), "local", str(project)))
    inside = tmp_path / "shell"
    inside.write_text(f"#!{sys.executable}\n{INSIDE}\n")
    inside.chmod(0o755)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("runctl")), "shell", "base"], capture_output=True, text=True, timeout=60,
        env={"PATH": "/usr/bin:/bin", "SHELL": str(inside), "XDG_STATE_HOME": str(home.folder / "state")}, check=False,
    )  # fmt: skip
    assert done.stdout.split() == [str(project), "base", rundir.url], done.stderr


def test_of_a_run_without_a_host_it_says_so(home: Home) -> None:
    home.run("rented", state=RunState.RUNNING)
    assert "has no host yet" in home.runctl("shell", "rented", expect=2).stderr


def test_through_ssm_it_says_which_program_is_missing(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runctl.platforms.aws.hosts import AwsHosts

    rundir: RunDir = home.run("rented", state=RunState.RUNNING)
    handle = RunHandle("aws", "rented", 1, {"instance": "i-1", "region": "eu-west-1"})
    rundir.write_submission(Plan("rented", 1, "aws", (), {}, 1, 1, ".", rundir.url), handle)
    host = Host("aws", "i-1", "running", "rented", 1, region="eu-west-1")
    monkeypatch.setattr(AwsHosts, "get", lambda *_: host)
    bins = tmp_path / "bin"
    bins.mkdir()
    monkeypatch.setenv("PATH", str(bins))
    for name, said in (("aws", "aws is not installed"), ("session-manager-plugin", "session-manager-plugin is not")):
        assert said in home.runctl("shell", "rented", expect=2).stderr
        (bins / name).write_text("#!/bin/sh\n")
        (bins / name).chmod(0o755)
    words = home.runctl("shell", "rented", "--dry-run").stdout.splitlines()[-1]
    assert words == f"{bins / 'aws'} ssm start-session --target i-1 --region eu-west-1"


def test_a_host_of_another_machine_of_which_only_a_run_is_noted_is_looked_for_as_a_run(home: Home) -> None:
    note("i-9", run_dir="s3://b/r")
    assert "no run is called i-9" in home.runctl("shell", "i-9", expect=2).stderr


def test_what_is_noted_of_a_host_adds_up_and_a_broken_note_is_none(home: Home) -> None:
    note("i-9", platform="aws", name="host-x")
    note("i-9", run_dir="s3://b/r")
    assert noted("i-9") == {"platform": "aws", "name": "host-x", "run_dir": "s3://b/r"}
    (home.folder / "state" / "runctl" / "hosts" / "i-9.json").write_text("{")
    assert noted("i-9") == {}


def test_a_host_of_a_run_takes_no_other_trainings() -> None:
    with pytest.raises(ConfigError, match="this one is run base's"):
        Host("aws", "i-1", "running", "base", 2, ends_at=9e9).limited(Limits(), 30.0)
