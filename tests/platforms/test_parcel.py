"""The folder of a parcel, before and after its launcher's death."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from runctl.platforms.parcel import Parcel


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
