"""Metrics: what rank 0 prints or logs about its steps, as lines of `metrics.jsonl`."""

from __future__ import annotations

import contextlib
import json
import threading
import time

from runctl.agent.troubles import Troubles
from runctl.hostdir import HostDir
from runctl.metrics import GARBAGE, PLACES, found_in, values_of
from runctl.storage import Stream


class MetricsLog:
    """Collects metrics from rank 0's output and from `runctl.log`, and keeps the latest value of each.

    Args:
        stream: the run's metrics.
        attempt: the number of this attempt.
        host_dir: where ranks leave what they log.
        troubles: keeps the error of a stream that cannot be written.
        begin: size of the run's file at the attempt's begin (bytes), where ranks append to it themselves; None
            where what they leave is still to be carried there.
    """

    def __init__(
        self, stream: Stream, attempt: int, host_dir: HostDir, troubles: Troubles, begin: int | None = None
    ) -> None:
        self._stream = stream
        self._troubles = troubles
        self._attempt = attempt
        self._file = host_dir.metrics
        self._forward = begin is None
        self._offset = begin or 0
        self._lock = threading.Lock()
        self.step: int | None = None
        self.latest: dict[str, float | str] = {}

    def feed(self, output: bytes) -> None:
        """Look for metrics in whole lines of output."""
        for values in found_in(output):
            self._record(values)

    def poll(self) -> None:
        """Take in what `runctl.log` left since the last time."""
        try:
            with self._file.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(*GARBAGE):
                self._record(values_of(json.loads(line)), keep=self._forward)

    def begin_anew(self) -> None:
        """The ranks were restarted: their steps count from where they begin now."""
        with self._lock:
            self.step = None

    def flush(self) -> None:
        with self._lock, self._troubles.kept():
            self._stream.flush()

    def close(self) -> None:
        self.poll()
        with self._lock, self._troubles.kept():
            self._stream.close()

    def _record(self, values: dict[str, float | str], *, keep: bool = True) -> None:
        """Take in one entry and keep it in the stream."""
        if not values:
            return
        with self._lock, self._troubles.kept():
            step = values.get("step")
            step = step if isinstance(step, int) else self.step
            # What is printed and what is logged come by two ways, and the later news need not be of the later step.
            if self.step is None or (step is not None and step >= self.step):
                self.step = step
                self.latest.update({name: value for name, value in values.items() if name not in PLACES})
            if keep:
                line = {"at": round(time.time(), 3), "attempt": self._attempt, **values}
                self._stream.append(json.dumps(line).encode() + b"\n")
