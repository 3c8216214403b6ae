"""A store in a folder of this machine."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from runctl.errors import StorageError
from runctl.storage.base import RUN_ROOT, TEMPORARY, Stamp, Store, Stream, Tail, unwatched

_log = logging.getLogger(__name__)

#: What a network file system answers that cannot lock a folder; there nobody is alone.
NO_LOCKS = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOTSUP)
_PIECE_BYTES = 8 << 20


class LocalStore(Store):
    """A folder of this machine."""

    def __init__(self, root: Path, named_by: str = RUN_ROOT) -> None:
        self.root = root.absolute()
        super().__init__(str(self.root), named_by)
        self._failing = False

    def read(self, name: str) -> bytes | None:
        with self._translated(f"cannot read {self.root / name}"):
            try:
                return (self.root / name).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        path = self.root / name
        aside = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}")
        with self._translated(f"cannot write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                aside.write_bytes(data)
                aside.replace(path)
            except OSError:
                aside.unlink(missing_ok=True)
                raise

    def post(self, name: str, data: bytes) -> None:
        try:
            self.write(name, data)
            self._failing = False
        except StorageError as error:
            if not self._failing:
                _log.warning("%s", error)
            self._failing = True

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        with contextlib.ExitStack() as held:
            with self._translated(f"cannot lock {self.root}"):
                self.root.mkdir(parents=True, exist_ok=True)
                # The folder itself is locked, so that no lock file stays behind.
                folder = os.open(self.root, os.O_RDONLY)
                held.callback(os.close, folder)
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX)
                except OSError as error:
                    if error.errno not in NO_LOCKS:
                        raise
            yield

    def names(self, folder: str) -> list[str]:
        with self._translated(f"cannot list {self.root / folder}"):
            try:
                found = sorted(p.name for p in (self.root / folder).iterdir())
            except (FileNotFoundError, NotADirectoryError):
                return []
        return [name for name in found if not name.startswith(TEMPORARY)]

    def sizes(self, folder: str) -> dict[str, int]:
        base = self.root / folder
        with self._translated(f"cannot list {base}"):
            found = {path.relative_to(base): path.stat().st_size for path in base.rglob("*") if path.is_file()}
        return {path.as_posix(): size for path, size in found.items() if not path.name.startswith(TEMPORARY)}

    def stamps(self, name: str) -> dict[str, Stamp]:
        base = self.root / name
        with self._translated(f"cannot list {base}"):
            files = [base] if base.is_file() else [path for path in base.rglob("*") if path.is_file()]
            told = {path: path.stat() for path in files if not path.name.startswith(TEMPORARY)}
        return {
            "" if path == base else path.relative_to(base).as_posix(): Stamp(stat.st_size, str(stat.st_mtime_ns))
            for path, stat in told.items()
        }

    def put_file(self, source: Path, name: str, moved: Callable[[int], None] = unwatched) -> None:
        path = self.root / name
        aside = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}")
        with self._translated(f"cannot write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                _copy(source, aside, threading.Event(), moved)
                aside.replace(path)
            except OSError:
                aside.unlink(missing_ok=True)
                raise

    def get_file(
        self,
        name: str,
        target: Path,
        size_bytes: int,
        stop: threading.Event,
        moved: Callable[[int], None] = unwatched,
    ) -> None:
        with self._translated(f"cannot read {self.root / name}"):
            _copy(self.root / name, target, stop, moved)

    def abort_uploads(self, folder: str) -> int:
        return 0

    def delete(self, name: str) -> None:
        with self._translated(f"cannot delete {self.root / name}"):
            (self.root / name).unlink(missing_ok=True)

    def remove_folder(self) -> None:
        with self._translated(f"cannot remove {self.root}"), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.root)

    def sweep(self) -> None:
        for path in self.root.rglob(f"{TEMPORARY}*"):
            # Folders of that name are checkpoints that were being written, which the catalog sees to.
            if path.is_file():
                with contextlib.suppress(OSError):
                    path.unlink()

    def stream(self, name: str, writer: str = "") -> Stream:
        with self._translated(f"cannot write {self.root / name}"):
            return _FileStream(self.root / name, self._translated)

    def tail(self, name: str, skip_bytes: int = 0) -> Tail:
        return _FileTail(self.root / name, skip_bytes, self)


class _FileTail(Tail):
    def __init__(self, path: Path, position: int, store: LocalStore) -> None:
        self._path = path
        self._position = position
        self._store = store

    def read(self) -> Iterator[bytes]:
        with self._store._translated(f"cannot read {self._path}"):
            try:
                with self._path.open("rb") as file:
                    file.seek(self._position)
                    while piece := file.read(1 << 20):
                        self._position += len(piece)
                        yield piece
            except FileNotFoundError:
                return


class _FileStream(Stream):
    def __init__(self, path: Path, translated: Callable[[str], contextlib.AbstractContextManager[None]]) -> None:
        self._translated = translated
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._torn = self._ends_torn()

    def append(self, data: bytes) -> None:
        with self._translated(f"cannot write {self._path}"):
            view = memoryview(b"\n" + data if self._torn else data)
            while view:
                written = self._file.write(view)
                self._torn = written < len(view)  # a disk may be full half-way
                view = view[written:]

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()

    def _ends_torn(self) -> bool:
        """Whether a writer was killed in the middle of a line: then we begin on a line of our own."""
        with self._path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"


def _copy(source: Path, target: Path, stop: threading.Event, moved: Callable[[int], None]) -> None:
    piece = memoryview(bytearray(_PIECE_BYTES))
    with source.open("rb", buffering=0) as there, target.open("wb", buffering=0) as here:
        while count := there.readinto(piece):
            if stop.is_set():
                raise InterruptedError(errno.EINTR, "stopped")
            left = piece[:count]
            while left:
                left = left[here.write(left) :]
            moved(count)
