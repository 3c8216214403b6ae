"""Where run directories lie: whole objects written aside and published last, and growing streams.

Two stores with one face. The local file system can rename and append; object storage can do neither, so
there a stream is a folder of write-once segments and a whole object is one request, which is atomic there.
"""

from __future__ import annotations

import os
from pathlib import Path

from runctl.errors import StorageError
from runctl.storage.base import RUN_ROOT, TEMPORARY, Store, Stream, Tail

__all__ = ["RUN_ROOT", "TEMPORARY", "Store", "Stream", "Tail", "check_place", "open_store"]


def open_store(url: str, named_by: str = RUN_ROOT) -> Store:
    """The store at a path or an fsspec URL (`runs/x`, `s3://bucket/prefix`).

    Args:
        url: where it lies.
        named_by: what the user would change to have another place (`checkpoint.url=…`), for the text of errors.

    Raises:
        StorageError: for a URL whose file system is unknown or needs a package that is missing.
    """
    if "://" not in url or url.startswith("file://"):
        from runctl.storage.local import LocalStore

        return LocalStore(Path(url.removeprefix("file://")), named_by)
    from runctl.storage.remote import FsspecStore

    return FsspecStore(url, named_by)


def check_place(key: str, url: str) -> None:
    """Check before a launch that objects can be written below `url`.

    Args:
        key: the configuration key that names it.
        url: a path, looked at closely, or an fsspec URL, of which only the file system is looked for: a bucket answers
            at the first write, and a probe would cost a request and rights.

    Raises:
        StorageError: with the reason.
    """
    if "://" in url and not url.startswith("file://"):
        open_store(url)
        return
    path = Path(url.removeprefix("file://")).absolute()
    existing = next(p for p in (path, *path.parents) if p.exists())
    if not existing.is_dir():
        raise StorageError(f"{key}={url}: {existing} is not a folder; choose another place with {key}=…")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise StorageError(f"{key}={url}: {existing} cannot be written; choose another place with {key}=…")
