"""Rank 0's side of saving, in processes that have more than a training: many files open, children of their own."""

from __future__ import annotations

import fcntl
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.policy import RankPolicy
from runctl.training.meeting import Meeting
from runctl.training.saver import Saver


class Rank0:
    """The one rank of a training without a launcher."""

    def __init__(self, folder: Path) -> None:
        self.catalog = Catalog(folder / "checkpoints")
        self.meeting = Meeting(0, 1)
        policy = RankPolicy(str(self.catalog.folder), "run", launched=False, upload_to=str(folder / "away"))
        self.saver = Saver(policy, self.meeting)

    def save(self, step: int) -> None:
        self.meeting.leave_rank_state(step, {})
        assert self.saver.save({"weight": torch.ones(10)}, step, 0, {}, wait_s=60.0)


@pytest.fixture
def at_exit(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What is to be done at the end of this process, as a forked child inherits it."""
    handlers: list[Callable[[], None]] = []
    monkeypatch.setattr("atexit.register", handlers.append)
    return handlers


@pytest.fixture
def rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_exit: list[Callable[[], None]]) -> Iterator[Rank0]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rank = Rank0(tmp_path)
    yield rank
    for handler in reversed(at_exit):
        handler()
    assert not rank.meeting.host_dir.path.exists()


@pytest.fixture
def many_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_script_may_have_more_files_open_than_select_takes(many_files: None, rank: Rank0) -> None:
    saver = rank.saver
    low, saver._replies = saver._replies, fcntl.fcntl(saver._replies, fcntl.F_DUPFD_CLOEXEC, 1024)
    os.close(low)
    rank.save(1)
    rank.save(2)
    assert rank.catalog.steps()[0] == 1


def test_a_forked_child_that_ends_as_a_script_does_ends_nothing_of_its_parents(
    rank: Rank0, at_exit: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = rank.saver._writer
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        for handler in reversed(at_exit):
            handler()
    rank.save(1)
    assert rank.saver._writer is writer
    rank.saver.finish(60.0)
    assert rank.catalog.steps() == [1]
