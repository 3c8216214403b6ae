"""The logs of one node in one attempt: whose there are, what they say, and how long they were at what time."""

from __future__ import annotations

import json
import time

from runctl.rundir import RunDir, log_name, logs_folder
from runctl.storage import Stream, Tail

_SUFFIX = ".log"


class NodeLogs:
    """The logs of the ranks (`r0`, `r1`, …) and of torchrun itself.

    Args:
        rundir: where they lie.
        attempt, node: whose they are.
    """

    def __init__(self, rundir: RunDir, attempt: int, node: int) -> None:
        self._rundir = rundir
        self._attempt = attempt
        self._node = node
        self._times = f"{logs_folder(attempt, node)}/times.jsonl"

    def sources(self) -> list[str]:
        """Whose logs there are: ranks in order, torchrun last."""
        found = self._rundir.store.names(logs_folder(self._attempt, self._node))
        names = [name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX)]
        return sorted(names, key=lambda name: (name == "torchrun", len(name), name))

    def tail(self, source: str, since: float | None = None) -> Tail:
        """A reader of one log.

        Args:
            source: whose.
            since: leave out what was written before (seconds since the epoch), to ten seconds.
        """
        skip = 0 if since is None else self._length_at(source, since)
        return self._rundir.store.tail(log_name(self._attempt, self._node, source), skip)

    def lengths(self) -> Stream:
        """Takes `length_line`s, every ten seconds or so."""
        return self._rundir.store.stream(self._times)

    def _length_at(self, source: str, at: float) -> int:
        told = self._rundir.read_lines(self._times)
        return max((int(one[source]) for one in told if source in one and float(one["at"]) <= at), default=0)


def length_line(lengths: dict[str, int]) -> bytes:
    """How long each log is now, in bytes: {at, r0, r1, …}."""
    return json.dumps({"at": round(time.time(), 3), **lengths}).encode() + b"\n"
