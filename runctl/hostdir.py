"""HostDir: the scratch directory of one attempt on one host, between agent and workers.

The only owner of the names in it. Standard library only, for every rank imports it at its start.

    workers/r0.json         what each rank says of itself {pid, rank, local_rank, restart}
    failures/r0-1.json      the uncaught exception of a rank, by restart
    told/begin-0-r0.json    what ranks tell each other before the training begins
    metrics.jsonl           what rank 0 logged through runctl.log; a link into a run directory of this machine
    io/0.out, io/0.err      named pipes: a rank's standard streams, by local rank
    io/0.log                another, for what belongs into the rank's log and not on the terminal
    torchrun/               torchrun's own folder
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from runctl.errors import RunctlError

ENV = "RUNCTL_HOST_DIR"
#: A rank's pipes; what comes through `log` was written after what came through the others.
STREAMS = ("out", "err", "log")
#: Records of metrics whose last line was not written, or not to its end.
_TORN: set[Path] = set()


class HostDir:
    """The names in one host directory, and how they are read and written."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def for_attempt(cls, run_id: str, attempt: int, run_dir: str, base: Path | None = None) -> HostDir:
        """Where an attempt's host directory lies; a pure function, so that a plan can name it.

        Args:
            run_id: the run.
            attempt: its number.
            run_dir: path or URL of the run directory, which tells apart runs of one id below two roots.
            base: the folder for all of one user's; below this host's temporary folder if None.
        """
        import hashlib
        import tempfile

        digest = hashlib.blake2b(run_dir.encode(), digest_size=6).hexdigest()
        base = base or Path(tempfile.gettempdir()) / f"runctl-{os.getuid()}"
        return cls(base / f"{run_id}-{digest}" / f"a{attempt}")

    @classmethod
    def from_environment(cls) -> HostDir | None:
        """The host directory of the attempt that this process belongs to, or None."""
        path = os.environ.get(ENV)
        return cls(path) if path and Path(path).is_dir() else None

    def create(self, nproc: int) -> None:
        """Make the directory, private to this user, with named pipes for each local rank.

        What a killed agent left of an earlier attempt of the run goes: the run's lease is ours.

        Raises:
            RunctlError: if it cannot be made, or if its parent is another user's doing.
        """
        import shutil  # late, here and below: every rank imports this module and none needs that

        run, base = self.path.parent, self.path.parent.parent
        try:
            base.mkdir(exist_ok=True, mode=0o700)
            if base.lstat().st_uid != os.getuid():
                raise RunctlError(f"{base} belongs to another user; set TMPDIR to a folder of your own")
            shutil.rmtree(run, ignore_errors=True)
            for folder in ("workers", "failures", "io"):
                (self.path / folder).mkdir(parents=True)
            for local_rank in range(nproc):
                for stream in STREAMS:
                    os.mkfifo(self.pipe(local_rank, stream), 0o600)
        except OSError as error:
            raise RunctlError(f"cannot make {self.path}: {error.strerror}; TMPDIR chooses another place") from error

    def remove(self) -> None:
        """Remove the directory and all in it, and the run's folder around it if it is empty then."""
        import shutil

        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    def pipe(self, local_rank: int, stream: str) -> Path:
        """The named pipe of a rank's `out`, `err` or `log`."""
        return self.path / "io" / f"{local_rank}.{stream}"

    def agreement(self, restart: int) -> Path:
        """The mapped file through which ranks agree on a step; each restart has its own."""
        return self.path / f"agreement-{restart}"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def keep_metrics_in(self, path: Path) -> None:
        """Have ranks append their metrics straight to a file of the run's: then no death of ours can lose them."""
        self.metrics.symlink_to(path)

    def log_metrics(self, values: dict[str, float]) -> None:
        """Append one line of metrics, as it stands in the run's `metrics.jsonl` (rank 0 alone calls this)."""
        entry = {"at": round(time.time(), 3), "attempt": int(os.environ.get("RUNCTL_ATTEMPT", "1"))}
        line = json.dumps({**entry, **{name: finite(value) for name, value in values.items()}}).encode() + b"\n"
        torn, why = self.metrics in _TORN, "there was room for a part of a line"
        try:
            # What broke off ends before the next begins, or both were lost.
            written = _appended(self.metrics, b"\n" * torn + line)
        except OSError as error:
            written, why = False, str(error.strerror)
        if written:
            _TORN.discard(self.metrics)
        elif not torn:  # a full disk must not end a training for a record
            _TORN.add(self.metrics)
            sys.stderr.write(f"runctl: metrics cannot be written: {why} ({self.metrics}); the training goes on\n")

    def register_worker(self, rank: int, restart: int, status: dict[str, Any]) -> None:
        """A rank says that it lives, and how."""
        self._write(f"workers/r{rank}.json", {"rank": rank, "restart": restart, **status})

    def workers(self) -> list[dict[str, Any]]:
        """What the ranks say of themselves, by rank."""
        return self._read_all("workers")

    def restart(self) -> int:
        """The number of the last restart of the ranks in place; 0 before any."""
        return max((int(worker["restart"]) for worker in self.workers()), default=0)

    def tell(self, name: str, rank: int, value: Any) -> None:
        """A rank tells the others something; see `Meeting.exchange`."""
        (self.path / "told").mkdir(exist_ok=True)
        self._write(f"told/{name}-r{rank}.json", {"rank": rank, "value": value})

    def told(self, name: str) -> dict[int, Any]:
        """What the ranks have told so far under a name, by rank."""
        return {one["rank"]: one["value"] for one in self._read_all("told", f"{name}-r*.json")}

    def write_log(self, local_rank: int, text: str) -> None:
        """Add text to a rank's log, behind what the rank has written itself."""
        with self.pipe(local_rank, "log").open("w", encoding="utf-8", errors="backslashreplace") as pipe:
            pipe.write(text)

    def report_failure(self, rank: int, restart: int, failure: dict[str, Any]) -> None:
        """A rank says why it is about to fail: {message, traceback, at}; no traceback where it exits by itself."""
        self._write(f"failures/r{rank}-{restart}.json", {"rank": rank, "restart": restart, **failure})

    def failures(self, restart: int) -> list[dict[str, Any]]:
        """What the ranks said of their failures after one restart, the earliest first."""
        return sorted(self._read_all("failures", f"r*-{restart}.json"), key=lambda failure: failure["at"])

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

    def _read_all(self, folder: str, names: str = "r*.json") -> list[dict[str, Any]]:
        found = (self._read(path) for path in sorted((self.path / folder).glob(names)))
        return [data for data in found if data is not None]


def finite(value: float) -> float | str:
    """A number as JSON can hold it: it has no word for NaN and the infinities, which are kept as strings."""
    return value if math.isfinite(value) else str(value)


def _appended(path: Path, data: bytes) -> bool:
    """Whether all of it could be appended, at once: others may append too."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        return os.write(descriptor, data) == len(data)
    finally:
        os.close(descriptor)
