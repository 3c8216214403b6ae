"""A project in which sweeps are launched, in this process: their agents and trainings are processes of their own."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from runctl.launch import launch

#: Logs what it was given, and fails if it is told to.
TRAIN = """
import argparse, os, sys
from pathlib import Path
parser = argparse.ArgumentParser()
parser.add_argument("--x", type=float, default=0)
parser.add_argument("--fail", type=int, default=0)
options = parser.parse_args()
with open("done.txt", "a") as done:
    done.write(f"{options.x:g}\\n")
for step, loss in enumerate([3 + options.x, options.x, 1 + options.x], 1):
    print(f"step={step} loss={loss} accuracy={-loss}")
sys.exit(options.fail)
"""


class Swept:
    """What one command left behind."""

    def __init__(self, code: int, out: str, err: str, folder: Path) -> None:
        self.code = code
        self.out = out
        self.err = err
        #: The rows of `sweep.json` and of `sweep.csv`.
        self.jobs: list[dict[str, Any]] = json.loads((folder / "sweep.json").read_text())["jobs"]
        self.table = list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))


class Project:
    """The folder, and short ways to launch in it."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self._capfd = capfd
        self.script(TRAIN)

    def script(self, text: str, name: str = "train.py") -> None:
        (self.folder / name).write_text(text)

    def sweep(self, *words: str, name: str = "train") -> Swept:
        """`runctl-launch -m script=train.py` with more words."""
        self._capfd.readouterr()
        code = launch(["-m", "script=train.py", *words])
        out, err = self._capfd.readouterr()
        return Swept(code, out, err, self.runs / "sweeps" / name)

    def done(self) -> list[str]:
        """What the script was given each time it ran, in their order."""
        file = self.folder / "done.txt"
        return file.read_text().split() if file.exists() else []


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Project:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobodys"))
    return Project(folder, capfd)
