"""The manifest: what makes a folder a checkpoint, and lets a reader believe it.

A reader trusts the manifest alone, never a name, a time or a pointer. Its hashes matter: `torch.load` and
safetensors both accept a flipped byte of payload without a word.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import re
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from runctl.encoding import dumps, loads
from runctl.errors import CheckpointCorrupt

SCHEMA = 1
NAME = "manifest.json"
_STEP = re.compile(r"step-(\d{6,})")
_PIECE_BYTES = 1 << 22
_AT_FDCWD = -100  # linux/fcntl.h
_RENAME_EXCHANGE = 2  # linux/fs.h


class Hasher(Protocol):
    """What hashlib and xxhash have in common."""

    def update(self, data: Any, /) -> None: ...

    def hexdigest(self) -> str: ...


@dataclass(frozen=True)
class FileEntry:
    """Size and hash of one file of a checkpoint."""

    size_bytes: int
    digest: str


@dataclass(frozen=True)
class Watched:
    """What a checkpoint holds that a script wrote which knows nothing of us; paths relative to its working directory.

    Attributes:
        paths: files and folders, as `checkpoint.watch` matched them.
        resume: the one of them to resume from.
    """

    paths: list[str]
    resume: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds.

    Attributes:
        step: completed steps.
        epoch: completed epochs.
        world_size: ranks that trained it, each with a file of its own for its random state.
        hash: name of the hash of the files.
        files: the files by path within the folder; there are no others.
        versions: of python, torch and runctl.
        metrics: the latest values logged, for `keep_best`.
        watched: where the files belong, if the script wrote them itself.
    """

    run_id: str
    attempt: int
    step: int
    epoch: int
    world_size: int
    hash: str
    files: dict[str, FileEntry]
    created_at: float = field(default_factory=time.time)
    versions: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    watched: Watched | None = None
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        for name in self.files:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"{name} lies outside of it")

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.files.values())


def folder_name(step: int) -> str:
    """`step-000123`: a checkpoint of 123 completed steps."""
    return f"step-{step:06d}"


def step_of(name: str) -> int | None:
    """The step of a folder's name, or None if it is no checkpoint's."""
    found = _STEP.fullmatch(name)
    return int(found.group(1)) if found else None


def best_hash() -> str:
    """xxh3-128 where it is installed (some 30 GB/s on one core), else BLAKE2b of the standard library."""
    with contextlib.suppress(ImportError):
        import xxhash  # noqa: F401

        return "xxh3_128"
    return "blake2b"


def new_hasher(name: str) -> Hasher:
    """A hasher by the name that a manifest gives.

    Raises:
        CheckpointCorrupt: for a hash that cannot be computed here.
    """
    if name == "blake2b":
        return hashlib.blake2b(digest_size=16)
    try:
        import xxhash

        hasher: Hasher = {"xxh3_128": xxhash.xxh3_128}[name]()
    except (ImportError, KeyError) as error:
        raise CheckpointCorrupt(f"its hash {name} cannot be computed here: pip install xxhash") from error
    return hasher


def hash_file(path: Path, name: str) -> FileEntry:
    """Size and hash of a file as it lies on disk."""
    hasher = new_hasher(name)
    size = 0
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(_PIECE_BYTES))
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
            size += count
    return FileEntry(size, hasher.hexdigest())


def read(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        CheckpointCorrupt: if there is none, or none that can be read.
    """
    try:
        return loads(Manifest, (folder / NAME).read_text())
    except FileNotFoundError as error:
        raise CheckpointCorrupt(f"{folder}: has no {NAME}: it was never finished") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointCorrupt(f"{folder}: its {NAME} cannot be read ({error})") from error


def verify(folder: Path) -> Manifest:
    """Check a checkpoint against its manifest, every byte of it.

    Returns:
        The manifest.

    Raises:
        CheckpointCorrupt: naming the file and what is wrong with it.
    """
    manifest = read(folder)
    if manifest.step != step_of(folder.name):
        raise CheckpointCorrupt(f"{folder}: its manifest is of step {manifest.step}")
    for name, entry in manifest.files.items():
        path = folder / name
        try:
            size = path.stat().st_size
            if size != entry.size_bytes:
                raise CheckpointCorrupt(f"{path}: {size} bytes, the manifest says {entry.size_bytes}")
            if hash_file(path, manifest.hash).digest != entry.digest:
                raise CheckpointCorrupt(f"{path}: its bytes are not those that were written ({manifest.hash} differs)")
        except OSError as error:
            raise CheckpointCorrupt(f"{path}: cannot be read ({error.strerror})") from error
    return manifest


def publish(aside: Path, manifest: Manifest) -> Path:
    """Turn a folder written aside into a checkpoint: manifest last, everything on disk, then the name.

    Args:
        aside: the folder with the files, beside where the checkpoint is to lie.
        manifest: what it holds.

    Returns:
        The checkpoint's folder.
    """
    final = aside.with_name(folder_name(manifest.step))
    path = aside / NAME
    path.write_text(json.dumps(json.loads(dumps(manifest)), indent=2) + "\n")
    folders = {parent for name in manifest.files for parent in PurePosixPath(name).parents}
    for name in (*manifest.files, NAME, *sorted(map(str, folders), reverse=True)):
        _sync(aside / name)
    _sync(aside)
    if final.exists():
        # The same step was reached again after a resume from before it; the newer one is as good.
        if _exchange(aside, final):
            replaced = aside
        else:
            replaced = final.with_name(f".tmp-replaced-{final.name}-{os.getpid()}")
            final.rename(replaced)
            aside.rename(final)
        shutil.rmtree(replaced, ignore_errors=True)
    else:
        aside.rename(final)
    _sync(final.parent)
    return final


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders at once (Linux), so that there is no moment without either; False where that cannot be."""
    if sys.platform != "linux":
        return False
    try:
        rename = ctypes.CDLL(None).renameat2
    except AttributeError:  # a C library of before 2018
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
