"""Where a run that has no checkpoint yet may begin: the checkpoints of another one, by their URL."""

from __future__ import annotations

import threading
from collections.abc import Callable

from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.catalog import Catalog, Found
from runctl.checkpoint.remote import FOLDER, RemoteCatalog
from runctl.checkpoint.restore import Restore
from runctl.checkpoint.transfer import Transfer
from runctl.errors import CheckpointError
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
    raise CheckpointError(f"checkpoint.resume={url}: there is no checkpoint, neither there nor in {url}/{FOLDER}")
