"""The lease of a run: who carries it out just now, so that nobody else does."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

from runctl import processes
from runctl.errors import LeaseHeld
from runctl.storage import Store

_NAME = "lease.json"
#: A run on another host counts as alive for this long after its last heartbeat.
TIMEOUT_S = 60.0
_CLOCK_STEP_S = 2.0


class Lease:
    """The lease in one run directory.

    Args:
        store: the run directory.
        heartbeat: reads the run's last sign of life.
    """

    def __init__(self, store: Store, heartbeat: Callable[[], dict[str, Any] | None]) -> None:
        self._store = store
        self._heartbeat = heartbeat

    def take(self, pid: int, *, heir_of: int | None = None, attempt: int | None = None) -> None:
        """Take the run for the process `pid` of this host; a dead holder's lease is taken over.

        Exclusive among the processes of one machine on a local run directory. Object storage has no lock: of two
        that ask within the same second, both may get it there.

        Args:
            pid: the process that will carry the run out.
            heir_of: a living process of this host that hands its lease to `pid`.
            attempt: the number of a detached attempt, which inherits from its launcher and from every attempt before
                it: the launcher has given those up, though their last heartbeat may be young.

        Raises:
            LeaseHeld: naming the process that carries the run out.
        """
        with self._store.locked():
            if attempt is None or (self._store.read_json(_NAME) or {}).get("attempt", 0) >= attempt:
                self.check(besides=heir_of)
            if heir_of is None and attempt is None:
                self._store.sweep()  # whoever wrote here has died, and nobody does yet
            lease = {
                "host": socket.gethostname(),
                "pid": pid,
                "started_at": processes.started_at(pid),
                "birth": processes.birth(pid),
                "at": time.time(),
                **({} if attempt is None else {"attempt": attempt}),
            }
            self._store.write(_NAME, (json.dumps(lease, indent=2) + "\n").encode())

    def check(self, *, besides: int | None = None) -> None:
        """Check that nobody, `besides` a process of this host, carries this run out just now.

        Raises:
            LeaseHeld: naming the process that does.
        """
        lease = self._store.read_json(_NAME)
        if lease is None or not self._holder_lives(lease):
            return
        if lease["host"] == socket.gethostname() and lease["pid"] == besides:
            return
        run_id = self._store.url.rsplit("/", 1)[-1]
        raise LeaseHeld(
            f"run {run_id} is alive: process {lease['pid']} on {lease['host']} carries it out; "
            f"runctl wait {run_id} waits for it, runctl stop {run_id} stops it; or launch under another run.id"
        )

    def is_held(self) -> bool:
        """Whether somebody carries this run out just now."""
        lease = self._store.read_json(_NAME)
        return lease is not None and self._holder_lives(lease)

    def drop(self) -> None:
        self._store.delete(_NAME)

    def _holder_lives(self, lease: dict[str, Any]) -> bool:
        if lease["host"] == socket.gethostname():
            started_at, birth = processes.started_at(int(lease["pid"])), processes.birth(int(lease["pid"]))
            if started_at is None or lease["started_at"] is None:  # gone by now, or when it was to take the run
                return False
            if birth is not None and lease.get("birth") is not None:
                return bool(birth == lease["birth"])
            # On a Mac, and in leases of earlier versions, by the clock alone, which may have been set a little.
            return abs(started_at - float(lease["started_at"])) < _CLOCK_STEP_S
        beat = self._heartbeat() or {"at": 0.0}  # its first one may be on its way
        return time.time() - max(float(beat["at"]), float(lease["at"])) < TIMEOUT_S
