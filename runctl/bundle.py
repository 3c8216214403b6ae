"""The user's code, packed: what git sees of the project, as it is now; and runctl itself, as a wheel.

Both are the same bytes for the same content, so that their SHA-256 is their address and nothing is sent twice.
"""

from __future__ import annotations

import contextlib
import fnmatch
import gzip
import hashlib
import importlib
import importlib.metadata
import io
import os
import re
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from runctl.digests import sha256_of
from runctl.errors import ConfigError

#: More that is left out, in git's syntax where git is there.
IGNORE_FILE = ".runctlignore"
_JUNK = (".git", "__pycache__", ".venv", "venv", "node_modules", ".mypy_cache", ".pytest_cache", ".ruff_cache")
#: The oldest time that a zip file can hold.
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_SHOWN = 5


@dataclass(frozen=True)
class Bundle:
    """A packed project.

    Attributes:
        path: the archive on this machine, a tar.gz.
        sha256: of its bytes, in hex.
        size_bytes: of the archive.
        files: how many are in it.
    """

    path: Path
    sha256: str
    size_bytes: int
    files: int


def pack(project_dir: Path, target_dir: Path, *, max_bytes: int) -> Bundle:
    """Pack a project: tracked and untracked files with their present contents, ignored ones left out.

    Args:
        project_dir: its root.
        target_dir: where the archive is put.
        max_bytes: how large its files may be together, unpacked.

    Raises:
        ConfigError: if it is too large, naming the largest files; for a link that leads out of the project.
    """
    names = sorted(_names(project_dir))
    sizes = {name: _size(project_dir, name) for name in names}
    if sum(sizes.values()) > max_bytes:
        raise _too_large(sizes, max_bytes)
    path = target_dir / "project.tar.gz"
    with _archive(path) as tar:
        for name in names:
            _add(tar, project_dir, name)
    return Bundle(path, sha256_of(path), path.stat().st_size, len(names))


def code_digest(project_dir: Path) -> str:
    """SHA-256 of all that is Python in a project as git sees it: names and contents."""
    digest = hashlib.sha256()
    for name in sorted(name for name in _names(project_dir) if name.endswith(".py")):
        with contextlib.suppress(OSError):  # a link to nothing
            digest.update(f"{name}\0{sha256_of(project_dir / name)}\n".encode())
    return digest.hexdigest()


def program(source: Path, name: str, target_dir: Path) -> Path:
    """Pack one program alone, so that it is one where it is unpacked: a file that is fetched may not be executed."""
    path = target_dir / f"{name}.tar.gz"
    data = source.read_bytes()
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o755
    with _archive(path) as tar:
        tar.addfile(entry, io.BytesIO(data))
    return path


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[tarfile.TarFile]:
    """A tar.gz to be filled, with nothing in it of who packs it and when."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        yield tar


def wheel(target_dir: Path) -> Path:
    """Make a wheel of this very runctl, installed or checked out, without a network or build tools.

    Raises:
        ConfigError: if runctl runs from a folder that was never installed.
    """
    try:
        installed = importlib.metadata.distribution("runctl")
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError("runctl is not installed here, so it cannot be sent: pip install runctl") from error
    info = f"runctl-{installed.version}.dist-info"
    path = target_dir / f"runctl-{installed.version}-py3-none-any.whl"
    record = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:

        def put(name: str, data: bytes) -> None:
            entry = zipfile.ZipInfo(name, _ZIP_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, data)
            record.append(f"{name},,")

        for name, source in sorted(_package_files()):
            put(name, source.read_bytes())
        put(f"{info}/METADATA", (installed.read_text("METADATA") or "").encode())
        put(f"{info}/WHEEL", b"Wheel-Version: 1.0\nGenerator: runctl\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        put(f"{info}/entry_points.txt", (installed.read_text("entry_points.txt") or "").encode())
        put(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,", ""]).encode())
    return path


def extra(name: str) -> list[str]:
    """What one of runctl's extras needs, as installers are told."""
    needed = importlib.metadata.requires("runctl") or []
    return [one.partition(";")[0].replace(" ", "") for one in needed if re.search(rf"extra == ['\"]{name}['\"]", one)]


def _package_files() -> Iterator[tuple[str, Path]]:
    """Names in the wheel, and where those files lie; `conf/` is a package of its own in a checkout."""
    for package in ("runctl", "runctl.conf"):
        folder = Path(importlib.import_module(package).__path__[0])
        prefix = package.replace(".", "/")
        for source in folder.rglob("*"):
            inside = source.relative_to(folder)
            twice = package == "runctl" and inside.parts[0] == "conf"
            if source.suffix in (".py", ".sh", ".yaml", ".typed") and "__pycache__" not in inside.parts and not twice:
                yield f"{prefix}/{inside.as_posix()}", source


