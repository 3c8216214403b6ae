"""Metrics: what rank 0 prints or logs about its steps, as lines of `metrics.jsonl`."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from typing import Any

from runctl.agent.troubles import Troubles
from runctl.hostdir import HostDir, finite
from runctl.storage import Stream

_PAIR = re.compile(
    rb"(?:^|[\s,;|(\[])([A-Za-z_][\w./-]*)\s*[=:]\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?inf|nan)(?![\w.])"
)
_POSITION = (b"step", b"epoch")
_NO_METRICS = ("step", "at", "attempt")
#: What a line raises that only looks like metrics: broken JSON, a number beyond all bounds, brackets without end.
_GARBAGE = (ValueError, OverflowError, RecursionError)


class MetricsLog:
    """Collects metrics from rank 0's output and from `runctl.log`, and keeps the latest value of each.

    A line counts if it names a step or an epoch (`step=120 loss=0.31`) or is a JSON object that does.

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
        if not any(word in output for word in _POSITION):
            return
        for line in re.split(rb"[\r\n]+", output):
            if any(word in line for word in _POSITION):
                with contextlib.suppress(*_GARBAGE):
                    self._record(json.loads(line) if line.lstrip().startswith(b"{") else _from_text(line))

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
            with contextlib.suppress(*_GARBAGE):
                self._record(json.loads(line), keep=self._forward)

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

    def _record(self, entry: dict[str, Any], *, keep: bool = True) -> None:
        """Take in one entry, numbers by name with a finite `step` or `epoch` among them, and keep it in the stream."""
        values = {name: finite(value) for name, value in entry.items() if _is_number(value)}
        if all(isinstance(values.get(name, "nan"), str) for name in ("step", "epoch")):
            return
        with self._lock, self._troubles.kept():
            step = values.get("step")
            if isinstance(step, (int, float)):
                values["step"] = step = int(step)
            else:
                step = self.step
            # What is printed and what is logged come by two ways, and the later news need not be of the later step.
            if self.step is None or (step is not None and step >= self.step):
                self.step = step
                self.latest.update({name: value for name, value in values.items() if name not in _NO_METRICS})
            if keep:
                line = {"at": round(time.time(), 3), "attempt": self._attempt, **values}
                self._stream.append(json.dumps(line).encode() + b"\n")


def _from_text(line: bytes) -> dict[str, Any]:
    return {name.decode(): _number(text.decode()) for name, text in _PAIR.findall(line)}


def _number(text: str) -> float:
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
