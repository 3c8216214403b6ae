"""What ranks begin from that torchrun has restarted in place: the newest that their attempt has saved."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runctl import hostdir
from runctl.agreement import Agreement
from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.manifest import Manifest, Watched
from runctl.checkpoint.policy import RankPolicy
from runctl.errors import CheckpointUnloadable
from runctl.hostdir import HostDir
from runctl.training.beginning import begin
from runctl.training.meeting import Meeting

ATTEMPT = 2


class Restarted:
    """The one rank of an attempt, after a restart in place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkpoints"
        self.host_dir = HostDir(folder / "host")
        (self.host_dir.path / "workers").mkdir(parents=True)
        self.former = Agreement.create(self.host_dir.agreement(0), 1)
        self.refused: set[int] = set()
        self.policy = RankPolicy(str(self.folder), "run", ATTEMPT)

    def saved(self, step: int, attempt: int = ATTEMPT, watched: Watched | None = None) -> Path:
        aside = self.folder / f".tmp-{step}"
        aside.mkdir(parents=True)
        return manifests.publish(aside, Manifest("run", attempt, step, 0, 1, "blake2b", {}, watched=watched))

    def begins_at(self, restore: Path | None = None) -> int | None:
        """The step of what it has loaded; None if that is nothing."""
        loaded: list[int | None] = [None]

        def load(path: Path) -> None:
            step = manifests.step_of(path.name)
            if step in self.refused:
                raise KeyError(step)
            loaded.append(step)

        begin(replace(self.policy, restore=restore and str(restore)), Meeting(0, 1), load)
        return loaded[-1]


@pytest.fixture
def restarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Restarted]:
    rank = Restarted(tmp_path)
    monkeypatch.setenv(hostdir.ENV, str(rank.host_dir.path))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    yield rank
    rank.former.close()


def test_what_was_saved_since_counts_and_not_where_the_attempt_began(restarted: Restarted) -> None:
    began = restarted.saved(10, attempt=1)
    restarted.saved(20)
    restarted.saved(30)
    assert restarted.begins_at(began) == 30


def test_if_nothing_was_it_begins_where_the_attempt_did(restarted: Restarted) -> None:
    assert restarted.begins_at() is None
    began = restarted.saved(10, attempt=1)
    restarted.saved(20, attempt=1)  # the agent has passed it over
    assert restarted.begins_at(began) == 10
    assert restarted.begins_at() is None


def test_what_the_script_wrote_by_itself_is_passed_over(restarted: Restarted) -> None:
    restarted.saved(20)
    restarted.saved(30, watched=Watched(["model.pt"], "model.pt"))
    assert restarted.begins_at() == 20


def test_what_does_not_load_is_passed_over_and_if_nothing_does_the_agent_hears_of_it(restarted: Restarted) -> None:
    began = restarted.saved(10, attempt=1)
    restarted.saved(20)
    restarted.refused = {10, 20}
    with pytest.raises(CheckpointUnloadable, match="step 20: KeyError: 20; step 10: KeyError: 10"):
        restarted.begins_at(began)
    assert "step 10: KeyError: 10" in restarted.host_dir.workers()[0]["unloadable"]
    restarted.refused = {20}
    assert restarted.begins_at(began) == 10
    assert (restarted.folder / f"superseded-by-a{ATTEMPT}" / "step-000020").is_dir()


def test_what_the_ranks_before_had_in_writing_is_waited_for(
    restarted: Restarted, monkeypatch: pytest.MonkeyPatch
) -> None:
    restarted.saved(10)
    restarted.former.announce_commit(10)
    restarted.former.announce_writing(20, os.getpid())
    looked = threading.Event()

    def finish() -> None:
        looked.wait(60)
        restarted.saved(20)
        restarted.former.announce_commit(20)

    writer = threading.Thread(target=finish)
    writer.start()

    def hurry(pid: int, idle: bool) -> None:
        assert (pid, idle) == (os.getpid(), False)
        looked.set()

    monkeypatch.setattr("runctl.processes.run_when_idle", hurry)
    try:
        assert restarted.begins_at() == 20
    finally:
        looked.set()
        writer.join()
