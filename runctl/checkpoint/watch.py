"""What a script that knows nothing of us has written: which files belong together, and which are whole.

A writer killed in `torch.save` leaves a closed, unchanged file that does not load (11 of 15 tries). So a file is
looked at by its own structure as well, where it has one.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

#: What torch and NumPy write as zip archives; an empty one is of a writer that died at its first byte.
_ARCHIVES = (".pt", ".pth", ".ckpt", ".bin", ".npz", ".zip")
_ZIP_MAGIC = b"PK\x03\x04"
_HEADER_LIMIT_BYTES = 100_000_000  # safetensors itself refuses longer ones
_TEXT_LIMIT_BYTES = 1 << 24
_MAGIC = re.compile(r"[*?\[]")
#: A step by its word, the surest first; then a number that stands alone and is no part of a decimal.
_NUMBERS = (
    re.compile(r"step[s=_-]*(\d+)", re.IGNORECASE),
    re.compile(r"iter(?:ation)?[s=_-]*(\d+)", re.IGNORECASE),
    re.compile(r"(?:checkpoint|ckpt)[=_-]*(\d+)", re.IGNORECASE),
    re.compile(r"epoch[s=_-]*(\d+)", re.IGNORECASE),
    re.compile(r"(?:^|[=_-])(\d+)(?![\w])(?!\.\d)"),
)


@dataclass(frozen=True)
class Stamp:
    """What changes when a file is written: compared, never interpreted."""

    size_bytes: int
    mtime_ns: int
    inode: int
    device: int


@dataclass(frozen=True)
class Unit:
    """One match of the glob: a file, or a folder with all that is in it.

    Attributes:
        path: relative to the script's working directory.
        files: stamps by path relative to the working directory.
        number: the number in its name, or None.
    """

    path: str
    is_folder: bool
    files: dict[str, Stamp]
    number: int | None

    @property
    def written_ns(self) -> int:
        return max(stamp.mtime_ns for stamp in self.files.values())


@dataclass(frozen=True)
class Candidate:
    """Units that make one checkpoint: those with the same number, or all those without."""

    units: tuple[Unit, ...]
    number: int | None

    @property
    def files(self) -> dict[str, Stamp]:
        return {name: stamp for unit in self.units for name, stamp in unit.files.items()}

    @property
    def paths(self) -> list[str]:
        return [unit.path for unit in self.units]

    @property
    def resume_path(self) -> str:
        """The thing to resume from: what was written last."""
        return max(self.units, key=lambda unit: unit.written_ns).path

    @property
    def written_ns(self) -> int:
        return max(unit.written_ns for unit in self.units)


def units(workdir: Path, pattern: str, excluded: Callable[[Path], bool] = lambda _: False) -> list[Unit]:
    """What matches a glob now. Links, hidden names and what cannot be looked at are passed over.

    Args:
        workdir: the script's working directory.
        pattern: relative to it.
        excluded: tells what is not the script's.
    """
    found: dict[str, Unit] = {}
    # Path.glob would find hidden names too, such as those of files written aside.
    for match in sorted(glob.glob(pattern, root_dir=workdir, recursive=True)):  # noqa: PTH207
        name = PurePosixPath(match).as_posix()
        path = workdir / name
        # A folder comes before what is in it and holds that already.
        inside = any(str(parent) in found for parent in PurePosixPath(name).parents)
        if inside or name == "." or path.is_symlink() or excluded(path):
            continue
        files = _folder(workdir, path) if path.is_dir() else _file(workdir, path)
        if files:
            found[name] = Unit(name, path.is_dir(), files, number_in(name, pattern))
    return list(found.values())


def candidates(found: Iterable[Unit]) -> list[Candidate]:
    """Units as checkpoints, the one written last at the end."""
    grouped: dict[int | None, list[Unit]] = {}
    for unit in found:
        grouped.setdefault(unit.number, []).append(unit)
    made = [Candidate(tuple(group), number) for number, group in grouped.items()]
    return sorted(made, key=lambda candidate: candidate.written_ns)


def number_in(name: str, pattern: str) -> int | None:
    """The number in the part of a name that the glob leaves open: `checkpoint-500`, `epoch=3-step=120.ckpt` → step."""
    fixed = 0
    for part in PurePosixPath(pattern).parts:
        if _MAGIC.search(part):
            break
        fixed += 1
    for part in reversed(PurePosixPath(name).parts[fixed:]):
        for number in _NUMBERS:
            if hits := number.findall(part):
                return int(hits[-1])
    return None


def stamp(path: Path) -> Stamp:
    """The stamp of a file now."""
    info = path.stat()
    return Stamp(info.st_size, info.st_mtime_ns, info.st_ino, info.st_dev)


def structure(path: Path) -> bool | None:
    """Whether a file is whole by its own structure; None for a kind that does not say.

    Returns:
        True or False for zip archives (`torch.save`, NumPy), safetensors and JSON, and False for an archive without
        a single byte.
    """
    with path.open("rb") as file:
        magic = file.read(len(_ZIP_MAGIC))
    if path.suffix == ".safetensors":
        return _whole_safetensors(path)
    if magic == _ZIP_MAGIC:
        return _whole_zip(path)
    if path.suffix == ".json" and path.stat().st_size < _TEXT_LIMIT_BYTES:
        return _parses(path.read_bytes())
    if path.suffix in _ARCHIVES and len(magic) < len(_ZIP_MAGIC):
        return False
    return None


def whole(workdir: Path, unit: Unit) -> bool | None:
    """Whether a unit is whole by the structure of its files; None if some of them do not say and none is broken.

    Folders have structure too: an index that lists shards, and files that Transformers (`trainer_state.json`) and
    torch.distributed.checkpoint (`.metadata`) write last.
    """
    said = {structure(workdir / name) for name in unit.files}
    if False in said or (unit.is_folder and not _whole_folder(workdir, unit)):
        return False
    return None if None in said else True


def shape(names: Iterable[str]) -> frozenset[str]:
    """File names without their numbers: what checkpoints of one training have in common."""
    return frozenset(re.sub(r"\d+", "#", name) for name in names)


def open_for_writing(pids: Iterable[int], wanted: Iterable[Stamp]) -> bool:
    """Whether one of these processes has one of these files open for writing (Linux; elsewhere False)."""
    identities = {(one.device, one.inode) for one in wanted}
    for pid in pids:
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    info = descriptor.stat()
                    is_one = stat.S_ISREG(info.st_mode) and (info.st_dev, info.st_ino) in identities
                    if is_one and _writes(Path(f"/proc/{pid}/fdinfo/{descriptor.name}").read_text()):
                        return True
    return False


def _writes(fdinfo: str) -> bool:
    flags = re.search(r"^flags:\s*([0-7]+)", fdinfo, re.MULTILINE)
    return flags is not None and int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY


def _file(workdir: Path, path: Path) -> dict[str, Stamp]:
    with contextlib.suppress(OSError):
        if path.is_file():
            return {path.relative_to(workdir).as_posix(): stamp(path)}
    return {}


def _folder(workdir: Path, folder: Path) -> dict[str, Stamp]:
    files: dict[str, Stamp] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_symlink():
            files |= _file(workdir, path)
    return files


def _whole_zip(path: Path) -> bool:
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            end = archive.start_dir
            return all(entry.header_offset + entry.compress_size <= end for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
        return False


def _whole_safetensors(path: Path) -> bool:
    """Eight bytes of length, a JSON header, and as many bytes as its tensors end at.

    Source: the format's description, github.com/huggingface/safetensors, README, "Format".
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, _HEADER_LIMIT_BYTES):
            return False
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return False
    return size == 8 + length + int(max(ends, default=0))


def _parses(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _whole_folder(workdir: Path, unit: Unit) -> bool:
    names = {PurePosixPath(name).relative_to(unit.path).as_posix() for name in unit.files}
    if "training_args.bin" in names and "trainer_state.json" not in names:
        return False
    if any(name.endswith(".distcp") for name in names) and not any(name.endswith(".metadata") for name in names):
        return False
    for name in names:
        if name.endswith(".index.json"):
            index = json.loads((workdir / unit.path / name).read_text())
            shards = index.get("weight_map", {}) if isinstance(index, dict) else {}
            if not {(PurePosixPath(name).parent / shard).as_posix() for shard in shards.values()} <= names:
                return False
    return True
