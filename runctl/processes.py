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
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.5
#: How long killed processes may take to be gone, and how often we look.
_END_WITHIN_S = 5.0
_LOOK_AGAIN_S = 0.02


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


def outlive_parent() -> None:
    """Take `die_with_parent` back (Linux), for one that has something to do at its parent's death."""
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, 0)


def adopt_orphans() -> None:
    """Have every orphaned descendant become a child of this process (Linux), so that it can be ended."""
    if sys.platform == "linux":
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def reap_orphans(own: int) -> None:
    """Collect adopted children that have ended, which would stay as zombies for as long as we live.

    Args:
        own: the child that we started ourselves; its status is left to whoever waits for it.
    """
    if sys.platform != "linux":
        return  # nothing is adopted there
    with contextlib.suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid == own:
                return
            os.waitpid(ended.si_pid, os.WNOHANG)


def end_descendants(but: Iterable[int | None] = ()) -> int:
    """Kill every descendant of this process and wait for their end, at most 5 s; their statuses are left alone.

    Args:
        but: the ids of those that live on.

    Returns:
        How many were killed.
    """
    import psutil

    spared = set(but)
    return _end_all(lambda: [one for one in psutil.Process().children(recursive=True) if one.pid not in spared])


def end_by_environment(variable: str, value: str) -> int:
    """Kill every process of this user's whose environment holds `variable=value`, but us; wait as above.

    Returns:
        How many were killed.
    """
    import psutil

    def found() -> list[psutil.Process]:
        processes = []
        for pid in find_by_environment(variable, value):
            with contextlib.suppress(psutil.Error):
                processes.append(psutil.Process(pid))
        return processes

    return _end_all(found)


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
            if ours and _lives(process):
                found.append(process.pid)
    return found


def started_at(pid: int) -> float | None:
    """When a living process started (seconds since the epoch), or None: with the pid, its identity."""
    import psutil

    try:
        process = psutil.Process(pid)
        return float(process.create_time()) if _lives(process) else None
    except psutil.Error:
        return None


def birth(pid: int) -> str | None:
    """What tells a process from every other that has had or will have its pid, or None where the system has no such.

    When it started, in ticks since the system did (Linux), and which start of the system that was. `started_at` is
    reckoned from the clock: if that is set, it differs from what it was for the same process.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Its name, in parentheses, may hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return f"{boot} {fields[19]}"
    except (OSError, IndexError):
        return None


def lives(pid: int) -> bool:
    """Whether a process runs; where there is no psutil, one that ended and waits to be collected counts as well."""
    try:
        return started_at(pid) is not None
    except ImportError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            return True
        return False


def _end_all(find: Callable[[], list[psutil.Process]]) -> int:
    """Kill what `find` finds until it finds nothing that lives: one that forks meanwhile is found again."""
    import psutil

    killed: set[int] = set()
    deadline = time.monotonic() + _END_WITHIN_S
    while (living := [process for process in find() if _lives(process)]) and time.monotonic() < deadline:
        for process in living:
            with contextlib.suppress(psutil.Error):
                process.kill()
                killed.add(process.pid)
        time.sleep(_LOOK_AGAIN_S)
    return len(killed)


def _lives(process: psutil.Process) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    import psutil

    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _watch(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(_POLL_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def run_when_idle(pid: int, idle: bool) -> None:
    """Have a process run only when nobody else wants to, or as everybody does (Linux; nothing happens elsewhere).

    Args:
        pid: the process; all the threads that it has are meant, and those that they start inherit it.
        idle: which of the two.
    """
    policy = getattr(os, "SCHED_IDLE", None) if idle else getattr(os, "SCHED_OTHER", None)
    if policy is not None:
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    os.sched_setscheduler(int(thread.name), policy, os.sched_param(0))
