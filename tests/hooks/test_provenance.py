"""Where a run came from: what its launch sent, and not what the project became while it waited or was interrupted."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from runctl.outcome import Attempt
from runctl.plugins import provenance
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, Offer, Plan, Program, RunIdentity


class Project:
    """A checkout, and one launch after the other from it, each of a process of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._script = folder / "project" / "train.py"
        self._script.parent.mkdir()
        monkeypatch.chdir(self._script.parent)
        self.spec = LaunchSpec(RunIdentity("run", "run", str(folder)), Program("train.py", None))
        self.rundir = RunDir(str(folder / "run"))
        self._git("init", "-q")
        self.edit("first")
        self.commit()
        self.launch()

    def launch(self) -> None:
        self._monkeypatch.setattr(provenance, "_captured", {})

    def edit(self, text: str) -> None:
        self._script.write_text(f"print('{text}')\n")

    def commit(self) -> None:
        self._git("add", ".")
        self._git("-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-qm", "one more")

    def plan(self, attempt: int) -> None:
        offer = Offer("aws", "g6.xlarge", "spot", "us-east-1", "us-east-1a", 0.2)
        plan = Plan("run", attempt, "aws", (), {}, 1, 1, ".", self.rundir.url, offers=(offer,))
        provenance.runctl_before_submit(self.spec, plan)

    def begin(self, attempt: int, platform: str = "aws") -> None:
        provenance.runctl_attempt_started(Attempt(attempt, platform, "host"), self.rundir)

    def diff(self) -> str | None:
        data = self.rundir.store.read("provenance/git.diff")
        return None if data is None else data.decode()

    def dirty(self) -> list[str]:
        about: dict[str, list[str]] = json.loads(self.rundir.store.read("provenance/git.json") or b"{}")
        return about["dirty_files"]

    def _git(self, *words: str) -> None:
        subprocess.run(["git", *words], check=True)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, monkeypatch)


def test_what_is_edited_after_it_was_packed_is_not_what_ran(project: Project) -> None:
    project.edit("sent")
    project.plan(1)
    project.edit("while a host was looked for")
    project.begin(1)
    assert "sent" in str(project.diff()) and "looked for" not in str(project.diff())
    project.plan(2)
    project.begin(2)
    assert "sent" in str(project.diff()), "a later attempt gets what the first one got"


def test_a_run_that_is_only_followed_keeps_what_it_was_sent(project: Project) -> None:
    project.edit("sent")
    project.plan(1)
    project.begin(1)
    project.launch()
    project.edit("by now")
    project.begin(1)
    assert "sent" in str(project.diff())
    project.plan(2)
    project.begin(2)
    assert "by now" in str(project.diff()), "this launch has sent it"


def test_a_clean_commit_has_no_patch_of_an_earlier_launch(project: Project) -> None:
    project.edit("dirty")
    project.begin(1, "local")
    assert "dirty" in str(project.diff())
    project.commit()
    project.begin(2, "local")
    assert (project.diff(), project.dirty()) == ("", [])
