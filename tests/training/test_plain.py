"""What a training without a launcher leaves in the temporary folder, and who clears it away."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runctl.checkpoint.policy import RankPolicy
from runctl.training import writer
from runctl.training.beginning import begin
from runctl.training.meeting import Meeting

SCRIPT = """
import sys, time, torch, runctl
ck = runctl.attach(model=torch.nn.Linear(1, 1), folder=sys.argv[1], every="1000steps")
print("begun", flush=True)
for step in ck.steps(int(sys.argv[2])):
    time.sleep(0.05)
"""


class Host:
    """One temporary folder, and trainings that use it."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    def start(self, name: str, steps: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(self.scratch / f"checkpoints of {name}"), str(steps)],
            env={**os.environ, "TMPDIR": str(self.scratch), "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        return process

    def folders(self) -> set[str]:
        return {path.name.rpartition("-")[0] for path in self.scratch.glob("runctl-*/plain-*")}

    def grow_older(self) -> None:
        hour_ago = time.time() - 3600
        for path in self.scratch.glob("runctl-*/plain-*"):
            os.utime(path, (hour_ago, hour_ago))


@pytest.fixture
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="rt-") as scratch:
        yield Host(Path(scratch))


@pytest.mark.slow
def test_what_a_killed_training_left_goes_when_the_next_begins_and_nothing_else(host: Host) -> None:
    killed, living, young = host.start("a", 1000), host.start("b", 1000), host.start("c", 1000)
    killed.kill()
    killed.wait(20)
    host.grow_older()
    young.kill()
    young.wait(20)
    for path in host.scratch.glob(f"runctl-*/plain-{young.pid}-*"):
        os.utime(path)
    assert host.folders() == {f"plain-{one.pid}" for one in (killed, living, young)}
    other = next(host.scratch.glob("runctl-*")) / "a-run"
    other.mkdir()
    os.utime(other, (0, 0))
    try:
        assert host.start("d", 1).wait(60) == 0
        assert host.folders() == {f"plain-{living.pid}", f"plain-{young.pid}"}
        assert other.is_dir()
        assert living.poll() is None
    finally:
        living.kill()
        living.wait(20)


def test_one_that_ends_by_itself_leaves_nothing(host: Host) -> None:
    assert host.start("a", 2).wait(60) == 0
    assert host.folders() == set()


def test_a_rank_that_is_late_at_a_save_is_known_to_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ranks = [Meeting(rank, 2) for rank in range(2)]
    assert [worker["rank"] for worker in ranks[0].host_dir.workers()] == [0, 1]
    assert writer._rank_lives(1, ranks[0].agreement.path)


def test_what_a_killed_writer_left_goes_at_the_next_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    left = tmp_path / "checkpoints" / ".tmp-step-000002-7"
    left.mkdir(parents=True)
    begin(RankPolicy(str(left.parent), "plain", launched=False), Meeting(0, 1), lambda _: None)
    assert list(left.parent.iterdir()) == []
