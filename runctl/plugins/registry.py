"""The registry: has `runctl ps` know the runs that are launched from this machine."""

from __future__ import annotations

from pathlib import Path

from runctl import standing
from runctl.outcome import Attempt
from runctl.registry import Entry, Registry
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec


def runctl_attempt_started(spec: LaunchSpec, attempt: Attempt, rundir: RunDir) -> None:
    """Note that there is such a run; nothing is asked of its run directory."""
    Registry().note(Entry.begun(rundir.url, spec, attempt.platform, str(Path.cwd())))


def runctl_run_ended(spec: LaunchSpec, rundir: RunDir) -> None:
    """Note how it ended."""
    Registry().note(standing.look(rundir, spec).entry())
