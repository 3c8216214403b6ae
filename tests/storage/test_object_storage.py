"""Stores and run directories in a bucket, over real HTTP."""

from __future__ import annotations

import errno
import io
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from runctl.errors import StorageError
from runctl.rundir import RunDir
from runctl.spec import RunState
from runctl.storage import Store, open_store
from runctl.storage.publisher import Publisher, SegmentStream

BOUND_S = 20.0


@pytest.fixture
def store(fresh_bucket: str) -> Store:
    return open_store(f"s3://{fresh_bucket}/pre fix")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def eventually(what: Callable[[], object], timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["status.json", "a b.json", "é ü 漢.json", "x%20y#?&+.json", "[1]*.json"])
def test_an_object_is_read_back_as_written(store: Store, name: str) -> None:
    store.write(f"folder/{name}", b"one")
    store.write(f"folder/{name}", b"two")
    assert store.read(f"folder/{name}") == b"two"
    assert store.names("folder") == [name]
    store.delete(f"folder/{name}")
    store.delete(f"folder/{name}")
    assert store.read(f"folder/{name}") is None
    assert store.names("folder") == []


def test_a_stream_is_write_once_segments(store: Store) -> None:
    for text in (b"one\n", b"two\n"):
        stream = store.stream("logs/a1/n0/r0.log")
        stream.append(text)
        stream.close()
    assert store.names("logs/a1/n0/r0.log") == ["000000", "000001"]
    assert b"".join(store.read_stream("logs/a1/n0/r0.log")) == b"one\ntwo\n"


def test_large_output_is_cut_into_bounded_segments(store: Store) -> None:
    line = b"x" * 1023 + b"\n"
    stream = store.stream("big.log")
    for _ in range(20):
        stream.append(line * 1024)
    stream.close()
    segments = [store.read(f"big.log/{name}") or b"" for name in store.names("big.log")]
    assert b"".join(segments) == line * 1024 * 20
    assert max(map(len, segments)) <= 8 << 20


def test_writers_of_one_stream_do_not_overwrite_each_other(store: Store) -> None:
    streams = [store.stream("events.jsonl", writer) for writer in ("launcher", "a1-n0", "a1-n01")]
    for number, stream in enumerate(streams):
        stream.append(b"%d\n" % number)
    for stream in streams:
        stream.close()
        stream.close()
    assert sorted(b"".join(store.read_stream("events.jsonl")).split()) == [b"0", b"1", b"2"]


def test_what_was_appended_becomes_readable_without_closing(store: Store) -> None:
    stream = store.stream("events.jsonl", "launcher")
    stream.append(b"submitted\n")
    eventually(lambda: b"".join(store.read_stream("events.jsonl")) == b"submitted\n")


def test_events_and_metrics_of_many_attempts_come_in_order(fresh_bucket: str) -> None:
    rundir = RunDir(f"s3://{fresh_bucket}/runs/one")
    for attempt in (10, 9, 1):
        stream = rundir.metrics_stream(f"a{attempt}-n0")
        stream.append(b"".join(b'{"attempt": %d, "step": %d}\n' % (attempt, step) for step in (1, 2)))
        stream.close()
    assert [(e["attempt"], e["step"]) for e in rundir.metrics()] == [(1, 1), (1, 2), (9, 1), (9, 2), (10, 1), (10, 2)]
    for writer, at in (("launcher", 3.0), ("a1-n0", 2.0), ("launcher", 1.0)):
        stream = rundir.event_stream(writer)
        stream.append(b'{"at": %f, "event": "x"}\n' % at)
        stream.close()
    assert [event["at"] for event in rundir.events()] == [1.0, 2.0, 3.0]


def test_a_bucket_that_is_not_there_is_named(fresh_bucket: str) -> None:
    with pytest.raises(StorageError, match=r"cannot write s3://no-such-bucket/x/spec\.json: .*bucket does not exist"):
        open_store("s3://no-such-bucket/x").write("spec.json", b"x")


def test_a_closed_port_is_a_storage_error_in_a_bounded_time(s3, store: Store) -> None:
    s3.shut()
    began = time.monotonic()
    for request in (
        lambda: store.read("spec.json"),
        lambda: store.write("spec.json", b"x"),
        lambda: store.names("attempts"),
    ):
        with pytest.raises(StorageError, match="Could not connect to the endpoint"):
            request()
    assert time.monotonic() - began < 3 * BOUND_S
    s3.open()


def test_an_endpoint_that_never_answers_is_a_storage_error_in_a_bounded_time(
    s3, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runctl.storage import remote

    options = remote._options("s3")
    assert options["config_kwargs"]["read_timeout"] * options["config_kwargs"]["retries"]["total_max_attempts"] <= 30
    options["config_kwargs"]["read_timeout"] = 0.5  # the same attempts, sooner
    monkeypatch.setattr(remote, "_options", lambda scheme: options)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent_port}")
    began = time.monotonic()
    with pytest.raises(StorageError, match=r"cannot read .*Read timeout"):
        open_store("s3://bucket/x").read("spec.json")
    assert time.monotonic() - began < BOUND_S


def test_missing_credentials_are_a_storage_error(s3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match="credentials"):
        open_store("s3://bucket/x").read("spec.json")


