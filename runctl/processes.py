"""Processes that must not outlive each other (standard library; psutil only to look at others).

Linux has two kernel services for this: a signal at the parent's death, and sub-reapers, to which orphans
fall. Elsewhere a thread watches the parent instead.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.5


def die_with_parent(parent_pid: int) -> None:
    """Have this process killed (SIGKILL) as soon as its parent is gone.

    The kernel watches the parent's *thread* that started us: that must be its main thread.

    Args:
        parent_pid: the parent's process id as it told us; if it is gone already, so are we.
    """
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent_pid,), name="runctl-parent", daemon=True).start()
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> None:
    """Have every orphaned descendant become a child of this process (Linux), so that it can be ended."""
    if sys.platform == "linux":
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_descendants(spare: frozenset[int] = frozenset()) -> int:
    """Kill every descendant of this process and wait for them, at most 5 s.

    Args:
        spare: process ids to leave alone.

    Returns:
        How many were killed.
    """
    import psutil

    killed = 0
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        living = [p for p in psutil.Process().children(recursive=True) if p.pid not in spare]
        living = [p for p in living if _status(p) != psutil.STATUS_ZOMBIE]
        if not living:
            break
        for process in living:
            with contextlib.suppress(psutil.Error):
                process.kill()
                killed += 1
        psutil.wait_procs(living, timeout=1)
    _reap()
    return killed


def end_descriptor(pid: int) -> int | None:
    """A descriptor that becomes readable when the child `pid` has ended, or None where the system has none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def find_by_environment(variable: str, value: str) -> list[int]:
    """Ids of this user's living processes whose environment holds `variable=value`, our own left out."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            ours = process.pid != os.getpid() and process.environ().get(variable) == value
            if ours and _status(process) != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def started_at(pid: int) -> float | None:
    """When a living process started (seconds since the epoch), or None: with the pid, its identity."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def _status(process: psutil.Process) -> str:
    import psutil

    try:
        return process.status()
    except psutil.Error:
        return str(psutil.STATUS_ZOMBIE)


def _reap() -> None:
    """Collect adopted children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _watch(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(_POLL_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")
