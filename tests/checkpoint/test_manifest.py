"""A checkpoint is what its manifest says, to the byte, or it is none."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.manifest import Manifest
from runctl.errors import CheckpointCorrupt
from runctl.spec import Retention


def make(
    folder: Path,
    step: int,
    payload: bytes = b"weights",
    metrics: dict[str, float] | None = None,
    created_at: float | None = None,
) -> Path:
    """A finished checkpoint with one file of data."""
    aside = folder / f".tmp-{step}"
    aside.mkdir(parents=True)
    (aside / "data.pt").write_bytes(payload)
    name = manifests.best_hash()
    files = {"data.pt": manifests.hash_file(aside / "data.pt", name)}
    at = time.time() if created_at is None else created_at
    return manifests.publish(aside, Manifest("run", 1, step, 0, 1, name, files, at, metrics=metrics or {}))


def test_what_was_published_verifies(tmp_path: Path) -> None:
    path = make(tmp_path, 123)
    assert path.name == "step-000123"
    assert manifests.verify(path).files["data.pt"].size_bytes == 7


@pytest.mark.parametrize("hash_name", ["xxh3_128", "blake2b"])
def test_one_flipped_bit_is_found(tmp_path: Path, hash_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "best_hash", lambda: hash_name)
    path = make(tmp_path, 1, bytes(1 << 20))
    data = bytearray((path / "data.pt").read_bytes())
    data[777_777] ^= 1
    (path / "data.pt").write_bytes(data)
    with pytest.raises(CheckpointCorrupt, match=r"data\.pt: its bytes are not those that were written"):
        manifests.verify(path)


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (lambda path: (path / "data.pt").write_bytes(b"weight"), "6 bytes, the manifest says 7"),
        (lambda path: (path / "data.pt").unlink(), "cannot be read"),
        (lambda path: (path / "manifest.json").unlink(), "never finished"),
        (lambda path: (path / "manifest.json").write_text('{"step"'), "cannot be read"),
        (lambda path: (path / "manifest.json").write_text("{}"), "cannot be read"),
    ],
)
def test_every_harm_is_named(tmp_path: Path, harm, complaint: str) -> None:
    path = make(tmp_path, 5)
    harm(path)
    with pytest.raises(CheckpointCorrupt, match=complaint):
        manifests.verify(path)


def test_a_folder_under_another_steps_name_is_refused(tmp_path: Path) -> None:
    make(tmp_path, 5).rename(tmp_path / "step-000009")
    with pytest.raises(CheckpointCorrupt, match="its manifest is of step 5"):
        manifests.verify(tmp_path / "step-000009")


def test_publishing_a_step_again_replaces_it(tmp_path: Path) -> None:
    make(tmp_path, 5, b"old")
    make(tmp_path, 5, b"newer")
    assert (tmp_path / "step-000005" / "data.pt").read_bytes() == b"newer"
    assert [p.name for p in tmp_path.iterdir()] == ["step-000005"]


def test_the_newest_that_verifies_is_found_and_the_bad_ones_set_aside(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        make(tmp_path, step)
    (tmp_path / "step-000003" / "data.pt").write_bytes(b"wrong..")
    rejected: list[CheckpointCorrupt] = []
    found = Catalog(tmp_path).newest(rejected.append)
    assert found is not None
    assert found.manifest.step == 2
    assert len(rejected) == 1
    assert "step-000003" in str(rejected[0])
    assert (tmp_path / "bad-step-000003").is_dir()
    assert Catalog(tmp_path).steps() == [1, 2]


def test_no_checkpoint_at_all_is_no_error(tmp_path: Path) -> None:
    assert Catalog(tmp_path / "none").newest(pytest.fail) is None


def test_only_bad_checkpoints_are_an_error_every_time(tmp_path: Path) -> None:
    make(tmp_path, 1)
    (tmp_path / "step-000001" / "data.pt").unlink()
    for _ in range(2):
        with pytest.raises(CheckpointCorrupt, match="none is usable"):
            Catalog(tmp_path).newest(lambda error: None)


def test_a_skipped_step_is_passed_over(tmp_path: Path) -> None:
    make(tmp_path, 1)
    make(tmp_path, 2)
    found = Catalog(tmp_path).newest(pytest.fail, skip=frozenset({2}))
    assert found is not None
    assert found.manifest.step == 1


def test_unfinished_folders_do_not_count_and_are_swept(tmp_path: Path) -> None:
    make(tmp_path, 1)
    (tmp_path / ".tmp-step-000002-99").mkdir()
    (tmp_path / "step-000007").mkdir()
    catalog = Catalog(tmp_path)
    assert catalog.steps() == [1]
    catalog.sweep()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000001", "step-000007"]


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        (Retention(), [8, 9, 10]),
        (Retention(keep_last=0), [9, 10]),
        (Retention(keep_last=2, keep_every=4), [4, 8, 9, 10]),
        (Retention(keep_last=2, keep_best="loss"), [3, 9, 10]),
        (Retention(keep_last=2, keep_best="-loss"), [9, 10]),
    ],
)
def test_retention(tmp_path: Path, retention: Retention, kept: list[int]) -> None:
    for step in range(1, 11):
        make(tmp_path, step, metrics={"loss": abs(step - 3) / 10})
    Catalog(tmp_path).prune(retention)
    assert Catalog(tmp_path).steps() == kept


@pytest.mark.parametrize(("best", "kept"), [("loss", [2, 4, 5]), ("-loss", [3, 4, 5])])
@pytest.mark.parametrize("without", [1, 4])
def test_a_metric_that_is_no_number_is_never_the_best(tmp_path: Path, best: str, kept: list[int], without: int) -> None:
    for step, loss in enumerate([0.4, 0.1, 0.9, 0.5, 0.6], start=1):
        make(tmp_path, step, metrics={"loss": math.nan if step == without else loss})
    Catalog(tmp_path).prune(Retention(keep_last=2, keep_best=best))
    assert Catalog(tmp_path).steps() == kept


def test_where_no_metric_is_a_number_none_is_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        make(tmp_path, step, metrics={"loss": math.nan})
    Catalog(tmp_path).prune(Retention(keep_last=2, keep_best="loss"))
    assert Catalog(tmp_path).steps() == [2, 3]
