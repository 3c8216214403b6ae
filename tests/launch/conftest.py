"""A project folder of its own for each test, and the real console script run in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 90


class Launched:
    """What one `runctl-launch` left behind."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code = done.returncode
        self.out = done.stdout
        self.err = done.stderr

    @property
    def outcome(self) -> dict[str, Any]:
        """The JSON object on the last line of standard output."""
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def launch(project: Path, tmp_path: Path) -> Callable[..., Launched]:
    """Run `runctl-launch` in the project, without the developer's own configuration."""

    def run(*words: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> Launched:
        command = [str(Path(sys.executable).parent / "runctl-launch"), *words]
        own = {"XDG_CONFIG_HOME": str(tmp_path / "no-config"), **(env or {})}
        done = subprocess.run(
            command,
            cwd=cwd or project,
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        return Launched(done)

    return run
