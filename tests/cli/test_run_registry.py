"""The index of runs: safe under many writers, fast with many runs, and never the only place where something stands."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from runctl.errors import StorageError
from runctl.registry import Entry, Registry

_WRITE = """
import sys
from pathlib import Path
from runctl.registry import Entry, Registry
registry = Registry(Path(sys.argv[1]))
for number in range(50):
    registry.note(Entry(f"/runs/w{sys.argv[2]}-{number}", f"w{sys.argv[2]}-{number}", "many", "local", "running", 1, 1))
"""


def entry(run_id: str, name: str = "train", state: str = "succeeded", created_at: float = 1.0) -> Entry:
    return Entry(f"/runs/{run_id}", run_id, name, "local", state, created_at, created_at)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "state" / "runs.sqlite")


def test_a_registry_that_was_never_written_is_empty_and_makes_no_file(registry: Registry) -> None:
    assert registry.entries() == [] and registry.newest() is None and registry.named("x") == []
    assert not registry.path.exists()


def test_several_writers_lose_nothing(registry: Registry) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", _WRITE, str(registry.path), str(number)]) for number in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    assert len(registry.entries()) == 200


def test_whoever_makes_the_file_waits_for_another_who_does(registry: Registry) -> None:
    registry.path.parent.mkdir()
    other = sqlite3.connect(registry.path, isolation_level=None, check_same_thread=False)
    other.execute("begin immediate")
    other.execute("create table unfinished (x)")
    end = threading.Timer(0.1, other.rollback)
    end.start()
    registry.note(entry("a"))
    end.join()
    assert [one.id for one in registry.entries()] == ["a"]


def test_a_later_note_keeps_when_the_run_began_and_the_project_of_its_last_launch(registry: Registry) -> None:
    registry.note(Entry("/runs/a", "a", "a", "local", "pending", 5.0, 5.0, "/home/me/before"))
    registry.note(Entry("/runs/a", "a", "a", "local", "pending", 6.0, 6.0, "/home/me/project"))
    registry.note(Entry("/runs/a", "a", "a", "local", "failed", 9.0, 9.0, None, {}, {"step": 3}))
    registry.note(Entry("/runs/a", "a", "a", "local", "pending", 10.0, 10.0, None))
    (found,) = registry.entries()
    assert (found.created_at, found.project, found.state) == (5.0, "/home/me/project", "pending")
    assert found.seen == {"step": 3}  # a launch that begins has seen nothing yet


def test_an_id_goes_before_what_only_begins_so(registry: Registry) -> None:
    registry.note_all([entry("a"), entry("ab"), entry("abc", name="b")])
    assert [one.id for one in registry.named("a")] == ["a"]
    assert {one.id for one in registry.named("ab")} == {"ab"}
    assert {one.id for one in registry.named("b")} == {"abc"}
    assert registry.named("%") == [] and registry.named("_") == []


def test_living_runs_are_told_from_ended_ones(registry: Registry) -> None:
    registry.note_all([entry(state, state=state) for state in ("running", "pending", "interrupted", "failed", "lost")])
    assert {one.id for one in registry.entries(ended=False)} == {"running", "pending", "interrupted", "lost"}
    assert {one.id for one in registry.entries(ended=True)} == {"failed"}, "what was lost may be heard of again"


def test_a_damaged_file_is_named_with_the_way_out(registry: Registry) -> None:
    registry.note(entry("a"))
    registry.path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StorageError, match="delete it and run `runctl reindex`"):
        registry.entries()


def test_the_file_of_another_version_is_refused_and_not_mended(registry: Registry) -> None:
    registry.note(entry("a"))
    with sqlite3.connect(registry.path) as database:
        database.execute("pragma user_version = 99")
    with pytest.raises(StorageError, match="another version of runctl"):
        registry.entries()


def test_the_newest_of_ten_thousand_come_fast_enough_to_be_typed_ahead_of(registry: Registry) -> None:
    registry.note_all([entry(f"run-{number:05}", created_at=number) for number in range(10_000)])
    began = time.monotonic()
    assert [one.id for one in registry.entries(limit=2)] == ["run-09999", "run-09998"]
    assert [one.id for one in registry.named("run-00042")] == ["run-00042"]
    assert time.monotonic() - began < 10  # whether an index is used, benchmarks/listing.py measures