def test_an_outage_delays_what_is_posted_and_appended_and_nobody_waits(
    s3, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    stream = store.stream("train.log")
    s3.shut()
    began = time.monotonic()
    for number in range(100):
        stream.append(b"%d\n" % number)
        store.post("heartbeat.json", b"%d" % number)
        stream.flush()
    assert time.monotonic() - began < 5, "each of the hundred would wait"
    eventually(lambda: any("tried again" in record.getMessage() for record in caplog.records))
    s3.open()
    eventually(lambda: store.read("heartbeat.json") == b"99")
    stream.close()
    assert b"".join(store.read_stream("train.log")) == b"".join(b"%d\n" % number for number in range(100))
    assert len([record for record in caplog.records if "tried again" in record.getMessage()]) == 1, "said once"


class Disk(io.FileIO):
    """A file on a disk that has room for so many more bytes."""

    room = 1 << 30

    def write(self, data: bytes | memoryview) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fits = memoryview(data)[: self.room]
        self.room -= len(fits)
        return super().write(fits)


class Objects(dict[str, bytes]):
    """A store's objects, as the publisher puts them."""

    def names(self, folder: str) -> list[str]:
        return [name.removeprefix(f"{folder}/") for name in self if name.startswith(f"{folder}/")]

    def put(self, name: str, data: bytes) -> None:
        self[name] = data


def test_a_disk_that_is_full_for_a_while_costs_only_what_it_did_not_take(tmp_path, monkeypatch) -> None:
    disk = Disk(tmp_path / "spool", "w+")

    def spool(*, buffering: int = -1, **named: object) -> io.FileIO | io.BufferedRandom:
        return disk if buffering == 0 else io.BufferedRandom(disk)

    monkeypatch.setattr(tempfile, "TemporaryFile", spool)
    monkeypatch.setattr(Publisher, "INTERVAL_S", 0.01)
    objects = Objects()
    publisher = Publisher(objects)
    stream = SegmentStream(objects, publisher, "train.log", "")
    disk.room = 8
    stream.append(b"one\n")
    with pytest.raises(StorageError, match=r"cannot keep output in .*: No space left on device; TMPDIR chooses"):
        stream.append(b"2" * 100_000 + b"\n")
    publisher.post("heartbeat.json", b"1")
    eventually(lambda: objects.get("train.log/000000") == b"one\n")  # and makes room that way
    disk.room = 1 << 30
    publisher.post("heartbeat.json", b"2")
    eventually(lambda: objects.get("heartbeat.json") == b"2")
    stream.append(b"three\n")
    stream.close()
    assert [objects[name] for name in sorted(objects) if name != "heartbeat.json"] == [b"one\n", b"three\n"]


def test_whatever_goes_wrong_the_publisher_goes_on(monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(Publisher, "INTERVAL_S", 0.01)
    objects, wrong = Objects(), [RuntimeError("nobody thought of it")]

    def put(name: str, data: bytes) -> None:
        if wrong:
            raise wrong.pop()
        objects[name] = data

    monkeypatch.setattr(objects, "put", put)
    Publisher(objects).post("heartbeat.json", b"1")
    eventually(lambda: objects.get("heartbeat.json") == b"1")
    assert "nobody thought of it (tried again until it works" in caplog.text


def test_an_outage_at_the_end_of_a_stream_is_told(s3, store: Store) -> None:
    stream = store.stream("train.log")
    s3.shut()
    stream.append(b"last words\n")
    with pytest.raises(StorageError, match=r"cannot write .*train\.log/000000"):
        stream.close()
    s3.open()
    stream.close()
    assert b"".join(store.read_stream("train.log")) == b"last words\n"


def test_a_late_status_never_comes_after_the_final_one(s3, monkeypatch: pytest.MonkeyPatch) -> None:
    rundir = RunDir(f"s3://{s3.bucket()}/runs/one")
    put, entered = rundir.store.put, threading.Event()  # type: ignore[attr-defined]

    def slow_put(name: str, data: bytes) -> None:
        if b"running" in data:
            entered.set()
            time.sleep(0.5)
        put(name, data)

    monkeypatch.setattr(rundir.store, "put", slow_put)
    rundir.write_status(RunState.RUNNING, 1)
    assert entered.wait(5)
    rundir.write_status(RunState.SUCCEEDED, 1)
    status = rundir.read_status()
    assert status is not None
    assert status["state"] == "succeeded"
    time.sleep(0.6)
    assert rundir.read_status() == status


def test_a_late_status_whose_request_fails_never_comes_after_the_final_one(monkeypatch) -> None:
    objects, under_way, fail, lock = Objects(), threading.Event(), threading.Event(), threading.Lock()

    def put(name: str, data: bytes) -> None:
        if data == b"stopping" and not fail.is_set():
            under_way.set()
            assert fail.wait(15)
            raise StorageError("timed out")
        objects[name] = data

    class Putting:
        """The publisher's lock; a request that is under way fails as soon as somebody else waits for it."""

        def __enter__(self) -> None:
            if threading.current_thread() is threading.main_thread():
                fail.set()
            lock.acquire()

        def __exit__(self, *ended_by: object) -> None:
            lock.release()

    monkeypatch.setattr(Publisher, "INTERVAL_S", 0.5)  # a time in which the final one gets the lock, on any machine
    monkeypatch.setattr(objects, "put", put)
    publisher = Publisher(objects)
    monkeypatch.setattr(publisher, "_putting", Putting())
    publisher.post("status.json", b"stopping")
    assert under_way.wait(15)
    with publisher.overtaken("status.json"):
        objects["status.json"] = b"succeeded"
    publisher.post("heartbeat.json", b"1")  # sent after whatever waits
    eventually(lambda: "heartbeat.json" in objects)
    assert objects["status.json"] == b"succeeded"
