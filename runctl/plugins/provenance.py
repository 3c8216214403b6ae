"""Where a run came from: git commit and dirty diff, versions, host, kept in the run directory."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys

from runctl.outcome import Attempt
from runctl.rundir import RunDir, run_url
from runctl.spec import LaunchSpec, Plan

_PACKAGES = ("runctl", "torch", "numpy", "hydra-core", "omegaconf", "lightning", "transformers")
_GIT_TIMEOUT_S = 10
#: What was captured for launches of this process, by run directory, until it is kept there.
_captured: dict[str, dict[str, bytes]] = {}


def runctl_before_submit(spec: LaunchSpec, plan: Plan) -> None:
    """Capture as the project is packed for a rented host: once a launch, and it may be long before there is one."""
    url = RunDir(run_url(spec.run.root, spec.run.id)).url
    if plan.platform != "local" and url not in _captured:
        _captured[url] = _files()


def runctl_attempt_started(attempt: Attempt, rundir: RunDir) -> None:
    """Keep it; what runs on this machine is not packed, and is captured while its ranks start up."""
    own = attempt.platform == "local"
    for name, data in (_files() if own else _captured.get(rundir.url, {})).items():
        rundir.publish(f"provenance/{name}", data)
    if rundir.url in _captured:
        _captured[rundir.url] = {}  # later attempts get what the first one got


def _files() -> dict[str, bytes]:
    files = {"versions.json": _json(_versions())}
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return files
    about = {
        "commit": commit.decode().strip(),
        "branch": (_git("rev-parse", "--abbrev-ref", "HEAD") or b"").decode().strip(),
        "dirty_files": (_git("status", "--porcelain") or b"").decode().splitlines(),
    }
    # Also where there is none: that of an earlier launch does not belong to this commit.
    return {**files, "git.json": _json(about), "git.diff": _git("diff", "HEAD", "--binary") or b""}


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
