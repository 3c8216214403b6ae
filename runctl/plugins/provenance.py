"""Where a run came from: git commit and dirty diff, versions, host, kept in the run directory."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys

from runctl.rundir import RunDir

_PACKAGES = ("runctl", "torch", "numpy", "hydra-core", "omegaconf", "lightning", "transformers")
_GIT_TIMEOUT_S = 10


def runctl_attempt_started(rundir: RunDir) -> None:
    """Capture while the ranks start up."""
    rundir.publish("provenance/versions.json", _json(_versions()))
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return
    about = {
        "commit": commit.decode().strip(),
        "branch": (_git("rev-parse", "--abbrev-ref", "HEAD") or b"").decode().strip(),
        "dirty_files": (_git("status", "--porcelain") or b"").decode().splitlines(),
    }
    rundir.publish("provenance/git.json", _json(about))
    diff = _git("diff", "HEAD", "--binary")
    if diff:
        rundir.publish("provenance/git.diff", diff)


def _versions() -> dict[str, object]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "packages": found,
        "host": platform.node(),
        "system": platform.platform(),
        "cpu_count": os.cpu_count(),
        "command": sys.argv,
    }


def _git(*words: str) -> bytes | None:
    """What git says, or None outside a checkout, before the first commit, or without git."""
    try:
        return subprocess.run(["git", *words], capture_output=True, check=True, timeout=_GIT_TIMEOUT_S).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _json(data: object) -> bytes:
    return (json.dumps(data, indent=2) + "\n").encode()
