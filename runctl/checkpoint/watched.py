"""Files of a script that knows nothing of us: kept as a checkpoint, and put back where the script had written them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from runctl.checkpoint import manifest as manifests
from runctl.checkpoint import watch
from runctl.checkpoint.manifest import FileEntry, Manifest, Watched
from runctl.checkpoint.watch import Candidate, Stamp, Unit
from runctl.errors import CheckpointCorrupt

#: Where the files lie in a checkpoint.
FILES = "files"
_BAD = "bad-"
_ASIDE = ".tmp-runctl-"
_FICLONE = 0x40049409  # linux/fs.h
_PIECE_BYTES = 1 << 22


class Changed(Exception):
    """A file changed, or went, while it was copied."""


def keep(candidate: Candidate, workdir: Path, folder: Path, manifest: Manifest) -> Path:
    """Copy a candidate's files aside and publish them as a checkpoint.

    Never by a hard link: that would show the bytes of the next overwrite.

    Args:
        candidate: what to keep.
        workdir: the script's working directory.
        folder: the run's folder of checkpoints.
        manifest: what there is to say of it, without the files.

    Returns:
        The checkpoint's folder.

    Raises:
        Changed: if the script wrote to a file meanwhile; nothing is published then.
        OSError: if the disk refuses.
    """
    aside = folder / f".tmp-{manifests.folder_name(manifest.step)}-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        files = {}
        for name, stamp in candidate.files.items():
            target = aside / FILES / name
            target.parent.mkdir(parents=True, exist_ok=True)
            files[f"{FILES}/{name}"] = _copy_unchanged(workdir / name, stamp, target, manifest.hash)
        # All of them once more: a file copied first may have been overwritten while the last one was.
        if any(_stamp(workdir / name) != stamp for name, stamp in candidate.files.items()):
            raise Changed
        told = Watched(candidate.paths, candidate.resume_path)
        return manifests.publish(aside, replace(manifest, files=files, watched=told))
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def put_back(folder: Path, manifest: Manifest, workdir: Path, say: Callable[[str], None]) -> Path:
    """Put a checkpoint's files back where the script had written them.

    Args:
        folder: the checkpoint, verified.
        manifest: its manifest.
        workdir: the script's working directory.
        say: told of each file that is replaced by another.

    Returns:
        The absolute path to resume from.

    Raises:
        CheckpointCorrupt: if the checkpoint is not a watched one.
        OSError: if the disk refuses.
    """
    if manifest.watched is None or not all(name.startswith(f"{FILES}/") for name in manifest.files):
        raise CheckpointCorrupt(f"{folder}: its files were not written by the script itself")
    for name, entry in manifest.files.items():
        target = workdir / Path(name).relative_to(FILES)
        if _holds(target, entry, manifest.hash):
            continue
        if os.path.lexists(target):
            say(f"{target} is not what checkpoint {folder.name} holds: replaced")
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f"{_ASIDE}*"):  # by an agent that was killed here
            left.unlink(missing_ok=True)
        aside = target.with_name(f"{_ASIDE}{target.name}")
        try:
            copy(folder / name, aside)
            aside.replace(target)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    return workdir / manifest.watched.resume


def set_aside_broken(workdir: Path, found: Iterable[Unit], manifest: Manifest, say: Callable[[str], None]) -> None:
    """Rename what a killed writer left incomplete: a script that looks for its newest checkpoint would choke on it.

    Args:
        workdir: the script's working directory.
        found: what matches the glob there.
        manifest: of the checkpoint that was put back; a folder that lacks files of its kind is incomplete too.
        say: told of each thing renamed.
    """
    kept = shape(manifest)
    for unit in found:
        if manifest.watched is not None and unit.path in manifest.watched.paths:
            continue
        with contextlib.suppress(OSError):
            lacking = unit.is_folder and watch.shape(unit.files) < kept
            if lacking or watch.whole(workdir, unit) is False:
                path = workdir / unit.path
                bad = path.with_name(f"{_BAD}{path.name}")
                if bad.is_dir():
                    shutil.rmtree(bad)
                path.rename(bad)
                say(f"{path} is incomplete: renamed to {bad.name}")


def shape(manifest: Manifest) -> frozenset[str]:
    """What the files of a watched checkpoint are called, without their numbers."""
    return watch.shape(Path(name).relative_to(FILES).as_posix() for name in manifest.files)


def copy(source: Path, target: Path) -> None:
    """Copy a file, by a reflink where the file system has them; the copy shares no later change."""
    with source.open("rb", buffering=0) as read, target.open("wb", buffering=0) as write:
        if sys.platform == "linux":
            import fcntl

            with contextlib.suppress(OSError):
                fcntl.ioctl(write.fileno(), _FICLONE, read.fileno())
                return
        shutil.copyfileobj(read, write, _PIECE_BYTES)


def _copy_unchanged(source: Path, stamp: Stamp, target: Path, hash_name: str) -> FileEntry:
    try:
        copy(source, target)
    except FileNotFoundError as error:
        raise Changed from error
    # The copy is looked at again: the source may have been overwritten and finished within one tick of its clock.
    if _stamp(source) != stamp or target.stat().st_size != stamp.size_bytes or watch.structure(target) is False:
        raise Changed
    return manifests.hash_file(target, hash_name)


def _stamp(path: Path) -> Stamp | None:
    try:
        return watch.stamp(path)
    except OSError:
        return None


def _holds(path: Path, entry: FileEntry, hash_name: str) -> bool:
    try:
        return (
            not path.is_symlink()
            and path.stat().st_size == entry.size_bytes
            and manifests.hash_file(path, hash_name) == entry
        )
    except OSError:
        return False
