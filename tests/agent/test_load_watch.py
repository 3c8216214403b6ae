"""How busy a host is, on its way into the run directory."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from runctl.agent.load import LoadWatch
from runctl.agent.troubles import Troubles
from runctl.hosts.load import HostLoad
from runctl.rundir import RunDir

SHARES = {"cpu", "memory"}


def watched(monkeypatch: pytest.MonkeyPatch, rundir: RunDir, samples: int) -> LoadWatch:
    """A watch that has taken so many samples and ended."""
    monkeypatch.setattr(LoadWatch, "INTERVAL_S", 0.01)
    taken: list[dict[str, float]] = []
    sample = HostLoad.sample

    def counted(self: HostLoad) -> dict[str, float]:
        taken.append(sample(self))
        return taken[-1]

    monkeypatch.setattr(HostLoad, "sample", counted)
    watch = LoadWatch(rundir, 2, 0, Troubles())
    watch.start()
    deadline = time.monotonic() + 30
    while len(taken) < samples and time.monotonic() < deadline:
        time.sleep(0.01)
    watch.end()
    return watch


def test_a_line_stands_for_three_samples_and_the_first_comes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rundir = RunDir(str(tmp_path / "run"))
    watch = watched(monkeypatch, rundir, 10)
    usage = rundir.usage()
    assert watch.latest.keys() >= SHARES and all(0 <= share <= 1 for share in watch.latest.values())
    assert len(usage) >= 4 and all(one.keys() >= {"at", "attempt", *SHARES} for one in usage)
    assert {one["attempt"] for one in usage} == {2}


def test_on_object_storage_there_are_few_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    rundir = RunDir("memory://load-watch/run")
    watched(monkeypatch, rundir, 130)
    assert len(rundir.usage()) >= 40
    assert len(rundir.store.names("usage.jsonl")) <= 4


def test_a_container_counts_by_what_it_may_have(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 1000000\nuser_usec 1\n")
    (tmp_path / "memory.max").write_text(f"{1 << 30}\n")
    (tmp_path / "memory.current").write_text(f"{768 << 20}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {256 << 20}\n")
    load = HostLoad(tmp_path)
    load.sample()
    time.sleep(0.2)
    (tmp_path / "cpu.stat").write_text("usage_usec 1200000\nuser_usec 1\n")
    shares = load.sample()
    assert shares["memory"] == 0.5
    assert 0.2 <= shares["cpu"] <= 0.5, "0.2 s of the 2 × 0.2 s or a little more that there were"


def test_a_container_without_bounds_is_its_host(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert HostLoad(tmp_path).sample().keys() >= SHARES
