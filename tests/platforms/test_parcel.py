"""The folder of a parcel, before and after its launcher's death."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from runctl import hosts
from runctl.platforms.parcel import IDLE, Parcel, ending


def test_what_a_killed_launcher_left_goes_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "train.py").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f"runctl-parcel-{dead.pid}-x", f"runctl-parcel-{os.getppid()}-x", "runctl-parcel-notes-x"):
        (tmp_path / name).mkdir()
    parcel = Parcel(project, 1 << 20)
    assert parcel.project.path.is_file()
    left = {path.name for path in tmp_path.glob("runctl-parcel-*")} - {parcel.project.path.parent.name}
    assert left == {f"runctl-parcel-{os.getppid()}-x", "runctl-parcel-notes-x"}


def ended(root: Path) -> int:
    """The exit code of the command that ends the second attempt of a run on a host that is a folder here."""
    words = ["sh", "-c", ending("a run's", 2)]
    return subprocess.run(words, env={"PATH": os.environ["PATH"], "RUNCTL_HOST_ROOT": str(root)}, check=False,
                          timeout=30).returncode  # fmt: skip


def test_an_attempt_is_ended_by_its_keeper_and_where_that_has_not_come_by_word_for_it(tmp_path: Path) -> None:
    home = tmp_path / "a run's" / "a2"
    assert ended(tmp_path) != IDLE, "who has the host, nobody can tell"
    assert json.loads((home / "ended.json").read_text()) == {"why": "it was given up"}
    keeper = Path(hosts.__file__).with_name("keeper.py")
    (home / "keeper.py").write_bytes(keeper.read_bytes())
    (home / "host.json").write_text("{}")
    begun = subprocess.run([sys.executable, str(home / "keeper.py"), "start", str(home)], check=False, timeout=30)
    assert begun.returncode == 0 and not (home / "started").exists(), "it does not begin any more"
    assert ended(tmp_path) == IDLE
    with (tmp_path / "host.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(tmp_path / "another" / "a1"))
        lock.flush()
        assert ended(tmp_path) != IDLE
