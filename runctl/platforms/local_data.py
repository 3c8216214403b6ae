"""Data of this machine for a rented host: sent once by its content, and looked for where it was forgotten.

<run.root>/.data/<digest>/<name>     a file or a folder; `<name>.complete` is written last, and tells when
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from runctl.checkpoint.transfer import readable
from runctl.digests import sha256_of
from runctl.errors import ConfigError
from runctl.spec import LaunchSpec, Transfer
from runctl.storage import open_store

_AT_ONCE = 8
#: What was sent longer ago is sent anew: a bucket that `runctl aws setup` made drops it after twice that, and whoever
#: begins with it needs it for a while.
_FRESH_S = 30 * 24 * 3600.0


def sent(spec: LaunchSpec, workdir: Path, tell: Callable[[str], None]) -> LaunchSpec:
    """The spec with every input of this machine at a URL below the root of runs, where it has been put.

    Args:
        spec: as composed.
        workdir: where relative paths are looked for.
        tell: takes lines for the user.

    Raises:
        ConfigError: for an input that is not there.
        StorageError: if it cannot be sent.
    """
    inputs = tuple(
        one if "://" in one.source else Transfer(_send(workdir / one.source, spec.run.root, tell), one.target)
        for one in spec.data.inputs
    )
    return replace(spec, data=replace(spec.data, inputs=inputs))


def check_none_forgotten(spec: LaunchSpec, workdir: Path) -> None:
    """Check that no argument names a path of this machine that the host will not have.

    Raises:
        ConfigError: for the first that does.
    """
    for named in forgotten(spec, workdir):
        path = named.split("=", 1)[1]
        raise ConfigError(
            f"{named}: {path} is ignored by git, so the host will not have it; bring it with "
            f"'data.inputs=[{{from: {path}, to: {path}}}]'"
        )


def forgotten(spec: LaunchSpec, workdir: Path) -> list[str]:
    """Arguments whose value is a path of this machine that the host will not have: ignored by git, and not brought."""
    brought = [(workdir / one.target).resolve() for one in spec.data.inputs]
    named = {}
    for name, value in spec.effective_args().items():
        if not isinstance(value, str) or not value.strip() or "://" in value:
            continue
        path = (workdir / value).absolute()
        if path.exists() and not any(path.resolve().is_relative_to(one) for one in brought):
            named[f"args.{name}={value}"] = path
    return [key for key, path in named.items() if _is_ignored(path, workdir)]


def _is_ignored(path: Path, workdir: Path) -> bool:
    try:
        done = subprocess.run(
            ["git", "check-ignore", "-q", "--", str(path)], cwd=workdir, capture_output=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def described(source: Path) -> tuple[dict[Path, str], str]:
    """A file or folder by its content.

    Returns:
        Its files with their names in it, which of a single file is empty; and a digest of names and content, in hex.

    Raises:
        ConfigError: if there is nothing.
    """
    if not source.exists():
        raise ConfigError(f"data.inputs: there is nothing at {source}")
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    names = {path: path.relative_to(source).as_posix() if source.is_dir() else "" for path in files}
    digest = hashlib.sha256()
    for path in files:
        digest.update(names[path].encode() + b"\0" + bytes.fromhex(sha256_of(path)) + b"\0")
    return names, digest.hexdigest()


def _send(source: Path, root: str, tell: Callable[[str], None]) -> str:
    names, digest = described(source)
    place = f".data/{digest}"
    store = open_store(root)
    if not _is_fresh(store.read(f"{place}/{source.name}.complete")):
        tell(f"sending {source.name}: {told_size(names)}")
        with ThreadPoolExecutor(_AT_ONCE, "runctl-data") as pool:
            for done in [
                pool.submit(store.put_file, path, f"{place}/{source.name}/{name}".rstrip("/"))
                for path, name in names.items()
            ]:
                done.result()
        store.write(f"{place}/{source.name}.complete", str(time.time()).encode())
    return f"{root.rstrip('/')}/{place}/{source.name}"


def _is_fresh(complete: bytes | None) -> bool:
    """Whether what was sent will lie there for long enough."""
    with contextlib.suppress(ValueError):
        return complete is not None and time.time() - float(complete) < _FRESH_S
    return False


def told_size(files: Iterable[Path]) -> str:
    """How much that is, for people: `3 files, 1.2 MB`."""
    sizes = [path.stat().st_size for path in files]
    return f"{len(sizes)} file{'s' * (len(sizes) != 1)}, {readable(sum(sizes))}"
