"""A store in a prefix of an fsspec file system, such as a bucket.

Small objects are written through fsspec whatever the file system; a bucket has a path of its own for files and for
what is read (s3.py).

Who retries: botocore repeats one request (`_options`), the publisher repeats what may be late until it gets through.
s3fs, which would multiply botocore's attempts by its own, repeats nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from runctl.errors import StorageError
from runctl.storage.base import RUN_ROOT, TEMPORARY, Stamp, Store, Stream, Tail, unwatched
from runctl.storage.publisher import Publisher, SegmentStream
from runctl.storage.s3 import Bucket, broken_off, expired, give_session, refused_right

_S3_SCHEMES = ("s3", "s3a")
#: Elsewhere than in a bucket a file comes back in parts of this size, so many at a time, one file after another.
_PART_BYTES = 8 << 20
_PARTS_AT_ONCE = 8
#: How often a small object is asked for whose bytes break off on the way, or are not those that were written.
_READS = 3


class FsspecStore(Store):
    """A prefix of an fsspec file system, such as a bucket."""

    def __init__(self, url: str, named_by: str = RUN_ROOT) -> None:
        super().__init__(url.rstrip("/"), named_by)
        scheme = url.split("://", 1)[0]
        try:
            import fsspec

            self._fs, self._root = fsspec.core.url_to_fs(self.url, **_options(scheme))
        except ImportError as error:
            raise StorageError(f"{url}: {scheme}:// needs a package that is not installed: {error}") from error
        except ValueError as error:
            raise StorageError(f"{url}: no file system for {scheme}:// ({error})") from error
        self._bucket: Bucket | None = None
        if scheme in _S3_SCHEMES:
            self._fs.retries = 1
            give_session(self._fs)
            name, _, self._prefix = self._root.partition("/")
            self._bucket = Bucket(self._fs, name)
        self._publisher = Publisher(self)
        self._large = threading.Lock()

    def read(self, name: str) -> bytes | None:
        with self._request("read", name):
            for _ in range(_READS - 1 if self._bucket is not None else 0):
                with contextlib.suppress(*broken_off()):
                    return self._read(name)
            return self._read(name)

    def _read(self, name: str) -> bytes | None:
        if self._bucket is not None:
            return self._bucket.read(self._key(name))  # s3fs asks for its size first, which is a second request
        try:
            return bytes(self._fs.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        with self._publisher.overtaken(name):
            self.put(name, data)

    def put(self, name: str, data: bytes) -> None:
        """Publish an object, whatever waits to be published under its name."""
        # One put of an object store is atomic; no temporary name and no rename, which would be a copy there.
        with self._request("write", name):
            self._fs.pipe_file(f"{self._root}/{name}", data)

    def post(self, name: str, data: bytes) -> None:
        self._publisher.post(name, data)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def names(self, folder: str) -> list[str]:
        path = f"{self._root}/{folder}".rstrip("/")
        with self._request("list", folder):
            try:
                found = self._fs.ls(path, detail=False, refresh=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
        names = sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in found)
        return [name for name in names if not name.startswith(TEMPORARY)]

    def sizes(self, folder: str) -> dict[str, int]:
        with self._request("list", folder):
            try:
                found = self._fs.find(f"{self._root}/{folder}", detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
        paths = {path.split(f"{self._root}/{folder}/", 1)[-1]: int(one["size"]) for path, one in found.items()}
        return {path: size for path, size in paths.items() if not path.rsplit("/", 1)[-1].startswith(TEMPORARY)}

    def stamps(self, name: str) -> dict[str, Stamp]:
        base = f"{self._root}/{name}".rstrip("/")
        with self._request("list", name):
            try:
                found = self._fs.find(base, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
        return {
            path.removeprefix(base).lstrip("/"): Stamp(int(one["size"]), _version(one))
            for path, one in found.items()
            if not path.rsplit("/", 1)[-1].startswith(TEMPORARY) and not path.endswith("/")
        }

    def put_file(self, source: Path, name: str, moved: Callable[[int], None] = unwatched) -> None:
        with self._request("write", name):
            if self._bucket is not None:
                self._bucket.put(source, self._key(name), moved)
            else:
                self._fs.put_file(str(source), f"{self._root}/{name}")
                moved(source.stat().st_size)

    def get_file(
        self,
        name: str,
        target: Path,
        size_bytes: int,
        stop: threading.Event,
        moved: Callable[[int], None] = unwatched,
    ) -> None:
        if self._bucket is not None:
            with self._request("read", name):
                self._bucket.get(self._key(name), target, size_bytes, stop, moved)
            return
        path = f"{self._root}/{name}"

        def copy(start: int) -> None:
            if stop.is_set():
                raise InterruptedError(errno.EINTR, "stopped")
            data = self._fs.cat_file(path, start=start, end=min(start + _PART_BYTES, size_bytes))
            os.pwrite(descriptor, data, start)
            moved(len(data))

        with self._large, self._request("read", name):
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                parts = ThreadPoolExecutor(_PARTS_AT_ONCE, "runctl-get")
                try:
                    list(parts.map(copy, range(0, size_bytes, _PART_BYTES)))
                finally:
                    parts.shutdown(cancel_futures=True)
            finally:
                os.close(descriptor)

    def abort_uploads(self, folder: str) -> int:
        if self._bucket is None:
            return 0
        bucket, _, prefix = f"{self._root}/{folder}/".partition("/")
        with self._request("abort uploads below", folder):
            # s3fs's own call would take every upload of the bucket, those of others too.
            found = self._fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix).get("Uploads", [])
            for upload in found:
                self._fs.abort_mpu(bucket, upload["Key"], upload["UploadId"])
        return len(found)

    def delete(self, name: str) -> None:
        with self._request("delete", name), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")

    def stream(self, name: str, writer: str = "") -> Stream:
        return SegmentStream(self, self._publisher, name, writer)

    def read_segments(self, name: str, segments: Sequence[str]) -> Iterator[bytes]:
        """The bytes of a stream's segments in their order; each is a request, so a few are under way at once."""
        if len(segments) == 1:
            yield self.read(f"{name}/{segments[0]}") or b""
            return
        with ThreadPoolExecutor(_PARTS_AT_ONCE, "runctl-read") as threads:
            for begin in range(0, len(segments), _PARTS_AT_ONCE):
                window = [f"{name}/{segment}" for segment in segments[begin : begin + _PARTS_AT_ONCE]]
                yield from (data or b"" for data in threads.map(self.read, window))

    def tail(self, name: str, skip_bytes: int = 0) -> Tail:
        return _SegmentTail(self, name, skip_bytes)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    @contextlib.contextmanager
    def _request(self, verb: str, name: str) -> Iterator[None]:
        # Each back-end lets exceptions of its vendor's through (botocore's and aiohttp's are no OSErrors).
        with self._translated(f"cannot {verb} {self.url}/{name}", Exception):
            try:
                yield
            except Exception as error:
                if self._bucket is not None and expired(error):
                    self._bucket.renew()
                if self._bucket is not None and (right := refused_right(error)) is not None:
                    raise PermissionError(errno.EACCES, f"access denied: it needs the right {right} there") from error
                raise


