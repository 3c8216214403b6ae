"""Where a run that has no checkpoint yet may begin: the checkpoints of another one, by their URL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.catalog import Catalog, Found
from runctl.checkpoint.remote import FOLDER, RemoteCatalog
from runctl.checkpoint.restore import Restore
from runctl.checkpoint.transfer import Transfer
from runctl.errors import CheckpointCorrupt, CheckpointError
from runctl.storage import open_store

_NAMED_BY = "checkpoint.resume=…"


def bring(url: str, local: Catalog, say: Callable[[str], None], stop: threading.Event, transfer: Transfer) -> Found:
    """Copy a checkpoint of another run to this machine. Nothing changes where it comes from.

    Args:
        url: path or URL of a run directory, of a folder of checkpoints, or of one checkpoint (`…/step-000120`).
        local: the folder of this machine, without a checkpoint so far.
        say: takes what people should know.
        stop: once set, a copy that is under way ends soon with an error.
        transfer: told how far a copy has come.

    Returns:
        The copy: of the newest that verifies, or of the one that was named.

    Raises:
        CheckpointError: if there is none, or none that verifies.
        StorageError: if the storage cannot be read.
    """
    place, _, last = url.rstrip("/").rpartition("/")
    step = manifests.step_of(last)
    if step is not None:
        above, _, folder = place.rpartition("/")
        remote = RemoteCatalog(open_store(above, _NAMED_BY), folder)
        return Restore(local, remote, say, stop, transfer, borrowed=True).of_step(step)
    run, folder_itself = (url, FOLDER), (place, last)
    for where, folder in (run, folder_itself):
        if where.rstrip("/").endswith(":") or not where:
            continue  # a bucket lies in nothing
        remote = RemoteCatalog(open_store(where, _NAMED_BY), folder)
        restore = Restore(local, remote, say, stop, transfer, borrowed=True)
        if (found := restore.newest()) is not None:
            return found
    raise _none(url)


def here(place: str, say: Callable[[str], None]) -> Found:
    """The checkpoint that `bring` would copy from this machine, verified where it lies. Nothing changes there.

    Args:
        place: path of a run directory, of a folder of checkpoints, or of one checkpoint.
        say: takes what people should know.

    Raises:
        CheckpointError: if there is none, or none that verifies.
    """
    step = manifests.step_of(Path(place).name)
    if step is not None:
        catalog = Catalog(Path(place).parent)
        return Found(catalog.path(step), catalog.verified(step))
    for folder in (Path(place, FOLDER), Path(place)):
        catalog = Catalog(folder)

        def reject(error: CheckpointCorrupt) -> None:
            say(f"{error}; going back to the one before")

        if (found := catalog.newest(reject, set_aside=False)) is not None:
            return found
    raise _none(place)


def _none(place: str) -> CheckpointError:
    return CheckpointError(f"checkpoint.resume={place}: there is no checkpoint, neither there nor in {place}/{FOLDER}")
