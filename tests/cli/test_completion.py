"""What a shell completes: commands, and the ids of runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from made import Home

RUNCTL = Path(sys.executable).with_name("runctl")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_ids_of_runs_are_completed(home: Home, shell: str) -> None:
    home.run("train-1")
    home.run("other-1")
    typed = {
        "bash": {"COMP_WORDS": "runctl logs tr", "COMP_CWORD": "2"},
        "zsh": {"_TYPER_COMPLETE_ARGS": "runctl logs tr"},
        "fish": {"_TYPER_COMPLETE_ARGS": "runctl logs tr", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    done = subprocess.run(
        [str(RUNCTL)], env={**os.environ, **typed, "_RUNCTL_COMPLETE": f"complete_{shell}"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert "train-1" in done.stdout and "other-1" not in done.stdout, done


def test_a_mistyped_command_is_told_with_what_may_be_meant() -> None:
    done = subprocess.run([str(RUNCTL), "shwo"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Did you mean 'show'?" in done.stderr
