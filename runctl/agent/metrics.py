"""Metrics: what rank 0 prints or logs about its steps, as lines of `metrics.jsonl`."""

from __future__ import annotations

import contextlib
import json
import math
import re
import threading
import time
from typing import Any

from runctl.agent.troubles import Troubles
from runctl.hostdir import HostDir
from runctl.storage import Stream

_PAIR = re.compile(
    rb"(?:^|[\s,;|(\[])([A-Za-z_][\w./-]*)\s*[=:]\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?inf|nan)(?![\w.])"
)
_POSITION = (b"step", b"epoch")
#: What a line raises that only looks like metrics: broken JSON, a number beyond all bounds, brackets without end.
_GARBAGE = (ValueError, OverflowError, RecursionError)


class MetricsLog:
    """Collects metrics from rank 0's output and from `runctl.log`, and keeps the latest value of each.

    A line counts if it names a step or an epoch (`step=120 loss=0.31`) or is a JSON object that does.
    """

    def __init__(self, stream: Stream, attempt: int, host_dir: HostDir, troubles: Troubles) -> None:
        self._stream = stream
        self._troubles = troubles
        self._attempt = attempt
        self._file = host_dir.metrics
        self._offset = 0
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
                self._record(json.loads(line))

    def flush(self) -> None:
        with self._lock, self._troubles.kept():
            self._stream.flush()

    def close(self) -> None:
        self.poll()
        with self._lock, self._troubles.kept():
            self._stream.close()

    def _record(self, entry: dict[str, Any]) -> None:
        """Keep one entry: numbers by name, a finite `step` or `epoch` among them."""
        values = {name: _finite(value) for name, value in entry.items() if _is_number(value)}
        if all(isinstance(values.get(name, "nan"), str) for name in ("step", "epoch")):
            return
        with self._lock, self._troubles.kept():
            if isinstance(values.get("step"), (int, float)):
                values["step"] = self.step = int(values["step"])
            self.latest.update({name: value for name, value in values.items() if name != "step"})
            line = {"at": round(time.time(), 3), "attempt": self._attempt, **values}
            self._stream.append(json.dumps(line).encode() + b"\n")


def _from_text(line: bytes) -> dict[str, Any]:
    return {name.decode(): _number(text.decode()) for name, text in _PAIR.findall(line)}


def _number(text: str) -> float:
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _finite(value: float) -> float | str:
    """JSON has no word for NaN and the infinities: they are kept as strings."""
    return value if math.isfinite(value) else str(value)
