"""The scratch directory of a training without a launcher, which its ranks find by what they share.

Rank 0 holds a lock on it for as long as it lives. One whose lock is free was left by a training that was killed, and
the next one to begin removes it. No process ids are compared: containers that share a folder have their own.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from runctl.checkpoint.catalog import Catalog
from runctl.hostdir import HostDir

_PREFIX = "plain-"
#: A directory is made a moment before it is locked.
_STALE_AFTER_S = 60.0


def host_dir(rank: int, world_size: int) -> HostDir:
    """Make it, if that is not done yet; rank 0 removes it at its end, and those that others left behind now."""
    name = str(os.getpid())
    if world_size > 1:
        name = f"{os.environ.get('TORCHELASTIC_RUN_ID', '')}-{os.getppid()}".replace("/", "-")
    made = HostDir.for_attempt(f"{_PREFIX}{name}", 1, "")
    made.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Where ranks say that they live: the writer takes one that is late with its state and never said so for dead.
    (made.path / "workers").mkdir(exist_ok=True, mode=0o700)
    if rank == 0:
        _lock(made.path.parent)  # held until this process ends
        at_own_exit(made.remove)
        _sweep(made.path.parent.parent)
    return made


@contextlib.contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Have nobody sweep a folder of checkpoints meanwhile; it is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a network file system that cannot
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def sweep_checkpoints(folder: Path) -> None:
    """Remove what killed writers left, unless one is at work there: of a training just killed, or of another one."""
    if folder.is_dir() and (held := _lock(folder)) is not None:
        Catalog(folder).sweep()
        os.close(held)


def at_own_exit(call: Callable[[], None]) -> None:
    """Have something done when this process ends, and not when a child does that it forks: handlers are inherited."""
    pid = os.getpid()

    def end() -> None:
        if os.getpid() == pid:
            call()

    atexit.register(end)


def _sweep(base: Path) -> None:
    for folder in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _STALE_AFTER_S and (held := _lock(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(held)


def _lock(folder: Path) -> int | None:
    """Lock a folder for as long as the descriptor is open, or None if somebody else has."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # also where a network file system cannot: then nothing is swept
        os.close(descriptor)
        return None
    return descriptor
