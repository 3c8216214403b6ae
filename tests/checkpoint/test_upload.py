"""Checkpoints on object storage: what a reader finds there, whatever happened to an upload."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from test_manifest import make

from runctl.checkpoint import manifest as manifests
from runctl.checkpoint import uploader as uploader_module
from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.remote import RemoteCatalog
from runctl.checkpoint.restore import Restore
from runctl.checkpoint.transfer import Transfer
from runctl.checkpoint.upload import Upload
from runctl.checkpoint.uploader import Uploader
from runctl.errors import CheckpointCorrupt, StorageError
from runctl.spec import Retention
from runctl.storage import Store, open_store


@pytest.fixture
def store(fresh_bucket: str) -> Store:
    return open_store(f"s3://{fresh_bucket}/runs/one")


@pytest.fixture
def remote(store: Store) -> RemoteCatalog:
    return RemoteCatalog(store)


@pytest.fixture
def local(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "local")


@pytest.fixture
def uploader(store: Store, local: Catalog) -> Iterator[tuple[Uploader, list[str]]]:
    said: list[str] = []
    uploader = Uploader(local, store.url, Retention(), said.append)
    yield uploader, said
    uploader.end()


def eventually(what: Callable[[], object], timeout_s: float = 40) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


def restore(into: Path, remote: RemoteCatalog, said: list[str] | None = None) -> Restore:
    return Restore(Catalog(into), remote, [].append if said is None else said.append, threading.Event())


def s3_client():
    return boto3.Session().client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])


def key(store: Store, name: str) -> dict[str, str]:
    bucket, _, prefix = store.url.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": f"{prefix}/{name}"}


def flip(store: Store, name: str) -> None:
    """Change a byte of an object and leave its size."""
    data = bytearray(store.read(name) or b"")
    data[len(data) // 2] ^= 1
    store.write(name, bytes(data))


def published(remote: RemoteCatalog, folder: Path, *steps: int) -> None:
    for step in steps:
        remote.publish(make(folder, step, f"weights of {step}".encode()), set())


# --- publishing ---


def test_a_large_checkpoint_with_folders_comes_back_to_the_byte(store, remote, tmp_path: Path) -> None:
    aside = tmp_path / "there" / ".tmp-1"
    (aside / "files/sub folder").mkdir(parents=True)
    (aside / "data.pt").write_bytes(os.urandom((40 << 20) + 12345))
    (aside / "files/sub folder/model.safetensors").write_bytes(b"small")
    (aside / "empty").write_bytes(b"")
    hash_name = manifests.best_hash()
    names = ("data.pt", "files/sub folder/model.safetensors", "empty")
    files = {name: manifests.hash_file(aside / name, hash_name) for name in names}
    path = manifests.publish(aside, manifests.Manifest("run", 1, 7, 0, 1, hash_name, files))
    remote.publish(path, set())
    assert remote.steps() == [7]
    assert store.read("checkpoints/LATEST") == b"step-000007\n"
    head = s3_client().head_object(**key(store, "checkpoints/step-000007/data.pt"))
    assert head["ETag"].strip('"').endswith("-6"), "it travelled in parts of 8 MiB"

    found = restore(tmp_path / "here", remote).newest()
    assert found is not None
    assert found.path == tmp_path / "here/step-000007"
    assert manifests.verify(found.path) == manifests.read(path)
    assert [p.name for p in (tmp_path / "here").iterdir()] == ["step-000007"]


def test_the_manifest_comes_after_all_files_and_latest_last(store, remote, tmp_path, monkeypatch) -> None:
    order: list[str] = []
    put_file, write = store.put_file, store.write
    monkeypatch.setattr(store, "put_file", lambda *a: (put_file(*a), order.append(a[1])))
    monkeypatch.setattr(store, "write", lambda name, data: (write(name, data), order.append(name)))
    published(remote, tmp_path, 3)
    assert [name.rsplit("/", 1)[-1] for name in order] == ["data.pt", "manifest.json", "LATEST"]


def test_an_upload_that_fails_leaves_no_checkpoint_and_goes_on_where_it_ended(
    store, remote, local, monkeypatch
) -> None:
    make(local.folder, 5)
    upload = Upload(local, remote, Retention())
    write, carried = store.write, []
    put_file = store.put_file
    monkeypatch.setattr(store, "put_file", lambda *a: (carried.append(a[1]), put_file(*a)))
    monkeypatch.setattr(store, "write", lambda name, data: (_ for _ in ()).throw(StorageError("no more")))
    manifest = upload.pending()
    assert manifest is not None
    for _ in range(2):
        with pytest.raises(StorageError):
            upload.carry(manifest)
        assert remote.steps() == []
        assert restore(local.folder.parent / "other", remote).newest() is None
    monkeypatch.setattr(store, "write", write)
    upload.carry(manifest)
    assert carried == ["checkpoints/step-000005/data.pt"]
    assert upload.pending() is None
    assert remote.steps() == [5]
    assert sorted(path.name for path in local.folder.iterdir()) == ["step-000005"], "nothing is left aside"


def test_a_step_that_is_reached_again_is_no_checkpoint_while_it_changes(store, remote, tmp_path, monkeypatch) -> None:
    published(remote, tmp_path, 5)
    newer = make(tmp_path, 5, b"other weights")
    put_file = store.put_file
    during: list[list[int]] = []
    monkeypatch.setattr(store, "put_file", lambda *a: (during.append(remote.steps()), put_file(*a)))
    remote.publish(newer, set())
    assert during == [[]]
    assert remote.manifest(5) == manifests.read(newer)


def test_a_checkpoint_that_is_corrupt_here_is_not_carried(remote, local) -> None:
    upload = Upload(local, remote, Retention())
    (make(local.folder, 2) / "data.pt").write_bytes(b"wrong..")
    manifest = upload.pending()
    assert manifest is not None
    upload.carry(manifest)
    assert len(upload.skipped) == 1
    assert "step-000002/data.pt: its bytes are not those" in upload.skipped[0]
    assert upload.pending() is None
    assert remote.steps() == []


def test_what_ranks_prune_while_it_travels_arrives_whole(store, remote, local, monkeypatch) -> None:
    path = make(local.folder, 1)
    upload = Upload(local, remote, Retention())
    manifest = upload.pending()
    put_file = store.put_file

    def pruned_meanwhile(*call: Any) -> None:
        for one in path.iterdir():
            one.unlink()
        path.rmdir()
        put_file(*call)

    monkeypatch.setattr(store, "put_file", pruned_meanwhile)
    upload.carry(manifest)
    assert remote.manifest(1).step == 1


def test_what_a_clock_that_is_behind_dates_before_what_is_there_is_pending(remote, local, tmp_path) -> None:
    now = time.time()
    remote.publish(make(local.folder, 100, created_at=now + 300), set())  # restored from a host whose clock was ahead
    upload = Upload(local, remote, Retention())
    upload.begin()
    for step in (110, 120):
        make(local.folder, step, created_at=now - step)
        upload.carry(upload.pending())
        found = restore(tmp_path / f"host-{step}", remote).newest()
        assert found is not None
        assert found.manifest.step == step
    assert upload.pending() is None


def test_after_a_resume_from_an_earlier_step_what_comes_since_is_pending(remote, local) -> None:
    for step in (10, 20):
        remote.publish(make(local.folder, step), set())
    local.supersede([20], attempt=2)  # checkpoint.resume=10, as an attempt begins
    remote.supersede([20])
    upload = Upload(local, remote, Retention())
    upload.begin()
    assert upload.pending() is None
    for step in (15, 20):
        make(local.folder, step, b"other weights")
        upload.carry(upload.pending())
    assert upload.pending() is None
    assert remote.manifest(20) == manifests.read(local.path(20))


def test_a_corrupt_checkpoint_does_not_keep_the_one_before_it_here(remote, local) -> None:
    for step in (1, 2):
        make(local.folder, step)
    (make(local.folder, 3) / "data.pt").write_bytes(b"wrong..")
    upload = Upload(local, remote, Retention())
    for _ in range(2):
        upload.carry(upload.pending())
    assert upload.pending() is None
    assert remote.steps() == [2]
    make(local.folder, 3, b"saved anew")
    upload.carry(upload.pending())
    assert remote.steps() == [2, 3]


# --- the end of things ---


@pytest.mark.parametrize(
    ("retention", "kept"),
    [(Retention(keep_last=0), [4, 5]), (Retention(), [3, 4, 5]), (Retention(keep_last=2, keep_every=2), [2, 4, 5])],
)
def test_retention(remote, local, retention: Retention, kept: list[int]) -> None:
    upload = Upload(local, remote, retention)
    for step in range(1, 6):
        make(local.folder, step)
        upload.carry(upload.pending())
    assert remote.steps() == kept == sorted(upload.durable)


def test_pruning_does_not_count_what_is_not_whole(store, remote, local, tmp_path) -> None:
    published(remote, tmp_path / "other host", 1, 2, 8, 9)
    store.delete("checkpoints/step-000008/data.pt")
    store.write("checkpoints/step-000009/data.pt", b"cut")
    upload = Upload(local, remote, Retention(keep_last=2))
    upload.begin()
    assert sorted(upload.durable) == [1, 2]
    make(local.folder, 3)
    upload.carry(upload.pending())
    assert sorted(upload.durable) == [2, 3]


def test_what_a_killed_upload_left_is_removed_and_nothing_of_others(store, remote, tmp_path) -> None:
    published(remote, tmp_path, 1)
    store.write("checkpoints/step-000002/data.pt", b"half")
    client = s3_client()
    mine = key(store, "checkpoints/step-000003/data.pt")
    other = {**mine, "Key": "runs/two/checkpoints/step-000003/data.pt"}
    for one in (mine, other):
        client.create_multipart_upload(**one)
    remote.abort()
    remote.sweep()
    left = client.list_multipart_uploads(Bucket=mine["Bucket"]).get("Uploads", [])
    assert [one["Key"] for one in left] == [other["Key"]]
    assert store.names("checkpoints/step-000002") == []
    assert remote.steps() == [1]


def test_parts_of_a_try_that_failed_do_not_stay(store, remote, local, monkeypatch) -> None:
    make(local.folder, 1)
    upload = Upload(local, remote, Retention())
    put_file = store.put_file

    def fail(source: Path, name: str, moved: object) -> None:
        s3_client().create_multipart_upload(**key(store, name))
        raise StorageError("the network is gone, for aborting too")

    monkeypatch.setattr(store, "put_file", fail)
    with pytest.raises(StorageError):
        upload.carry(upload.pending())
    monkeypatch.setattr(store, "put_file", put_file)
    upload.carry(upload.pending())
    assert "Uploads" not in s3_client().list_multipart_uploads(Bucket=key(store, "")["Bucket"])
    assert remote.steps() == [1]


# --- restoring ---


def test_corrupt_objects_are_named_and_the_one_before_is_used(store, remote, tmp_path) -> None:
    published(remote, tmp_path, 1, 2, 3)
    flip(store, "checkpoints/step-000003/data.pt")
    store.write("checkpoints/step-000002/manifest.json", b"{")
    said: list[str] = []
    found = restore(tmp_path / "here", remote, said).newest()
    assert found is not None
    assert found.manifest.step == 1
    errors = [text for text in said if "going back" in text]
    assert f"{store.url}/checkpoints/step-000003/data.pt: its bytes are not those that were written" in errors[0]
    assert "step-000002: its manifest.json cannot be read" in errors[1]
    assert remote.steps() == [1], "nobody looks at them again"


def test_all_corrupt_is_an_error_every_time(store, remote, tmp_path) -> None:
    published(remote, tmp_path, 1)
    store.delete("checkpoints/step-000001/data.pt")
    for _ in range(2):
        with pytest.raises(CheckpointCorrupt, match="none is usable"):
            restore(tmp_path / "here", remote).newest()


def test_none_at_all_is_no_error(remote, tmp_path) -> None:
    assert restore(tmp_path / "here", remote).newest() is None


def test_a_manifest_cannot_make_files_elsewhere(store, remote, tmp_path) -> None:
    published(remote, tmp_path, 1)
    text = (store.read("checkpoints/step-000001/manifest.json") or b"").replace(b"data.pt", b"../data.pt")
    store.write("checkpoints/step-000001/manifest.json", text)
    with pytest.raises(CheckpointCorrupt, match="lies outside"):
        remote.fetch(1, tmp_path, threading.Event())


@pytest.mark.parametrize(("here", "there", "newest"), [([1, 3], [1, 2], 3), ([1, 2], [2, 4], 4)])
def test_the_newest_of_both_places_is_used(remote, tmp_path, here, there, newest: int) -> None:
    published(remote, tmp_path / "up", *there)
    for step in here:
        make(tmp_path / "here", step)
    found = restore(tmp_path / "here", remote).newest()
    assert found is not None
    assert found.manifest.step == newest


def test_a_restore_survives_a_short_outage(s3, remote, tmp_path) -> None:
    published(remote, tmp_path, 1)
    s3.shut()
    threading.Timer(3, s3.open).start()
    said: list[str] = []
    found = restore(tmp_path / "here", remote, said).newest()
    assert found is not None
    assert "tried again" in said[0]


def test_how_far_it_has_come_is_told_in_both_directions(store, remote, local, tmp_path) -> None:
    size = (20 << 20) + 7
    make(local.folder, 1, os.urandom(size))
    for way in ("up", "down"):
        seen: list[tuple[int | None, int, int]] = []
        transfer = Transfer(lambda now, seen=seen: seen.append((now.step, now.moved_bytes, now.size_bytes)))
        if way == "up":
            upload = Upload(local, remote, Retention(), transfer)
            upload.carry(upload.pending())
        else:
            said: list[str] = []
            found = Restore(Catalog(tmp_path / "here"), remote, said.append, threading.Event(), transfer).newest()
            assert found is not None
            assert said[0].startswith(f"restoring checkpoint step 1 from {remote.url(1)}: 21.0 MB")
            assert said[1].startswith("restored in ")
        assert seen[0] == (1, 0, size)
        assert sorted(moved for _, moved, _ in seen[1:-1])[-1] == size
        assert len(seen) >= 5, "part by part"
        assert seen[-1][0] is None


# --- the process ---


def test_an_upload_survives_an_outage_and_carries_only_the_newest_then(s3, remote, local, uploader) -> None:
    upload, said = uploader
    make(local.folder, 1)
    eventually(lambda: upload.poll() or upload.durable == [1])
    s3.shut()
    for step in (2, 3, 4):
        make(local.folder, step)
    eventually(lambda: upload.poll() or upload.failing)
    time.sleep(3)
    for step in (5, 6):
        make(local.folder, step)
    s3.open()
    eventually(lambda: upload.poll() or upload.durable[-1:] == [6])
    upload.finish()
    eventually(lambda: upload.poll() or upload.finished)
    assert remote.steps()[0] == 1
    assert remote.steps()[-1] == 6
    assert 5 not in remote.steps()
    assert len(said) == 1
    assert "tried again until it works" in said[0]


def test_a_killed_upload_is_started_again(remote, local, uploader) -> None:
    upload, _ = uploader
    make(local.folder, 1)
    eventually(lambda: upload.poll() or upload.durable == [1])
    os.kill(upload.pid, signal.SIGKILL)
    make(local.folder, 2)
    upload.finish()
    eventually(lambda: upload.poll() or upload.finished)
    assert remote.steps() == upload.durable == [1, 2]


def test_the_process_runs_at_idle_priority_and_holds_little(store, local, uploader) -> None:
    upload, _ = uploader
    make(local.folder, 1, os.urandom(150 << 20))
    eventually(lambda: upload.poll() or upload.pid)
    process, peak = psutil.Process(upload.pid), 0
    eventually(lambda: os.sched_getscheduler(process.pid) == os.SCHED_IDLE)
    while not upload.durable:
        upload.poll()
        peak = max(peak, process.memory_info().rss)
        time.sleep(0.05)
    assert peak < 256 << 20
    print(f"peak {peak / 1e6:.0f} MB")


def test_a_process_that_cannot_be_started_is_said_and_tried_again(local, remote, uploader, monkeypatch) -> None:
    upload, said = uploader
    make(local.folder, 1)
    with monkeypatch.context() as patch:
        patch.setattr(uploader_module, "_PACKAGE_DIR", str(local.folder / "gone"))
        for _ in range(3):
            upload.poll()
    assert "its process cannot be started" in upload.failing
    assert str(local.folder / "gone") in said[0]
    assert len(said) == 1
    eventually(lambda: upload.poll() or upload.durable == [1])
    assert upload.failing is None


@pytest.mark.parametrize("named_by", ["run.root=…", "checkpoint.url=…"])
def test_an_error_names_what_chose_the_place(s3, local, tmp_path, named_by: str) -> None:
    said: list[str] = []
    make(local.folder, 1)
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    for url in (f"s3://{s3.bucket()}-missing/one", str(blocked / "one")):
        upload = Uploader(local, url, Retention(), said.append, named_by=named_by)
        try:
            eventually(lambda: upload.poll() or upload.failing)  # noqa: B023 (called here)
        finally:
            upload.end()
        assert f"choose another place with {named_by}" in said[-1]
    assert len(said) == 2


def test_without_a_checkpoint_there_is_no_process(uploader) -> None:
    upload, _ = uploader
    upload.poll()
    assert upload.pid is None
    upload.finish()
    assert upload.finished
