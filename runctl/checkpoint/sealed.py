"""A file or folder that a script has written by itself, sealed: the hash of every file, kept beside it.

    epoch3.pt               what was written
    epoch3.pt.runctl.json   its seal

Without one nobody can tell later whether it is what was written: `torch.load` takes a flipped byte without a word.
"""

from __future__ import annotations

import glob
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from runctl.checkpoint import manifest as manifests
from runctl.checkpoint import watch
from runctl.checkpoint.manifest import FileEntry
from runctl.encoding import loads, to_data
from runctl.errors import CheckpointCorrupt, CheckpointError

SUFFIX = ".runctl.json"


@dataclass(frozen=True)
class Seal:
    """What a path held.

    Attributes:
        hash: name of the hash of the files.
        files: by path within the folder; a file alone is there by the empty path.
        sealed_at: seconds since the epoch.
    """

    hash: str
    files: dict[str, FileEntry]
    sealed_at: float = field(default_factory=time.time)

    @property
    def size_bytes(self) -> int:
        return sum(one.size_bytes for one in self.files.values())


def place(path: Path) -> Path:
    """Where the seal of a path lies."""
    return path.with_name(path.name + SUFFIX)


def seal(path: Path) -> Seal:
    """Look whether what a script has written is whole by its own structure, and keep the hash of every file.

    Raises:
        CheckpointError: if there is nothing, or it is plainly not whole.
    """
    path = path.absolute()
    found = watch.units(path.parent, glob.escape(path.name))
    if not found:
        raise CheckpointError(f"{path}: there is nothing that could be kept")
    if watch.whole(path.parent, found[0]) is False:
        raise CheckpointError(f"{path} is not whole: its writer is still at work, or was killed; look at it")
    name = manifests.best_hash()
    made = Seal(name, {one: manifests.hash_file(_file(path, one), name) for one in _names(path)})
    aside = place(path).with_name(f".tmp-{place(path).name}-{os.getpid()}")
    try:
        aside.write_text(json.dumps(to_data(made), indent=2) + "\n")
        aside.replace(place(path))
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise CheckpointError(f"{place(path)}: cannot be written ({error.strerror})") from error
    return made


def trouble(path: Path) -> str:
    """What differs between a path and its seal, every byte looked at; empty if nothing does.

    Raises:
        CheckpointError: if it has no seal, or none that can be read.
    """
    path = path.absolute()
    try:
        sealed = loads(Seal, place(path).read_text())
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} has no seal {place(path).name}; runctl checkpoint save {path} makes one"
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{place(path)} cannot be read: {error}") from error
    there = set(_names(path))
    told = [f"{name or path.name} is not there" for name in sorted(sealed.files.keys() - there)]
    told += [f"{name or path.name} came later" for name in sorted(there - sealed.files.keys())]
    for name in sorted(there & sealed.files.keys()):
        try:
            if manifests.hash_file(_file(path, name), sealed.hash) != sealed.files[name]:
                told.append(f"{name or path.name}: its bytes are not those that were sealed")
        except (OSError, CheckpointCorrupt) as error:
            told.append(f"{name or path.name}: {error}")
    return "; ".join(told)


def _names(path: Path) -> list[str]:
    if path.is_file():
        return [""]
    return sorted(one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_file())


def _file(path: Path, name: str) -> Path:
    return path / name if name else path
