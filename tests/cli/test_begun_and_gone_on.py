"""`runctl launch`, `local` and `resume`, with real trainings on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made import Home

from runctl import resuming
from runctl.config.again import composed
from runctl.errors import ConfigError
from runctl.platforms.aws.choices import Choices, save
from runctl.registry import Entry
from runctl.resuming import _sent
from runctl.rundir import RunDir
from runctl.spec import Plan, RunState

BIN = Path(sys.executable).parent
SAVES = """
import os, pathlib, sys, time
found = os.environ.get("RUNCTL_RESUME_FROM")
begun = int(pathlib.Path(found).read_text()) if found else 0
for step in range(begun + 1, begun + int(sys.argv[1] if len(sys.argv) > 1 else 4) + 1):
    time.sleep(0.1)
    pathlib.Path(".aside").write_text(str(step))
    os.replace(".aside", "out.json")
    print(f"step={step}", flush=True)
print("words", sys.argv[1:], "rank", os.environ.get("RANK"))
"""


class Machine:
    """A user's machine: a home, a project in it, the two commands."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "proj"
        self.project.mkdir(parents=True)
        (self.project / "train.py").write_text(SAVES)
        home = {"HOME": folder, "XDG_STATE_HOME": folder / "state", "XDG_CONFIG_HOME": folder / "config"}
        self.env = {**os.environ, **{name: str(path) for name, path in home.items()}}

    def run(self, *words: str, code: int = 0, cwd: Path | None = None) -> tuple[str, str]:
        done = subprocess.run(
            [str(BIN / words[0]), *words[1:]], cwd=cwd or self.project, env=self.env, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, (words, done.stdout[-3000:], done.stderr[-3000:])
        return done.stdout, done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "mine")


def test_local_runs_a_script_with_its_words(machine: Machine) -> None:
    out, _ = machine.run("runctl", "local", "train.py", "--", "2", "--lr", "0.1", "--help")
    assert "words ['2', '--lr', '0.1', '--help'] rank None" in out
    assert json.loads(machine.run("runctl", "ps", "--all", "--json")[0])[0]["state"] == "succeeded"


@pytest.mark.soak
def test_local_ddp_is_torchrun(machine: Machine) -> None:
    out, _ = machine.run("runctl", "local", "train.py", "--ddp")
    assert "words [] rank 0" in out


def test_launch_hands_every_word_on(machine: Machine) -> None:
    out, _ = machine.run("runctl", "launch", "dry_run=true", "output=json", "--", "train.py", "--help")
    assert json.loads(out.splitlines()[-1])["plan"]["argv"][-1] == "--help"
    assert "runctl-launch" in machine.run("runctl", "launch", "--help")[0]


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_from_anywhere_with_its_own_words(machine: Machine) -> None:
    machine.run(
        "runctl-launch", "script=train.py", "argv=[300]", "detach=true", "run.id=base", "checkpoint.watch=out.json"
    )
    url = str(machine.project / "runs" / "base")
    deadline = time.monotonic() + 60
    while not Path(url, "checkpoints").exists() or not RunDir(url).metrics():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(1)
    machine.run("runctl", "stop", "base")
    steps = [one["step"] for one in json.loads(machine.run("runctl", "checkpoint", "list", "base", "--json")[0])]
    assert steps
    elsewhere = machine.project.parent
    _, said = machine.run("runctl", "resume", "base", "limits.max_time=3s", "detach=false", cwd=elsewhere, code=124)
    assert f"resuming from step {steps[-1]}" in said and "limit" in said
    attempts = RunDir(url).attempts()
    assert [one.number for one in attempts] == [1, 2] and attempts[1].resumed_from_step == steps[-1]
    assert RunDir(url).read_spec().program.argv == ("300",)


def test_what_makes_it_another_run_is_refused() -> None:
    cfg, changed = composed("args: {lr: 0.1}\nlimits: {max_time: 1h}\n", ["limits.max_time=2h", "+platform.zones=[a]"])
    assert cfg.limits.max_time == "2h" and cfg.platform.zones == ["a"] and changed == {"limits", "platform"}
    for word in (
        "args.lr=0.2",
        "platform=aws",
        "platform.kind=aws",
        "limits.max_time",
        "run.id=x",
        "limits.max_usd=1,2",
    ):
        with pytest.raises(ConfigError, match=word.split("=", maxsplit=1)[0]):
            composed("args: {lr: 0.1}\n", [word])


def test_a_project_that_is_nowhere_says_what_to_do(home: Home) -> None:
    home.run("run", state=RunState.STOPPED, config="script: train.py\nplatform: {kind: local}\n")
    said = home.runctl("resume", "run", expect=2).stderr
    assert "was not sent anywhere" in said and "--here" in said


@pytest.mark.parametrize("there", [True, False])
def test_a_run_is_followed_from_its_project_if_that_is_still_there(
    home: Home, monkeypatch: pytest.MonkeyPatch, *, there: bool
) -> None:
    rundir = home.run("run", state=RunState.RUNNING)
    rundir.write_submission(Plan("run", 1, "runpod", (), {}, 1, 1, ".", rundir.url), None)
    folder = home.folder / "project"
    if there:
        folder.mkdir()
    home.registry.note(Entry.begun(rundir.url, rundir.read_spec(), "runpod", str(folder)))
    monkeypatch.setattr(resuming, "resume", lambda rundir, words, project: project)
    assert resuming.rejoin(rundir) == (folder if there else None)


def test_the_project_that_the_first_launch_sent_is_known(home: Home) -> None:
    rundir = home.run("run")
    file = {"name": "project.tar.gz", "key": ".parcels/1.tar.gz", "sha256": "1", "size_bytes": 3}
    orders = {"call": "SendCommand", "orders": {"files": [file]}}
    for number in (10, 2):
        name = f"attempts/{number}.submit.json"
        rundir.store.write(name, json.dumps({"plan": {"requests": [orders]}, "handle": None}).encode())
        file = {**file, "sha256": "2"}
        orders = {"call": "SendCommand", "orders": {"files": [file]}}
    assert _sent(rundir) == {**file, "sha256": "2"}


def test_auto_upload_goes_where_setup_made_a_bucket_or_says_how(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    (home.folder / "train.py").write_text("")
    launched: list[list[str]] = []
    monkeypatch.setattr("runctl.launch.launch", lambda words: launched.append(words) or 0)
    assert "runctl aws setup" in home.runctl("local", "train.py", "--auto-upload-s3", expect=2).stderr
    save(Choices("us-east-1", "my-bucket"))
    home.runctl("local", "train.py", "--auto-upload-s3", "--ddp", "--", "--lr", "1")
    assert launched == [["trainer=ddp", "checkpoint.url='s3://my-bucket/runs'", "--", "train.py", "--lr", "1"]]
    home.runctl("local", "it's [odd],=.py")
    assert launched[1] == ["script='it\\'s [odd],=.py'"]
