"""Files from one place to another, each a path of this machine or any fsspec URL: in parallel, verified, resumed.

What is there already as it is at the source is not copied again, so that a copy that broke off goes on with the files
that are missing. Files are the same if their sizes are, and the hash that the storage tells (S3's ETag is MD5, over
parts for large files); where it tells none, if the target's is not older than the source's.

Who retries: the storage repeats requests (`storage.remote`); a download whose bytes are not those that S3 tells of is
asked for once more.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
import tempfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from runctl.checkpoint.progress import ProgressBar
from runctl.checkpoint.transfer import Transfer
from runctl.errors import ConfigError, DataError
from runctl.storage import Store, open_store
from runctl.storage.base import TEMPORARY, Stamp
from runctl.storage.s3 import part_bytes

_AT_ONCE = 8
_LOOK_S = 0.05
_PIECE_BYTES = 4 << 20
_ETAG = re.compile(r'"?([0-9a-f]{32})(?:-(\d+))?"?')
#: In MiB: what others that write to S3 take for parts, besides our own; the AWS CLI takes 8.
_PART_SIZES_MIB = (8, 5, 16, 32, 64, 128)


class Place:
    """A file, a folder, or a whole bucket.

    Args:
        text: a path or an fsspec URL; one that ends with a slash is a folder's.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.says_folder = text.endswith("/") or text in (".", "..")
        scheme, found, rest = text.partition("://")
        if not found:
            path = Path(text).absolute()
            above, self.name = str(path.parent), path.name
        else:
            above, _, self.name = rest.rstrip("/").rpartition("/")
            if not above:  # a whole bucket
                above, self.name = self.name, ""
            above = f"{scheme}://{above}"
        self.store: Store = open_store(above, "another URL")

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine."""
        return "://" not in self.store.url

    def files(self) -> dict[str, Stamp]:
        """Every file in it, by path from there; a file itself is there by the empty path.

        Raises:
            StorageError: if it cannot be listed.
        """
        return self.store.stamps(self.name)

    def inside(self, path: str) -> str:
        """The name of a file in it, in its store."""
        return "/".join(filter(None, (self.name, path)))

    def shown(self, path: str) -> str:
        """The same for people."""
        return f"{self.store.url}/{self.inside(path)}"


@dataclass(frozen=True)
class Copy:
    """One file to be copied.

    Attributes:
        source, target: its names in the stores.
        stamp: the source's.
    """

    source: str
    target: str
    stamp: Stamp


@dataclass(frozen=True)
class Planned:
    """What a copy comes to.

    Attributes:
        copies: what is to be copied.
        same: what is there already.
        gone: what the target holds and the source does not, by path from there.
    """

    copies: tuple[Copy, ...]
    same: int
    gone: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum(one.stamp.size_bytes for one in self.copies)


class Copying:
    """One copy between two places.

    Args:
        source: where from.
        target: where to.
        recursive: whether a folder is meant, and not one file.
        verb: what it is, for whoever looks on: `uploading`.
    """

    def __init__(self, source: str, target: str, *, recursive: bool, verb: str) -> None:
        self.source, self.target = Place(source), Place(target)
        self._recursive = recursive
        self._verb = verb
        self._stop = threading.Event()

    def plan(self) -> Planned:
        """Look at both places.

        Raises:
            ConfigError: if there is nothing at the source, or a folder where a file was meant.
            StorageError: if one cannot be listed.
        """
        found = self.source.files()
        if not found:
            raise ConfigError(f"{self.source.text}: there is nothing")
        if "" not in found and not self._recursive:
            raise ConfigError(f"{self.source.text} is a folder of {len(found)} files; --recursive copies all of them")
        there = self.target.files()
        below = ""
        if "" in found:
            found = {"": found[""]}
            if self.target.says_folder or (there and "" not in there) or not self.target.name or self._is_dir():
                below = self.source.name
        elif "" in there and not self.target.says_folder:
            raise ConfigError(f"{self.target.text} is a file, and {self.source.text} a folder")
        asked = {path: "/".join(filter(None, (below, path))) for path in found}
        same = self._same(found, asked, there)
        copies = tuple(
            Copy(self.source.inside(path), self.target.inside(asked[path]), stamp)
            for path, stamp in found.items()
            if path not in same
        )
        gone = tuple(sorted(path for path in there.keys() - set(asked.values()) if path))
        return Planned(copies, len(same), gone)

    def carry_out(self, planned: Planned) -> None:
        """Copy, several at once; what has arrived stays, whatever happens to the rest.

        Raises:
            RunctlError: if a file cannot be read or written, or is not what was sent.
        """
        bar, transfer = ProgressBar(attached=True), Transfer()
        transfer.begin(0, planned.size_bytes)
        jobs = [functools.partial(self._copy, one, transfer) for one in planned.copies]
        what = f"{len(jobs)} file{'s' * (len(jobs) != 1)}"
        try:
            _at_once(jobs, lambda: bar.show(self._verb, transfer, what))
        finally:
            self._stop.set()
            bar.clear()
        self._check(planned)

    def _is_dir(self) -> bool:
        return self.target.is_here and Path(self.target.store.url, self.target.name).is_dir()

    def _same(self, found: dict[str, Stamp], asked: dict[str, str], there: dict[str, Stamp]) -> set[str]:
        """What need not be copied; hashes of large files are reckoned several at once."""
        equal = [
            path for path in found if asked[path] in there and there[asked[path]].size_bytes == found[path].size_bytes
        ]
        same: set[str] = set()

        def compare(path: str) -> None:
            ours, theirs = found[path], there[asked[path]]
            if self._is_same(path, asked[path], ours, theirs):
                same.add(path)

        _at_once([functools.partial(compare, path) for path in equal], lambda: None)
        return same

    def _is_same(self, path: str, asked: str, ours: Stamp, theirs: Stamp) -> bool:
        if self.source.is_here != self.target.is_here:
            here, name = (self.source, path) if self.source.is_here else (self.target, asked)
            told = theirs if self.source.is_here else ours
            if (etag := _ETAG.fullmatch(told.version)) is not None:
                return _has_etag(Path(here.store.url, here.inside(name)), etag)
        elif _ETAG.fullmatch(ours.version) is not None:
            return ours.version == theirs.version
        written, was = _time_s(ours.version), _time_s(theirs.version)
        return written is not None and was is not None and was >= written

    def _copy(self, one: Copy, transfer: Transfer) -> None:
        source, target = self.source.store, self.target.store
        if self._stop.is_set():
            return
        if self.source.is_here:
            target.put_file(Path(source.url, one.source), one.target, transfer.moved)
        elif self.target.is_here:
            path = Path(target.url, one.target)
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f"{TEMPORARY}{path.name}")
            try:
                self._receive(one, aside, transfer)
                aside.replace(path)
            except OSError as error:
                raise DataError(f"{path}: cannot be written ({error.strerror})") from error
            finally:
                aside.unlink(missing_ok=True)
        else:
            with tempfile.TemporaryDirectory(prefix="runctl-copy-") as folder:
                self._receive(one, Path(folder, "file"), transfer)
                target.put_file(Path(folder, "file"), one.target)

    def _receive(self, one: Copy, path: Path, transfer: Transfer) -> None:
        """Bring a file, and look whether it is what the storage tells of."""
        etag = _ETAG.fullmatch(one.stamp.version)
        before = b""
        for moved in (transfer.moved, lambda _: None):
            self.source.store.get_file(one.source, path, one.stamp.size_bytes, self._stop, moved)
            if etag is None or _has_etag(path, etag):
                return
            came = _md5(path).digest()
            if came == before:
                return  # the same twice: this ETag is no hash of its bytes, as where S3 encrypts with KMS
            before = came
        raise DataError(
            f"{self.source.store.url}/{one.source}: what came is not what S3 tells of, twice and differently"
        )

    def _check(self, planned: Planned) -> None:
        """Look whether all of it has arrived. (Of what is sent to S3 its server compares a checksum of each part.)"""
        if not planned.copies:
            return
        there = {self.target.inside(path): stamp.size_bytes for path, stamp in self.target.files().items()}
        for one in planned.copies:
            if there.get(one.target) != one.stamp.size_bytes:
                raise DataError(
                    f"{self.target.store.url}/{one.target}: {there.get(one.target, 'no')} bytes arrived of "
                    f"{one.stamp.size_bytes}; it may have changed meanwhile: copy it again"
                )


def remove(place: Place, paths: Iterable[str]) -> None:
    """Remove files.

    Args:
        place: in which they are.
        paths: from there; the empty one is the place itself.

    Raises:
        StorageError: if one cannot be removed.
    """
    _at_once([functools.partial(place.store.delete, place.inside(path)) for path in paths], lambda: None)


def _at_once(jobs: list[functools.partial[None]], meanwhile: Callable[[], None]) -> None:
    """Have jobs done, several at once; after one that fails none is begun, and those that were are waited for."""
    pool = ThreadPoolExecutor(_AT_ONCE, "runctl-copy")
    try:
        futures = [pool.submit(job) for job in jobs]
        left = set(futures)
        while left:
            done, left = wait(left, timeout=_LOOK_S, return_when=FIRST_EXCEPTION)
            meanwhile()
            if any(future.exception() is not None for future in done):
                break
        for future in futures:
            future.cancel()
        for future in futures:
            if not future.cancelled():
                future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _has_etag(path: Path, etag: re.Match[str]) -> bool:
    """Whether a file's bytes are those of an object with this ETag: MD5, or that of its parts' MD5s, and their number.

    Source: docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html, and for parts "Checking object integrity".
    """
    digest, parts = etag[1], etag[2]
    with contextlib.suppress(OSError):
        if parts is None:
            return _md5(path).hexdigest() == digest
        size = path.stat().st_size
        sizes = dict.fromkeys((part_bytes(size), *(mib << 20 for mib in _PART_SIZES_MIB)))
        return any(-(-size // one) == int(parts) and _etag_of_parts(path, one) == digest for one in sizes)
    return False


def _md5(path: Path) -> hashlib._Hash:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest


def _etag_of_parts(path: Path, size: int) -> str:
    whole = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(size):
            whole.update(hashlib.md5(piece, usedforsecurity=False).digest())
    return whole.hexdigest()


def _time_s(version: str) -> float | None:
    """A version that is a time as seconds since the epoch; None for any other."""
    with contextlib.suppress(ValueError):
        return int(version) / 1e9 if version.isdigit() else float(version)
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(version).timestamp()
    return None