class _SegmentTail(Tail):
    """Reads segments that have not been read; each is published once, and whole."""

    def __init__(self, store: FsspecStore, name: str, skip_bytes: int) -> None:
        self._store = store
        self._name = name
        self._skip_bytes = skip_bytes
        self._done: set[str] = set()

    def read(self) -> Iterator[bytes]:
        new = {name: size for name, size in self._store.sizes(self._name).items() if name not in self._done}
        wanted: list[str] = []
        for segment, size in sorted(new.items()):
            if not wanted and self._skip_bytes >= size:
                self._skip_bytes -= size
                self._done.add(segment)
            else:
                wanted.append(segment)
        for segment, data in zip(wanted, self._store.read_segments(self._name, wanted), strict=True):
            yield data[self._skip_bytes :]
            self._skip_bytes = 0
            self._done.add(segment)


def _version(told: dict[str, Any]) -> str:
    """What a file system tells of an object's version: S3 its hash, others when it was written."""
    return str(next((told[key] for key in ("ETag", "etag", "md5Hash", "mtime", "created") if told.get(key)), ""))


def _options(scheme: str) -> dict[str, Any]:
    """Options of a file system whose defaults do not suit us."""
    if scheme not in _S3_SCHEMES:
        return {}
    # An endpoint that does not answer is an error after half a minute, a closed port within a few seconds.
    config = {
        "connect_timeout": 5,
        "read_timeout": 10,
        "retries": {"mode": "standard", "total_max_attempts": 3},
        "user_agent_extra": "runctl",
    }
    # s3fs reads AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL through botocore by itself.
    return {"use_listings_cache": False, "config_kwargs": config}
