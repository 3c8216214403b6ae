"""A store in a local folder: whole objects, mended streams, and errors that name the place."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runctl.errors import StorageError
from runctl.rundir import RunDir
from runctl.spec import RunState
from runctl.storage import open_store
from runctl.storage.local import LocalStore

NOBODY = 65534


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_an_object_is_read_back_as_written(store: LocalStore) -> None:
    store.write("attempts/1.json", b"one")
    store.write("attempts/1.json", b"two")
    assert store.read("attempts/1.json") == b"two"
    assert store.read("attempts/2.json") is None
    assert store.names("attempts") == ["1.json"]


@pytest.mark.parametrize(
    "name", ["a b.json", "é ü 漢.json", "x%20y#?&.json", "[1]*.json", 'it\'s "quoted".json', "a\nb"]
)
def test_names_with_odd_characters_stay_themselves(store: LocalStore, name: str) -> None:
    store.write(f"odd/{name}", b"x")
    assert store.names("odd") == [name]
    assert store.read(f"odd/{name}") == b"x"
    stream = store.stream(f"streams/{name}")
    stream.append(b"line\n")
    stream.close()
    assert b"".join(store.read_stream(f"streams/{name}")) == b"line\n"


def test_a_crash_before_publishing_leaves_the_old_object_and_a_name_that_readers_skip(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("folder/status.json", b"old")

    def die(self: Path, target: Path) -> None:
        raise KeyboardInterrupt  # as a kill: no handler of ours runs

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            store.write("folder/status.json", b"new")
    assert store.read("folder/status.json") == b"old"
    assert len(list((store.root / "folder").iterdir())) == 2
    assert store.names("folder") == ["status.json"]


def test_a_full_disk_is_a_storage_error_and_leaves_nothing(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("status.json", b"old")

    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match=r"cannot write .*status\.json: No space left on device; .*run\.root="):
        store.write("status.json", b"new")
    assert [p.name for p in store.root.iterdir()] == ["status.json"]
    assert store.read("status.json") == b"old"


def test_a_heartbeat_on_a_full_disk_is_said_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rundir = RunDir(str(tmp_path / "run"))

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    for _ in range(3):
        rundir.beat(1, "here", 1)
        rundir.write_status(RunState.RUNNING, 1)
    assert [record.getMessage() for record in caplog.records if "No space left" in record.getMessage()] == [
        caplog.records[0].getMessage()
    ]
    with pytest.raises(StorageError):
        rundir.write_status(RunState.SUCCEEDED, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_stream_on_a_full_disk_is_a_storage_error(store: LocalStore) -> None:
    store.root.mkdir()
    (store.root / "full.log").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left on device"):
        store.stream("full.log").append(b"line\n")


def test_the_torn_end_of_a_stream_is_mended(store: LocalStore) -> None:
    store.write("metrics.jsonl", b'{"step": 1}\n{"ste')
    stream = store.stream("metrics.jsonl")
    assert b"".join(store.read_stream("metrics.jsonl")) == b'{"step": 1}\n{"ste', "opening writes nothing"
    stream.append(b'{"step": 2}\n')
    stream.append(b'{"step": 3}\n')
    stream.close()
    assert b"".join(store.read_stream("metrics.jsonl")) == b'{"step": 1}\n{"ste\n{"step": 2}\n{"step": 3}\n'


def test_a_line_cut_short_by_a_full_disk_does_not_spoil_the_next(store: LocalStore) -> None:
    stream = store.stream("metrics.jsonl")

    class Short:
        """Takes four bytes, then the disk is full."""

        def __init__(self, file: object) -> None:
            self.file, self.left = file, 4

        def write(self, data: memoryview) -> int:
            if not self.left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = self.file.write(data[: self.left])  # type: ignore[attr-defined]
            self.left -= written
            return written

    real = stream._file  # type: ignore[attr-defined]
    stream._file = Short(real)  # type: ignore[attr-defined]
    with pytest.raises(StorageError):
        stream.append(b"first\n")
    stream._file = real  # type: ignore[attr-defined]
    stream.append(b"second\n")
    stream.close()
    assert b"".join(store.read_stream("metrics.jsonl")).splitlines() == [b"firs", b"second"]


def test_a_root_that_is_a_file_is_refused_before_the_launch(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"run\.root=.*file is not a folder"):
        RunDir.check(str(tmp_path / "file" / "runs"))


@pytest.fixture
def nobodys_folder() -> Iterator[Path]:
    """A folder of whoever looks into it: root may read and write everything, and is somebody else meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        RunDir.check(str(folder / "runs"))  # what it imports may lie where nobody else may look
        if os.geteuid() != 0:
            yield folder
            return
        os.chown(folder, NOBODY, -1)
        os.setresuid(NOBODY, NOBODY, 0)
        try:
            yield folder
        finally:
            os.setresuid(0, 0, 0)


def test_a_root_without_permission_is_refused_before_the_launch(nobodys_folder: Path) -> None:
    (nobodys_folder / "closed").mkdir(mode=0o500)
    with pytest.raises(StorageError, match="cannot be written"):
        RunDir.check(str(nobodys_folder / "closed" / "runs"))
    (nobodys_folder / "dark").mkdir(mode=0o000)
    with pytest.raises(StorageError, match="cannot list"):
        LocalStore(nobodys_folder / "dark").names(".")
    (nobodys_folder / "dark").chmod(0o700)


def test_an_unreadable_place_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", denied)
    monkeypatch.setattr(Path, "read_bytes", denied)
    store = LocalStore(tmp_path)
    with pytest.raises(StorageError, match=f"cannot list {tmp_path}/attempts: Permission denied"):
        store.names("attempts")
    with pytest.raises(StorageError, match=r"cannot read .*spec\.json: Permission denied"):
        RunDir(str(tmp_path)).read_spec()


def test_damaged_records_are_errors_that_name_the_file(tmp_path: Path) -> None:
    rundir = RunDir(str(tmp_path))
    for name, read in (
        ("status.json", rundir.read_status),
        ("spec.json", rundir.read_spec),
        ("attempts/1.json", rundir.attempts),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"schema": ')
        with pytest.raises(StorageError, match=f"{tmp_path}/{name} cannot be read"):
            read()


def test_foreign_files_among_the_attempts_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "attempts").mkdir()
    for name in (".DS_Store", "1.json~", "notes.txt"):
        (tmp_path / "attempts" / name).write_text("x")
    assert RunDir(str(tmp_path)).attempts() == []


def test_torn_lines_of_a_stream_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"attempt": 1, "step": 1}\n{"attem\n{"attempt": 2, "step": 1}\n')
    assert [entry["attempt"] for entry in RunDir(str(tmp_path)).metrics()] == [1, 2]


def test_file_urls_are_local_folders(tmp_path: Path) -> None:
    assert open_store(f"file://{tmp_path}").url == str(tmp_path)


@pytest.mark.parametrize(("url", "words"), [("nosuch://x/y", "nosuch://"), ("gs://bucket/x", "gcsfs")])
def test_a_url_without_its_file_system_says_what_is_missing(
    url: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(StorageError, match=words):
        open_store(url)
