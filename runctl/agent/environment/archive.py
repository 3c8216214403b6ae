"""An environment as archives, and as a folder again, which may lie elsewhere than the one it was made in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

#: Beyond the first level gzip takes several times as long for a few per cent (benchmarks/environment.py).
_LEVEL = 1
_PIECE = 1 << 20
#: Of the files in one archive: several are brought and unpacked at once, each by a processor of its own.
_PART_BYTES = 128 << 20
#: Files outside of conda's records that may hold the place of their environment.
_PLACES = (
    "venv/pyvenv.cfg", "*/lib/python3*/site-packages/*.pth", "python/*/lib/python3*/_sysconfigdata*.py",
    "python/*/lib/pkgconfig/*.pc",
)  # fmt: skip
_SCRIPTS = ("venv/bin/*", "conda/bin/*", "python/*/bin/*")


class HoldsSecret(Exception):
    """A file of the environment holds a secret's value; the text is its name."""


def files_of(folder: Path) -> list[str]:
    """All that a folder holds, by path from there, links and empty folders too."""
    found = []
    for root, folders, files in os.walk(folder):
        links = [name for name in folders if Path(root, name).is_symlink()]
        inside = os.path.relpath(root, folder)
        found += [os.path.normpath(Path(inside, name)) for name in [*files, *links]]
        if not files and not folders:
            found.append(inside)
    return sorted(name for name in found if "__pycache__" not in name.split("/"))


def parts(folder: Path, names: Iterable[str]) -> list[list[str]]:
    """Files of a folder, divided among archives."""
    found: list[list[str]] = []
    size_bytes = _PART_BYTES
    for name in names:
        if size_bytes >= _PART_BYTES:
            found.append([])
            size_bytes = 0
        found[-1].append(name)
        size_bytes += (folder / name).lstat().st_size
    return found


def pack(folder: Path, names: Iterable[str], target: Path, secrets: Sequence[str]) -> None:
    """Pack files of a folder.

    Args:
        folder: of the environment.
        names: of the files, as `files_of` told them when it was made; what has come since is not the environment's.
        target: the archive.
        secrets: values that no file may hold.

    Raises:
        HoldsSecret: if one does.
        OSError: if a file cannot be read, or changes meanwhile.
    """
    values = [value.encode() for value in secrets]
    folders: set[Path] = set()
    with tarfile.open(target, "w:gz", compresslevel=_LEVEL) as tar:
        for name in names:
            path = folder / name
            # Parts are unpacked at once: a folder that is not in its own part, tar fails on if another tar makes it.
            for parent in reversed(Path(name).parents[:-1]):
                if parent not in folders:
                    folders.add(parent)
                    tar.add(folder / parent, str(parent), recursive=False)
            if values and path.is_file() and not path.is_symlink() and _holds(path, values):
                raise HoldsSecret(name)
            tar.add(path, name, recursive=False)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack one of ours into a folder.

    Raises:
        OSError: if it cannot be.
    """
    try:
        done = subprocess.run(
            ["tar", "-xzf", str(archive), "-C", str(folder)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        with tarfile.open(archive, "r:gz") as tar:
            # Links to the host's Python lead out, as they must; whose archive this is, its SHA-256 told.
            if hasattr(tarfile, "data_filter"):
                tar.extraction_filter = tarfile.fully_trusted_filter
            tar.extractall(folder)
        return
    if done.returncode != 0:
        raise OSError(f"tar: {done.stderr.strip()}")


def relocate(folder: Path, before: str) -> None:
    """Have an environment know that it lies in `folder` now, and not where it was made.

    Raises:
        OSError: if a place is longer than what a compiled file has room for.
    """
    now = str(folder)
    if now == before:
        return
    for link in (folder / "venv" / "bin").glob("*"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{before}/"):
            target = now + str(link.readlink())[len(before) :]
            link.unlink()
            link.symlink_to(target)
    for pattern in (*_PLACES, *_SCRIPTS):
        for path in folder.glob(pattern):
            if path.is_file() and not path.is_symlink() and (pattern in _PLACES or _is_script(path)):
                _put(path, path.read_bytes(), before.encode(), now.encode())
    for record in (folder / "conda" / "conda-meta").glob("*.json"):
        _relocate_package(record, f"{before}/conda", f"{now}/conda")


def _relocate_package(record: Path, before: str, now: str) -> None:
    """As conda installs: each package's record says which of its files hold the place, and with how much room."""
    prefix = record.parents[1]
    told = json.loads(record.read_text())
    for one in told.get("paths_data", {}).get("paths", []):
        room = one.get("prefix_placeholder")
        path = prefix / one["_path"]
        if not room or not path.is_file() or path.is_symlink():
            continue
        if one.get("file_mode") != "binary":
            _put(path, path.read_bytes(), before.encode(), now.encode())
        elif len(now) > len(room):
            raise OSError(f"{path}: {now} is longer than the {len(room)} bytes that it has room for")
        else:
            _write(path, in_binary(path.read_bytes(), before.encode(), now.encode(), len(room)))
    _put(record, record.read_bytes(), before.encode(), now.encode())


def in_binary(data: bytes, before: bytes, now: bytes, room: int) -> bytes:
    """Replace a place in compiled code, whose length must stay.

    Args:
        data: all of the file.
        before, now: the places.
        room: how long the place was that the package was built with: conda has put zeros behind each string that held
            it, to make up for the difference.
    """
    pieces, at = [], 0
    while (begin := data.find(before, at)) >= 0:
        end = data.index(b"\0", begin)
        text = data[begin:end]
        length = len(text) + text.count(before) * (room - len(before)) + 1
        pieces += [data[at:begin], text.replace(before, now).ljust(length, b"\0")]
        at = begin + length
    return b"".join([*pieces, data[at:]])


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def _put(path: Path, data: bytes, before: bytes, now: bytes) -> None:
    if before in data:
        _write(path, data.replace(before, now))


def _write(path: Path, data: bytes) -> None:
    """Write a file anew, never in place: an installer's cache may hold the same one."""
    aside = path.with_name(f".tmp-{path.name}")
    aside.write_bytes(data)
    shutil.copymode(path, aside)
    aside.replace(path)


def _holds(path: Path, values: list[bytes]) -> bool:
    longest = max(map(len, values))
    rest = b""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            rest += piece
            if any(value in rest for value in values):
                return True
            rest = rest[-longest:]
    return False
