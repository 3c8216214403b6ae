"""The load of this host while an attempt runs: in every heartbeat, and as a line of `usage.jsonl` now and then."""

from __future__ import annotations

import json
import threading
import time

from runctl.agent.troubles import Troubles
from runctl.hosts.load import HostLoad
from runctl.rundir import RunDir

#: A line for so many samples; on object storage so many lines are published at once, for each time makes a file.
_SAMPLES, _LINES = 3, 20


class LoadWatch(threading.Thread):
    """Samples in a thread of its own: a driver may take long to answer.

    Args:
        rundir: where it is kept.
        attempt: the number of this attempt.
        node: of this host.
        troubles: keeps the error of a stream that cannot be written.
    """

    INTERVAL_S = 10.0

    def __init__(self, rundir: RunDir, attempt: int, node: int, troubles: Troubles) -> None:
        super().__init__(name="runctl-load", daemon=True)
        self._attempt = attempt
        self._stream = rundir.usage_stream(f"a{attempt}-n{node}")
        self._together = 1 if rundir.local_metrics() is not None else _LINES
        self._troubles = troubles
        self._ended = threading.Event()
        #: The last sample, empty before the first.
        self.latest: dict[str, float] = {}

    def run(self) -> None:
        """Sample, until `end`; the first one soon, for somebody may look on."""
        load = HostLoad()
        samples: list[dict[str, float]] = []
        lines: list[bytes] = []
        pause_s, wanted = min(1.0, self.INTERVAL_S), 1
        while not self._ended.wait(pause_s):
            pause_s = self.INTERVAL_S
            self.latest = load.sample()
            samples.append(self.latest)
            if len(samples) >= wanted:
                lines.append(self._line(samples))
                samples, wanted = [], _SAMPLES
            if len(lines) >= self._together:
                self._keep(lines)
        if not self.latest:  # it was over before the first
            samples.append(load.sample())
        self._keep([*lines, *([self._line(samples)] if samples else [])])
        with self._troubles.kept():
            self._stream.close()

    def end(self) -> None:
        """Keep what was sampled, and sample no more."""
        self._ended.set()
        if self.is_alive():
            self.join(5.0)

    def _line(self, samples: list[dict[str, float]]) -> bytes:
        """The samples' average."""
        known = {name for one in samples for name in one}
        shares = {name: [one[name] for one in samples if name in one] for name in sorted(known)}
        means = {name: round(sum(several) / len(several), 3) for name, several in shares.items()}
        return json.dumps({"at": round(time.time(), 3), "attempt": self._attempt, **means}).encode() + b"\n"

    def _keep(self, lines: list[bytes]) -> None:
        with self._troubles.kept():
            if lines:
                self._stream.append(b"".join(lines))
        lines.clear()
