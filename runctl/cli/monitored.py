"""What `runctl monitor` shows: of a run, from its run directory, or of any text log."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from runctl.cli import table
from runctl.errors import ConfigError, StorageError
from runctl.stalls import StepWatch

if TYPE_CHECKING:
    from runctl.outcome import Attempt
    from runctl.rundir import RunDir
    from runctl.spec import LaunchSpec
    from runctl.standing import Standing
    from runctl.storage import Store, Tail

#: How much of a log, and of the metrics, is read to begin with (bytes).
_LOG_BYTES, _METRICS_BYTES = 64 << 10, 1 << 20
_SEGMENTS = 400
_POINTS = 2000
_LINES = 40
#: `error` as a word, as in "CUDA error: …" and "ValueError", but not as a metric: error=0.12.
_ALARMING = re.compile(r"(?i:\berror\b(?!\s*[=:]\s*[-+.\d]))|\b[A-Z]\w*(?:Error|Exception)\b|Traceback \(most recent")
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_LONGEST = 1000
#: The agent looks so often; a heartbeat in between tells the same once more.
_LOAD_S = 9.0


@dataclass
class Alert:
    """Something to look at.

    Attributes:
        what: for people.
        count: how often it came.
        at: when it came last (seconds since the epoch).
    """

    what: str
    count: int = 1
    at: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {"what": self.what, "count": self.count, "at": self.at}


@dataclass
class Seen:
    """What there is to show.

    Attributes:
        title: whose.
        series: the newest values of each metric, oldest first; NaN and infinities as words.
        load: likewise of the host's load.
        lines: the newest lines of the log.
        fresh: lines that have come since the last look.
        alerts: oldest first.
        now: where the run stands; None of a mere log.
        attempts: of the run.
        max_usd: what it may cost.
        step: the last one completed.
        trouble: why the run directory could not be read this time.
    """

    title: str
    series: dict[str, deque[float | str]] = field(default_factory=dict)
    load: dict[str, deque[float]] = field(default_factory=dict)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES))
    fresh: list[str] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    now: Standing | None = None
    attempts: list[Attempt] = field(default_factory=list)
    max_usd: float | None = None
    step: int | None = None
    trouble: str = ""

    def alert(self, what: str) -> None:
        """Add an alert; the same one again only counts."""
        for one in self.alerts:
            if one.what == what:
                one.count, one.at = one.count + 1, time.time()
                return
        self.alerts.append(Alert(what, at=time.time()))

    def take_metrics(self, entry: dict[str, Any]) -> None:
        """Add an entry of metrics."""
        from runctl.metrics import PLACES

        step = entry.get("step")
        self.step = step if isinstance(step, int) else self.step
        for name, value in entry.items():
            if name in PLACES:
                continue
            if isinstance(value, str):
                self.alert(f"{name} is {value}" + ("" if self.step is None else f" since step {self._first(name)}"))
            self.series.setdefault(name, deque(maxlen=_POINTS)).append(value)

    def _first(self, name: str) -> int | None:
        """The step at which a metric ceased to be a number."""
        self._since.setdefault(name, self.step)
        return self._since[name]

    def take_lines(self, data: list[str]) -> None:
        """Add lines of the log."""
        for raw in data:
            line = _COLOURS.sub("", raw.rsplit("\r", 1)[-1] if not raw.endswith("\r") else raw.rstrip("\r"))[:_LONGEST]
            self.lines.append(line)
            self.fresh.append(line)
            if _ALARMING.search(line):
                self.alert(line.strip())

    def __post_init__(self) -> None:
        self._since: dict[str, int | None] = {}


class Source(Protocol):
    """Where it comes from."""

    seen: Seen
    pause_s: float

    def look(self) -> bool:
        """Look once more; whether more may come."""


class MonitoredRun:
    """A run, over all of its attempts.

    Args:
        rundir: its run directory.
    """

    def __init__(self, rundir: RunDir) -> None:
        self._rundir = rundir
        self._spec: LaunchSpec = rundir.read_spec()
        self.seen = Seen(self._spec.run.id, max_usd=self._spec.limits.max_usd)
        self.pause_s = 3.0 if "://" in rundir.url else 1.0
        self._metrics = _Lines(*_end_of(rundir.store, "metrics.jsonl", _METRICS_BYTES))
        self._log: _Lines | None = None
        self._attempt = self._told_of = 0
        self._steps = StepWatch()
        self._stalled = False
        self._load_at = 0.0

    def look(self) -> bool:
        """See how it stands; of a run directory that cannot be read, why."""
        from runctl import standing

        seen = self.seen
        seen.fresh.clear()
        try:
            seen.now = now = standing.look(self._rundir, self._spec)
            seen.attempts = self._rundir.attempts()
            self._read_metrics()
            self._read_load(now)
            goes_on = standing.may_go_on(self._rundir, now)
            self._read_log(now, last=not goes_on)
        except StorageError as error:
            if seen.now is None:
                raise
            seen.trouble = str(error)
            return True
        seen.trouble = ""
        if self._told_of != now.attempt:  # metrics are younger than a heartbeat, if they are of this attempt
            seen.step = now.step if now.step is not None else now.resumed_from_step
        self._look_for_stall(now)
        return goes_on

    def _read_metrics(self) -> None:
        for entry in self._metrics.entries():
            self.seen.take_metrics(entry)
            if (attempt := entry.get("attempt", 1)) != self._told_of:
                # The time without a host is no stall, and steps may take another time on the next.
                self._told_of, self._steps = attempt, StepWatch()
            if "step" in entry:
                self._steps.note(entry["step"], float(entry.get("at", 0.0)))

    def _read_load(self, now: Standing) -> None:
        told: list[dict[str, Any]] = []
        if self._load_at == 0.0:  # from then on the heartbeat tells, sooner
            told = _Lines(*_end_of(self._rundir.store, "usage.jsonl", _METRICS_BYTES)).entries()
        if now.load and not now.ended and now.heard_at is not None and now.heard_at - self._load_at > _LOAD_S:
            told.append({"at": now.heard_at, **now.load})
        for one in told:
            self._load_at = max(self._load_at, one["at"])
            for name in ("gpu", "gpu_memory", "cpu", "memory"):
                if name in one:
                    self.seen.load.setdefault(name, deque(maxlen=_POINTS)).append(float(one[name]))

    def _read_log(self, now: Standing, *, last: bool) -> None:
        from runctl.nodelogs import NodeLogs
        from runctl.rundir import log_name

        if now.attempt != self._attempt:
            if self._log is not None:
                self.seen.take_lines(self._log.read(last=True))  # the last words of the one before
            self._log, self._attempt = None, now.attempt
        if self._log is None and self._attempt:
            sources = NodeLogs(self._rundir, self._attempt, 0).sources()
            if sources:
                name = log_name(self._attempt, 0, "r0" if "r0" in sources else sources[0])
                self._log = _Lines(*_end_of(self._rundir.store, name, _LOG_BYTES))
        if self._log is not None:
            self.seen.take_lines(self._log.read(last=last))

    def _look_for_stall(self, now: Standing) -> None:
        # Both by the clock of the host, which need not be ours.
        beats = now.state == "running" and now.heard_at is not None and self._told_of == now.attempt
        stalled_s = self._steps.stalled_s(now.heard_at or 0.0) if beats else None
        if stalled_s is not None and not self._stalled:
            self.seen.alert(f"no new step for {table.duration(stalled_s)}, the last one is {self.seen.step}")
        self._stalled = stalled_s is not None


class MonitoredLog:
    """Any text log.

    Args:
        path: its file, which need not be there yet when it is followed.
        follow: whether it will be looked at again.

    Raises:
        ConfigError: if it cannot be read.
    """

    def __init__(self, path: Path, *, follow: bool) -> None:
        if path.is_dir() or (not follow and not path.exists()):
            raise ConfigError(f"--log {path}: {'a folder' if path.is_dir() else 'no such file'}; name a text file")
        self.seen = Seen(str(path))
        self.pause_s = 0.5
        size_bytes = path.stat().st_size if path.exists() else 0
        skip = max(0, size_bytes - _METRICS_BYTES)
        self._lines = _Lines(_File(path, skip), torn=skip > 0)
        self._follow = follow
        self._steps = StepWatch()
        self._stalled = False

    def look(self) -> bool:
        """Read what has been added; there may always be more."""
        from runctl.metrics import found_in

        seen = self.seen
        seen.fresh.clear()
        lines = self._lines.read(last=not self._follow)
        for entry in found_in("\n".join(lines).encode()):
            seen.take_metrics(entry)
        seen.take_lines(lines)
        self._steps.note(seen.step, time.time())
        stalled_s = self._steps.stalled_s(time.time())
        if stalled_s is not None and not self._stalled:
            seen.alert(f"no new step for {table.duration(stalled_s)}, the last one is {seen.step}")
        self._stalled = stalled_s is not None
        return True


class _File:
    """Reads what is added to a file; one that has become shorter is read from its begin."""

    def __init__(self, path: Path, position: int) -> None:
        self._path = path
        self._position = position

    def read(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as file:
                self._position = self._position if self._position <= os.fstat(file.fileno()).st_size else 0
                file.seek(self._position)
                data = file.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigError(f"--log {self._path}: {error.strerror}") from error
        self._position += len(data)
        yield data


class _Lines:
    """Whole lines of what grows.

    Args:
        tail: reads what has come.
        torn: whether it begins in the midst of a line, which is left out.
    """

    def __init__(self, tail: Tail | _File, torn: bool) -> None:
        self._tail = tail
        self._torn = torn
        self._begun = b""

    def read(self, *, last: bool = False) -> list[str]:
        """Those that have come; of what will not grow any more, the last one needs no end."""
        *whole, self._begun = (self._begun + b"".join(self._tail.read())).split(b"\n")
        if last and self._begun:
            whole, self._begun = [*whole, self._begun], b""
        if self._torn and whole:
            whole, self._torn = whole[1:], False
        return [line.decode(errors="replace") for line in whole]

    def entries(self) -> list[dict[str, Any]]:
        """Those that are JSON objects."""
        found = []
        for line in self.read():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    found.append(entry)
        return found


def _end_of(store: Store, name: str, size_bytes: int) -> tuple[Tail, bool]:
    """A reader of the last so many bytes of a stream, and whether something stands before them."""
    sizes = [stamp.size_bytes for _, stamp in sorted(store.stamps(name).items())]
    # Each segment on object storage is a request, however small.
    skip = max(0, sum(sizes) - size_bytes, sum(sizes[:-_SEGMENTS]))
    return store.tail(name, skip), skip > 0