def _names(project_dir: Path) -> Iterable[str]:
    """What belongs into the bundle, relative to the project."""
    found = _git_names(project_dir)
    if found is None:
        return _walked(project_dir)
    runs = {f"{root}/" for name in found if (root := _root_of_runs(name))}
    return [
        name
        for name in found
        if not any(name.startswith(root) for root in runs) and os.path.lexists(project_dir / name)  # or else deleted
    ]


def _root_of_runs(name: str) -> str | None:
    """The folder of runs that a file tells of: `runs` for `runs/x-1/spec.json`."""
    parts = name.rsplit("/", 2)
    return parts[0] if parts[1:2] and parts[-1] == "spec.json" and parts[0].rsplit("/", 1)[-1] == "runs" else None


def _git_names(project_dir: Path) -> set[str] | None:
    """As git sees it, or None outside of a checkout."""
    if not (project_dir / ".git").exists():
        return None
    names = _listed(project_dir, "--cached", "--others", "--exclude-standard")
    if names is None:
        return None
    for folder in [name for name in names if (project_dir / name).is_dir() and not (project_dir / name).is_symlink()]:
        # A submodule is one entry; what is in it, its own git knows.
        names.discard(folder)
        inner = project_dir / folder
        names.update(f"{folder.rstrip('/')}/{name}" for name in (_git_names(inner) or set(_walked(inner))))
    ignore = project_dir / IGNORE_FILE
    if ignore.exists():
        excluded = ("--ignored", f"--exclude-from={ignore}")
        names -= _listed(project_dir, "--cached", *excluded) or set()
        names -= _listed(project_dir, "--others", *excluded) or set()
    return names


def _listed(project_dir: Path, *options: str) -> set[str] | None:
    try:
        done = subprocess.run(
            ["git", "ls-files", "-z", *options], cwd=project_dir, capture_output=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return None  # no git here, or no checkout of this user's
    return {os.fsdecode(name) for name in done.stdout.split(b"\0") if name}


def _walked(project_dir: Path) -> Iterator[str]:
    """Every file but the usual junk; `.runctlignore` counts line by line as patterns of names and paths."""
    ignore = project_dir / IGNORE_FILE
    lines = ignore.read_text().splitlines() if ignore.exists() else []
    patterns = [line.strip().strip("/") for line in lines if line.strip() and not line.startswith("#")]
    for folder, folders, files in os.walk(project_dir):
        inside = Path(folder).relative_to(project_dir)
        linked = [name for name in folders if (Path(folder) / name).is_symlink()]
        folders[:] = sorted(
            name for name in folders
            if name not in (*_JUNK, *linked) and not _matches(str(inside / name), patterns)
            and not (name == "runs" and any((Path(folder) / name).glob("*/spec.json")))
        )  # fmt: skip
        for name in (*files, *linked):
            path = str(inside / name)
            if not path.endswith(".pyc") and not _matches(path, patterns):
                yield path


def _matches(path: str, patterns: list[str]) -> bool:
    name = path.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatch(path, pattern) or fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _size(project_dir: Path, name: str) -> int:
    return (project_dir / name).lstat().st_size


def _add(tar: tarfile.TarFile, project_dir: Path, name: str) -> None:
    """One file, with nothing in it of who packed it and when."""
    path = project_dir / name
    entry = tarfile.TarInfo(name)
    if path.is_symlink():
        entry.type = tarfile.SYMTYPE
        entry.linkname = _inside(project_dir, path)
        tar.addfile(entry)
        return
    with path.open("rb") as file:
        told = os.fstat(file.fileno())
        entry.size = told.st_size
        entry.mode = 0o755 if told.st_mode & stat.S_IXUSR else 0o644
        tar.addfile(entry, _Exactly(file, entry.size))


class _Exactly:
    """A file as long as it was when it was opened, whatever others write meanwhile: a tar entry must have its size."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        data += b"\0" * (wanted - len(data))
        self._left -= len(data)
        return data


def _inside(project_dir: Path, link: Path) -> str:
    """Where a link leads, as it is written.

    Raises:
        ConfigError: if that is out of the project: the host would have nothing there, or something else.
    """
    target = os.readlink(link)  # noqa: PTH115 (as it is written: a Path would tidy it up)
    leads_to = os.path.normpath(link.parent / target)
    if Path(target).is_absolute() or not Path(leads_to).is_relative_to(project_dir):
        raise ConfigError(
            f"{link.relative_to(project_dir)} is a link to {target}, out of the project: name it in {IGNORE_FILE}, "
            "and bring what it leads to with data.inputs"
        )
    return target


def _too_large(sizes: dict[str, int], max_bytes: int) -> ConfigError:
    largest = sorted(sizes, key=lambda name: -sizes[name])[:_SHOWN]
    told = ", ".join(f"{name} ({sizes[name] / 1e6:.0f} MB)" for name in largest)
    return ConfigError(
        f"the project has {sum(sizes.values()) / 1e6:.0f} MB, and {max_bytes / 1e6:.0f} MB may be sent: {told}. "
        f"Leave files out with .gitignore or {IGNORE_FILE}, bring data with data.inputs, or raise bundle.max_size"
    )
