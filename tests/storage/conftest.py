"""Launches to test run directories with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start `runctl-launch` in a project folder of its own."""
    project = tmp_path / "project"
    project.mkdir()

    def started(*words: str, script: str = "", **env: str) -> subprocess.Popen[str]:
        (project / "train.py").write_text(script)
        return subprocess.Popen(
            [str(Path(sys.executable).parent / "runctl-launch"), "script=train.py", *words],
            cwd=project,
            env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "no-config"), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return started
