"""Where run directories lie: whole objects written aside and published last, and growing streams.

Two stores with one face. The local file system can rename and append; object storage can do neither, so
there a stream is a folder of write-once segments and a whole object is one request, which is atomic there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runctl.errors import StorageError

TEMPORARY = ".tmp-"


class Stream(ABC):
    """An append-only sequence of bytes under one name."""

    @abstractmethod
    def append(self, data: bytes) -> None:
        """Add bytes to the end; they are readable after the next `flush`."""

    @abstractmethod
    def flush(self) -> None:
        """Make what was appended readable by others."""

    def close(self) -> None:
        """Flush, and release what is held."""
        self.flush()


class Store(ABC):
    """A folder of named objects. Names are relative, with forward slashes."""

    url: str

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """The object's bytes, or None if there is none."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Publish an object whole: a reader sees the old one or the new one, never a part."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Names of the objects right below `folder`, sorted, temporary ones left out."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object; nothing happens if there is none."""

    @abstractmethod
    def stream(self, name: str, writer: str = "") -> Stream:
        """Open a stream for appending; `writer` tells writers of one stream apart."""

    @abstractmethod
    def read_stream(self, name: str) -> Iterator[bytes]:
        """A stream's bytes so far, in pieces, in order."""


def open_store(url: str) -> Store:
    """The store at a path or an fsspec URL (`runs/x`, `s3://bucket/prefix`).

    Raises:
        StorageError: for a URL whose file system is unknown or needs a package that is missing.
    """
    if "://" not in url or url.startswith("file://"):
        return LocalStore(Path(url.removeprefix("file://")))
    return FsspecStore(url)


@contextlib.contextmanager
def _translated(where: str) -> Iterator[None]:
    """OSError, which file systems and fsspec back-ends raise, as a StorageError that says what to do.

    Raises:
        StorageError: from the OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise StorageError(f"{where}: {reason}; choose another place with run.root=…") from error


class LocalStore(Store):
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.url = str(self.root)

    def read(self, name: str) -> bytes | None:
        with _translated(f"cannot read {self.root / name}"):
            try:
                return (self.root / name).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        path = self.root / name
        aside = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}")
        with _translated(f"cannot write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                aside.write_bytes(data)
                aside.replace(path)
            except OSError:
                aside.unlink(missing_ok=True)
                raise

    def names(self, folder: str) -> list[str]:
        with _translated(f"cannot list {self.root / folder}"):
            try:
                found = sorted(p.name for p in (self.root / folder).iterdir())
            except (FileNotFoundError, NotADirectoryError):
                return []
        return [name for name in found if not name.startswith(TEMPORARY)]

    def delete(self, name: str) -> None:
        with _translated(f"cannot delete {self.root / name}"):
            (self.root / name).unlink(missing_ok=True)

    def stream(self, name: str, writer: str = "") -> Stream:
        with _translated(f"cannot write {self.root / name}"):
            return _FileStream(self.root / name)

    def read_stream(self, name: str) -> Iterator[bytes]:
        with _translated(f"cannot read {self.root / name}"):
            try:
                with (self.root / name).open("rb") as file:
                    while piece := file.read(1 << 20):
                        yield piece
            except FileNotFoundError:
                return


class _FileStream(Stream):
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._mend_torn_end()

    def append(self, data: bytes) -> None:
        with _translated(f"cannot write {self._path}"):
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()

    def _mend_torn_end(self) -> None:
        """A writer killed in the middle of a line leaves it torn: begin on a line of our own."""
        size = self._path.stat().st_size
        if size:
            with self._path.open("rb") as file:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    self.append(b"\n")


class FsspecStore(Store):
    """A prefix of an fsspec file system, such as a bucket."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        scheme = url.split("://", 1)[0]
        try:
            import fsspec

            self._fs, self._root = fsspec.core.url_to_fs(self.url, **_options(scheme))
        except (ImportError, ValueError) as error:
            raise StorageError(f"{url}: no file system for {scheme}:// ({error})") from error

    def read(self, name: str) -> bytes | None:
        with _translated(f"cannot read {self.url}/{name}"):
            try:
                return bytes(self._fs.cat_file(f"{self._root}/{name}"))
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        # One put of an object store is atomic; no temporary name and no rename, which would be a copy there.
        with _translated(f"cannot write {self.url}/{name}"):
            self._fs.pipe_file(f"{self._root}/{name}", data)

    def names(self, folder: str) -> list[str]:
        path = f"{self._root}/{folder}".rstrip("/")
        with _translated(f"cannot list {self.url}/{folder}"):
            try:
                found = self._fs.ls(path, detail=False, refresh=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
        names = sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in found)
        return [name for name in names if not name.startswith(TEMPORARY)]

    def delete(self, name: str) -> None:
        with _translated(f"cannot delete {self.url}/{name}"), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")

    def stream(self, name: str, writer: str = "") -> Stream:
        return _SegmentStream(self, name, writer)

    def read_stream(self, name: str) -> Iterator[bytes]:
        for segment in self.names(name):
            yield self.read(f"{name}/{segment}") or b""


class _SegmentStream(Stream):
    """Bytes collected in memory and published as `name/000000`, `name/000001`, …"""

    MAX_PENDING_BYTES = 8 << 20

    def __init__(self, store: Store, name: str, writer: str) -> None:
        self._store = store
        self._name = name
        self._writer = f"{writer}-" if writer else ""
        self._pending = bytearray()
        mine = [n for n in store.names(name) if n.startswith(self._writer)]
        self._next = 1 + max((int(n.rsplit("-", 1)[-1]) for n in mine), default=-1)

    def append(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) >= self.MAX_PENDING_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._pending:
            segment, self._pending = bytes(self._pending), bytearray()
            self._store.write(f"{self._name}/{self._writer}{self._next:06d}", segment)
            self._next += 1


def _options(scheme: str) -> dict[str, Any]:
    """Options of a file system whose defaults do not suit us."""
    if scheme != "s3":
        return {}
    # s3fs reads AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL through botocore by itself.
    return {"use_listings_cache": False, "config_kwargs": {"user_agent_extra": "runctl"}}


def is_writable(url: str) -> None:
    """Check before a launch that objects can be written below `url`.

    Raises:
        StorageError: with the reason.
    """
    if "://" in url and not url.startswith("file://"):
        return  # a bucket answers at the first write; a probe object would cost a request and rights
    path = Path(url.removeprefix("file://")).absolute()
    existing = next(p for p in (path, *path.parents) if p.exists())
    if not existing.is_dir():
        raise StorageError(f"run.root={url}: {existing} is not a folder; choose another place with run.root=…")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise StorageError(f"run.root={url}: {existing} cannot be written; choose another place with run.root=…")
