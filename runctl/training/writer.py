"""The writer: a process beside rank 0 that turns snapshots into checkpoints.

    python -m runctl.training.writer SNAPSHOT_DESCRIPTOR REPLY_DESCRIPTOR

Serialising, hashing and the disk are its business, not the training loop's. It runs in a session of its own and
at idle priority, outlives a rank that is killed for as long as it takes to finish what it has, and ends when its
input ends.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import pickle
import platform
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch

from runctl import __version__, processes
from runctl.agreement import Agreement
from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.manifest import FileEntry, Manifest
from runctl.errors import CheckpointError
from runctl.hostdir import HostDir
from runctl.spec import Retention
from runctl.training import plain
from runctl.training.snapshot import fill

DATA = "data.pt"
_RANK_FILES_WAIT_S = 30.0


@dataclass(frozen=True)
class Job:
    """One snapshot to be written.

    Attributes:
        folder: the run's folder of checkpoints.
        skeleton: the state with slots for tensors.
        size_bytes: of the snapshot's buffer.
        rank_files: where each rank leaves its own state for this step.
        read_back: load the file again before it is published.
        agreement: the file in which ranks and agent look for what is committed.
    """

    folder: str
    run_id: str
    attempt: int
    step: int
    epoch: int
    skeleton: dict[str, Any]
    size_bytes: int
    rank_files: tuple[str, ...]
    read_back: bool
    agreement: str
    metrics: dict[str, float] = field(default_factory=dict)
    retention: Retention = field(default_factory=Retention)


def rank_name(rank: int) -> str:
    """The file of a rank's own state within a checkpoint."""
    return f"rank-{rank:05d}.pt"


class _HashingFile:
    """A file that hashes what is written to it, so that it need not be read again for that."""

    def __init__(self, path: Path, hash_name: str) -> None:
        self._file = path.open("wb", buffering=0)
        self._hasher = manifests.new_hasher(hash_name)
        self._size = 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._hasher.update(view)
        self._size += len(view)
        while view:
            view = view[self._file.write(view) :]
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> FileEntry:
        self._file.close()
        return FileEntry(self._size, self._hasher.hexdigest())


def write(job: Job, buffer: mmap.mmap) -> Path:
    """Write one checkpoint aside and publish it.

    Returns:
        Its folder.

    Raises:
        OSError: if the disk refuses.
        CheckpointError: if a rank died before it left its own state: without that a resume would not be exact.
    """
    catalog = Catalog(Path(job.folder))
    aside = catalog.folder / f".tmp-{manifests.folder_name(job.step)}-{os.getpid()}"
    # Left by one that was killed and had our pid, as in a container each start has.
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        hash_name = manifests.best_hash()
        data = _HashingFile(aside / DATA, hash_name)
        torch.save(fill(job.skeleton, buffer), data)
        files = {DATA: data.close()}
        if job.read_back:
            torch.load(aside / DATA, weights_only=True, mmap=True)
        for rank, source in enumerate(job.rank_files):
            if _wait_for(Path(source), rank, Path(job.agreement)):
                shutil.move(source, aside / rank_name(rank))
                files[rank_name(rank)] = manifests.hash_file(aside / rank_name(rank), hash_name)
        manifest = Manifest(
            run_id=job.run_id,
            attempt=job.attempt,
            step=job.step,
            epoch=job.epoch,
            world_size=len(job.rank_files),
            hash=hash_name,
            files=files,
            versions={"python": platform.python_version(), "torch": torch.__version__, "runctl": __version__},
            metrics=job.metrics,
        )
        final = manifests.publish(aside, manifest)
        _announce(job)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    catalog.prune(job.retention)
    return final


def main(snapshot_fd: int, reply_fd: int) -> None:
    """Write what comes until the input ends; answer each with a line of JSON."""
    buffer: mmap.mmap | None = None
    jobs: BinaryIO = sys.stdin.buffer
    while True:
        try:
            job: Job | None = pickle.load(jobs)
        except EOFError:
            return
        if job is None:
            return
        if buffer is None or len(buffer) < job.size_bytes:
            buffer = mmap.mmap(snapshot_fd, max(job.size_bytes, mmap.PAGESIZE))
        began = time.monotonic()
        _be_idle()
        try:
            with plain.in_use(Path(job.folder)):
                path = write(job, buffer)
            reply = {"step": job.step, "path": str(path), "took_s": time.monotonic() - began}
        except Exception as error:  # noqa: BLE001 (the rank decides what to make of it)
            reply = {"step": job.step, "error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(BrokenPipeError):
            os.write(reply_fd, json.dumps(reply).encode() + b"\n")


def _wait_for(path: Path, rank: int, agreement: Path) -> bool:
    """Whether a rank's file comes; a rank that never calls `save` leaves none, its random state is derived then.

    Raises:
        CheckpointError: if the rank has died without it.
    """
    deadline = time.monotonic() + _RANK_FILES_WAIT_S
    while not path.exists():
        if not _rank_lives(rank, agreement) and not path.exists():
            raise CheckpointError(f"rank {rank} died before it left its state")
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _rank_lives(rank: int, agreement: Path) -> bool:
    """Whether a rank of the restart that has this agreement still runs."""
    host_dir = HostDir(agreement.parent)
    ours = (w for w in host_dir.workers() if w["rank"] == rank and host_dir.agreement(w["restart"]) == agreement)
    return any(processes.lives(worker["pid"]) for worker in ours)


def _announce(job: Job) -> None:
    with contextlib.suppress(FileNotFoundError):  # the agent has gone and taken its directory along
        agreement = Agreement(Path(job.agreement))
        agreement.announce_commit(job.step)
        agreement.close()


def _be_idle() -> None:
    """Run only when nobody else wants to, until rank 0 loses patience."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    torch.set_num_threads(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
    sys.stderr.flush()
    # Rank 0 waits for our end; tearing down an interpreter that has torch loaded takes half a second of processor time.
    os._exit(0)
