"""The writer: what it publishes, and what it does not."""

from __future__ import annotations

import mmap
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runctl.checkpoint.catalog import Catalog
from runctl.errors import CheckpointError
from runctl.hostdir import HostDir
from runctl.training import plain, writer
from runctl.training.writer import Job


def job(folder: Path, rank_pids: list[int]) -> Job:
    """A snapshot of two ranks of which only the first has left its state."""
    host_dir = HostDir(folder / "host")
    for name in ("workers", "failures"):
        (host_dir.path / name).mkdir(parents=True)
    for rank, pid in enumerate(rank_pids):
        host_dir.register_worker(rank, 0, {"pid": pid, "local_rank": rank})
    files = [host_dir.path / f"rank-{rank}" for rank in range(2)]
    files[0].write_bytes(b"state")
    return Job(
        folder=str(folder / "checkpoints"), run_id="one", attempt=1, step=3, epoch=0, skeleton={"step": 3},
        size_bytes=mmap.PAGESIZE, rank_files=tuple(map(str, files)), read_back=False,
        agreement=str(host_dir.agreement(0)),
    )  # fmt: skip


def test_a_rank_that_died_before_it_left_its_state_leaves_no_checkpoint(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    with mmap.mmap(-1, mmap.PAGESIZE) as buffer, pytest.raises(CheckpointError, match="rank 1 died"):
        writer.write(job(tmp_path, [os.getpid(), dead.pid]), buffer)
    assert Catalog(tmp_path / "checkpoints").steps() == []
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_rank_that_ended_and_waits_to_be_collected_is_no_living_one(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    with mmap.mmap(-1, mmap.PAGESIZE) as buffer, pytest.raises(CheckpointError, match="rank 1 died"):
        writer.write(job(tmp_path, [os.getpid(), ended.pid]), buffer)
    ended.wait()


def test_a_rank_that_lives_may_be_late_with_its_state(tmp_path: Path) -> None:
    one = job(tmp_path, [os.getpid(), os.getpid()])
    late = subprocess.Popen(["sh", "-c", f"sleep 0.3; echo state > {one.rank_files[1]}"])
    with mmap.mmap(-1, mmap.PAGESIZE) as buffer:
        writer.write(one, buffer)
    late.wait()
    assert sorted(Catalog(tmp_path / "checkpoints").verified(3).files) == ["data.pt", "rank-00000.pt", "rank-00001.pt"]


def test_what_a_killed_writer_of_the_same_pid_left_is_no_hindrance(tmp_path: Path) -> None:
    one = job(tmp_path, [os.getpid()])
    Path(one.rank_files[1]).write_bytes(b"state")
    left = tmp_path / "checkpoints" / f".tmp-step-000003-{os.getpid()}"
    left.mkdir(parents=True)
    (left / "half").touch()
    with mmap.mmap(-1, mmap.PAGESIZE) as buffer:
        assert not (writer.write(one, buffer) / "half").exists()


def test_what_is_left_goes_at_the_next_begin_but_not_from_under_a_writer_at_work(tmp_path: Path) -> None:
    one = job(tmp_path, [os.getpid(), os.getpid()])  # whose second rank is late
    left = tmp_path / "checkpoints" / ".tmp-step-000001-7"
    left.mkdir(parents=True)
    (tmp_path / "snapshot").write_bytes(bytes(mmap.PAGESIZE))
    snapshot, (replies, reply) = os.open(tmp_path / "snapshot", os.O_RDWR), os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "runctl.training.writer", str(snapshot), str(reply)],
        stdin=subprocess.PIPE, pass_fds=(snapshot, reply),
    )  # fmt: skip
    try:
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(one))
        process.stdin.close()
        aside = left.with_name(f".tmp-step-000003-{process.pid}")
        while not aside.exists():
            assert process.poll() is None
            time.sleep(0.02)
        plain.sweep_checkpoints(left.parent)
        assert left.exists() and aside.exists()
        Path(one.rank_files[1]).write_bytes(b"state")
        assert b"error" not in os.read(replies, 1 << 16)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    plain.sweep_checkpoints(left.parent)
    assert [path.name for path in left.parent.iterdir()] == ["step-000003"]


def test_a_pruning_that_was_killed_is_no_hindrance_to_the_next(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    for folder in (catalog.path(3), tmp_path / ".tmp-pruned-step-000003"):
        folder.mkdir()
        (folder / "data.pt").touch()
    catalog.remove(3)
    assert list(tmp_path.iterdir()) == []
