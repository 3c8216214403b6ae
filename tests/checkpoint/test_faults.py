"""Checkpoints that travel through a network and a storage that fail: what arrives is whole, or it is no checkpoint."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import s3fs
from faulty import KINDS, Proxy
from test_manifest import make

from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.remote import RemoteCatalog
from runctl.checkpoint.restore import Restore
from runctl.checkpoint.uploader import Uploader
from runctl.errors import CheckpointCorrupt, StorageError
from runctl.spec import Retention
from runctl.storage import Store, open_store

LARGE = (16 << 20) + 12345  # three parts


@pytest.fixture
def bucket(s3) -> str:
    return s3.bucket()


@pytest.fixture
def proxy(s3, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Between every store that is opened from now on and the server."""
    proxy = Proxy(s3.port, seed=1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    s3fs.S3FileSystem.clear_instance_cache()
    yield proxy
    proxy.close()


@pytest.fixture
def store(proxy: Proxy, bucket: str) -> Store:
    return open_store(f"s3://{bucket}/runs/one")


def once(fault: str, method: str, wanted: str):
    """A choice that has one request fail."""
    left = [fault]

    def choose(verb: str, path: str, body: bytes) -> str | None:
        return left.pop() if left and verb == method and wanted in path else None

    return choose


def uploads(s3, bucket: str) -> list[str]:
    """Uploads that were begun and neither completed nor discarded, past the proxy."""
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{s3.port}")
    return [one["Key"] for one in client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]


@pytest.mark.parametrize("fault", [kind for kind in KINDS if kind != "answer cut"])
def test_a_part_that_fails_is_sent_again(store, proxy, s3, bucket, tmp_path: Path, fault: str) -> None:
    source = tmp_path / "data.pt"
    source.write_bytes(os.urandom(LARGE))
    proxy.choose = once(fault, "PUT", "partNumber=2")
    store.put_file(source, "data.pt")
    assert proxy.done[fault] == 1
    assert store.read("data.pt") == source.read_bytes()
    assert uploads(s3, bucket) == []


@pytest.mark.parametrize("fault", KINDS)
def test_a_download_that_fails_half_way_goes_on(store, proxy, tmp_path: Path, fault: str) -> None:
    data = os.urandom(LARGE)
    store.write("data.pt", data)
    proxy.choose = once(fault, "GET", "data.pt")
    store.get_file("data.pt", tmp_path / "data.pt", LARGE, threading.Event())
    assert proxy.done[fault] == 1
    assert (tmp_path / "data.pt").read_bytes() == data


@pytest.mark.parametrize("fault", KINDS)
def test_a_small_object_is_read_and_written_whole(store, proxy, fault: str) -> None:
    proxy.choose = once(fault, "PUT", "status.json")
    store.write("status.json", b"some state")
    proxy.choose = once(fault, "GET", "status.json")
    assert store.read("status.json") == b"some state"


def test_a_byte_that_flips_on_the_way_there_is_refused(store, proxy, s3, bucket, tmp_path: Path) -> None:
    (tmp_path / "data.pt").write_bytes(os.urandom(LARGE))
    for name, wanted in (("data.pt", "partNumber=2"), ("small", "small")):
        source = tmp_path / name
        if name == "small":
            source.write_bytes(b"a whole body")
        proxy.choose = once("flip", "PUT", wanted)
        with pytest.raises(StorageError, match="BadDigest"):
            store.put_file(source, name)
        assert store.read(name) is None
    assert proxy.done["flip"] == 2
    assert uploads(s3, bucket) == []


@pytest.mark.parametrize("name", ["data.pt", "manifest.json"])
def test_a_byte_that_flips_on_the_way_back_is_not_accepted_and_harms_nothing(
    store, proxy, tmp_path: Path, name: str
) -> None:
    remote = RemoteCatalog(store)
    remote.publish(make(tmp_path / "there", 1, os.urandom(LARGE)), set())
    proxy.choose = once("flip the answer", "GET", name)
    said: list[str] = []
    found = Restore(Catalog(tmp_path / "here"), remote, said.append, threading.Event()).newest()
    assert proxy.done["flip the answer"] == 1
    assert found is not None
    assert manifests.verify(found.path) == manifests.read(tmp_path / "there/step-000001")
    assert remote.steps() == [1], "a whole checkpoint is not set aside"


def test_bytes_that_are_always_wrong_are_never_accepted(store, proxy, tmp_path: Path) -> None:
    remote = RemoteCatalog(store)
    remote.publish(make(tmp_path / "there", 1, os.urandom(LARGE)), set())
    proxy.choose = lambda method, path, body: "flip the answer" if method == "GET" and "data.pt" in path else None
    with pytest.raises(CheckpointCorrupt, match="its bytes are not those"):
        remote.fetch(1, _made(tmp_path / "aside"), threading.Event())


def test_a_server_that_falls_silent_is_an_error_soon_and_the_part_comes_again(store, proxy, tmp_path: Path) -> None:
    data = os.urandom(LARGE)
    store.write("data.pt", data)
    proxy.choose = once("stall", "GET", "data.pt")
    store.get_file("data.pt", tmp_path / "data.pt", LARGE, threading.Event())
    assert proxy.done["stall"] == 1
    assert (tmp_path / "data.pt").read_bytes() == data


@pytest.mark.slow
def test_everything_listed_verifies_though_requests_fail_and_the_storage_goes_away(
    store, proxy, s3, bucket, tmp_path: Path
) -> None:
    local, remote = Catalog(tmp_path / "local"), RemoteCatalog(store)
    said: list[str] = []
    upload = Uploader(local, store.url, Retention(keep_last=100), said.append)
    steps = itertools.count(1)
    proxy.rate = 0.1

    def train_until(done, what: str) -> None:
        """Checkpoints keep coming, and nobody waits for any."""
        deadline = time.monotonic() + 60
        while not done():
            assert time.monotonic() < deadline, what
            make(local.folder, next(steps), os.urandom(LARGE))
            upload.poll()
            time.sleep(0.3)

    try:
        train_until(lambda: len(upload.durable) >= 2, "two arrive")
        proxy.down = True
        train_until(lambda: upload.failing, "the outage is noticed")
        before, outage = list(upload.durable), next(steps)
        train_until(lambda: next(steps) > outage + 6, "they go on")
        assert upload.durable == before
        proxy.down = False
        train_until(lambda: upload.durable and upload.durable[-1] > outage, "one of later arrives")
        upload.finish()
        deadline = time.monotonic() + 60
        while not upload.finished:
            upload.poll()
            assert time.monotonic() < deadline, upload.failing
            time.sleep(0.05)
    finally:
        upload.end()
    assert sum(proxy.done[kind] for kind in KINDS) > 0
    assert uploads(s3, bucket) == [], "nothing is left half-way"
    newest = local.steps()[-1]
    listed = RemoteCatalog(store).steps()
    assert listed[-1] == newest
    # Of those that were made during the outage at most the one in flight and the newest behind it have arrived.
    assert len(listed) < len(local.steps())

    found = Restore(Catalog(tmp_path / "here"), remote, said.append, threading.Event()).newest()
    assert found is not None
    assert found.manifest.step == newest, "through the faults"
    proxy.rate = 0.0
    for step in listed:
        aside = _made(tmp_path / f"aside-{step}")
        assert remote.fetch(step, aside, threading.Event()) == manifests.read(local.path(step))


def test_of_all_that_come_while_one_is_in_flight_only_the_newest_is_carried(s3, proxy, store, tmp_path: Path) -> None:
    local, said = Catalog(tmp_path / "local"), []
    sent, go_on = [], threading.Event()

    def choose(method: str, path: str, body: bytes) -> None:
        if method == "PUT" and "/step-" in path:
            sent.append(path.split("/step-")[1].split("/", maxsplit=1)[0])
            if "data.pt" in path:
                assert go_on.wait(60)

    proxy.choose = choose
    upload = Uploader(local, store.url, Retention(keep_last=100), said.append)
    try:
        make(local.folder, 1, os.urandom(LARGE))
        _poll_until(upload, lambda: sent)
        for step in range(2, 7):
            make(local.folder, step, os.urandom(LARGE))
        for _ in range(20):
            upload.poll()
            time.sleep(0.05)
        assert set(sent) == {"000001"}, "nothing overtakes what is in flight"
        go_on.set()
        _poll_until(upload, lambda: upload.durable == [1, 6])
        upload.finish()
        _poll_until(upload, lambda: upload.finished)
    finally:
        go_on.set()
        upload.end()
    assert set(sent) == {"000001", "000006"}, "of the others not one byte"
    assert sent == sorted(sent), "one after the other"
    assert RemoteCatalog(store).steps() == [1, 6]
    assert said == []


def _poll_until(upload: Uploader, done, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline, upload.failing
        upload.poll()
        time.sleep(0.05)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
