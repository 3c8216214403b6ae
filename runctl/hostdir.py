"""HostDir: the scratch directory of one attempt on one host, between agent and workers.

The only owner of the names in it. Standard library only, for every rank imports it at its start.

    workers/r0.json         what each rank says of itself {pid, rank, local_rank, restart}
    failures/r0-1.json      the uncaught exception of a rank, by restart
    metrics.jsonl           what rank 0 logged through runctl.log
    io/0.out, io/0.err      named pipes: a rank's standard streams, by local rank
    torchrun/               torchrun's own folder
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

ENV = "RUNCTL_HOST_DIR"
STREAMS = ("out", "err")


class HostDir:
    """The names in one host directory, and how they are read and written."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def for_attempt(cls, run_id: str, attempt: int) -> HostDir:
        """Where an attempt's host directory lies; a pure function, so that a plan can name it."""
        return cls(Path(tempfile.gettempdir()) / f"runctl-{os.getuid()}" / run_id / f"a{attempt}")

    @classmethod
    def from_environment(cls) -> HostDir | None:
        """The host directory of the attempt that this process belongs to, or None."""
        path = os.environ.get(ENV)
        return cls(path) if path and Path(path).is_dir() else None

    def create(self, nproc: int) -> None:
        """Make the directory, private to this user, with a pair of named pipes for each local rank."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in ("workers", "failures", "io"):
            (self.path / folder).mkdir(exist_ok=True)
        for local_rank in range(nproc):
            for stream in STREAMS:
                os.mkfifo(self.pipe(local_rank, stream), 0o600)

    def pipe(self, local_rank: int, stream: str) -> Path:
        """The named pipe of a rank's `out` or `err`."""
        return self.path / "io" / f"{local_rank}.{stream}"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def log_metrics(self, entry: dict[str, Any]) -> None:
        """Append one line of metrics (rank 0 alone calls this)."""
        line = json.dumps(entry).encode() + b"\n"
        descriptor = os.open(self.metrics, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def register_worker(self, rank: int, restart: int, status: dict[str, Any]) -> None:
        """A rank says that it lives, and how."""
        self._write(f"workers/r{rank}.json", {"rank": rank, "restart": restart, **status})

    def workers(self) -> list[dict[str, Any]]:
        """What the ranks say of themselves, by rank."""
        return self._read_all("workers")

    def report_failure(self, rank: int, restart: int, failure: dict[str, Any]) -> None:
        """A rank leaves its uncaught exception behind: {type, message, traceback, at}."""
        self._write(f"failures/r{rank}-{restart}.json", {"rank": rank, "restart": restart, **failure})

    def failures(self) -> list[dict[str, Any]]:
        """The uncaught exceptions so far, the earliest first."""
        return sorted(self._read_all("failures"), key=lambda failure: failure["at"])

    def _write(self, name: str, data: dict[str, Any]) -> None:
        path = self.path / name
        aside = path.with_name(f".tmp-{path.name}-{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):  # the agent has gone and taken its directory along
            aside.write_text(json.dumps(data))
            aside.replace(path)

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            data: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        return data

    def _read_all(self, folder: str) -> list[dict[str, Any]]:
        found = (self._read(path) for path in sorted((self.path / folder).glob("r*.json")))
        return [data for data in found if data is not None]
