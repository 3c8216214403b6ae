"""The registry: has `runctl ps` know the runs that are launched from this machine."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from runctl import bills, standing
from runctl.errors import StorageError
from runctl.outcome import Attempt
from runctl.registry import Entry, Registry
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec

_log = logging.getLogger(__name__)


def runctl_attempt_started(spec: LaunchSpec, attempt: Attempt, rundir: RunDir) -> None:
    """Note that there is such a run; nothing is asked of its run directory."""
    _note(Entry.begun(rundir.url, spec, attempt.platform, str(Path.cwd())))


def runctl_run_ended(spec: LaunchSpec, rundir: RunDir) -> None:
    """Note how it ended, and what it cost."""
    _note(standing.look(rundir, spec).entry())
    of_run = bills.of_run(rundir)
    if bills.are_settled(of_run):
        with contextlib.suppress(StorageError):  # said above
            Registry().keep_bills({rundir.url: of_run})


def _note(entry: Entry) -> None:
    try:
        Registry().note(entry)
    except StorageError as error:  # a line, and no traceback: the run is as good without
        _log.warning("runctl ps will not know this run: %s", error)
