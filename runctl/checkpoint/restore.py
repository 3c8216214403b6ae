"""What an attempt begins from: the newest checkpoint of this machine and of the run directory that verifies."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.catalog import Catalog, Found
from runctl.checkpoint.manifest import Manifest
from runctl.checkpoint.remote import RemoteCatalog
from runctl.checkpoint.transfer import Transfer, readable
from runctl.errors import CheckpointCorrupt, CheckpointError, StorageError

T = TypeVar("T")

#: Pauses between the tries of whatever the storage refuses; an attempt that cannot restore ends with the last error.
_PAUSES_S = (1.0, 2.0, 4.0, 8.0)


class Restore:
    """Finds a checkpoint, and brings it to this machine.

    Args:
        local: the folder of this machine.
        remote: the run directory's.
        say: takes what people should know: a corrupt checkpoint, a storage that does not answer.
        stop: once set, a copy that is under way ends soon with an error.
        transfer: told how far a copy has come.
        borrowed: the remote checkpoints are another run's: nothing there is changed.
    """

    def __init__(
        self, local: Catalog, remote: RemoteCatalog, say: Callable[[str], None], stop: threading.Event,
        transfer: Transfer | None = None, *, borrowed: bool = False,
    ) -> None:  # fmt: skip
        self._local = local
        self._remote = remote
        self._say = say
        self._stop = stop
        self._transfer = transfer or Transfer()
        self._borrowed = borrowed

    def newest(self, skip: frozenset[int] = frozenset()) -> Found | None:
        """The newest checkpoint that verifies, or None if there is none at all.

        Corrupt ones are named and set aside.

        Args:
            skip: steps not to consider: those that did not load.

        Raises:
            CheckpointCorrupt: if there are checkpoints and none is usable.
            StorageError: if the storage cannot be read.
        """
        here, there = set(self._local.steps()), set(self._patiently(self._remote.steps))
        for step in sorted((here | there) - skip, reverse=True):
            if step in here and (found := self._take(self._verified, step, self._local)):
                return found
            if step in there and (found := self._take(self._fetched, step, self._remote)):
                return found
        if here or there or self._local.has_bad() or self._patiently(self._remote.has_bad):
            raise CheckpointCorrupt(
                f"{self._remote.place}: there are checkpoints and none is usable; "
                "look at them, or begin anew with checkpoint.resume=never"
            )
        return None

    def of_step(self, step: int) -> Found:
        """The checkpoint of one step.

        Raises:
            CheckpointCorrupt: if it does not verify, or there is none.
            StorageError: if the storage cannot be read.
        """
        if step in self._local.steps():
            return self._verified(step)
        there = self._patiently(self._remote.steps)
        if step not in there:
            have = ", ".join(map(str, there)) or "none"
            raise CheckpointCorrupt(f"{self._remote.place}: no checkpoint of step {step}; there are {have}")
        return self._fetched(step)

    def _take(self, get: Callable[[int], Found], step: int, catalog: Catalog | RemoteCatalog) -> Found | None:
        try:
            return get(step)
        except CheckpointCorrupt as error:
            self._say(f"{error}; going back to the one before")
            if not (self._borrowed and catalog is self._remote):
                self._patiently(lambda: catalog.set_aside(step))
            return None

    def _verified(self, step: int) -> Found:
        return Found(self._local.path(step), self._local.verified(step))

    def _fetched(self, step: int) -> Found:
        aside = self._local.folder / f".tmp-download-{manifests.folder_name(step)}-{os.getpid()}"
        final = self._local.path(step)
        began = time.monotonic()
        try:
            manifest = self._patiently(lambda: self._fetch(step, aside))
            shutil.rmtree(final, ignore_errors=True)  # an unfinished folder of that name
            aside.rename(final)
        except OSError as error:
            raise CheckpointError(f"{final}: cannot be written ({error.strerror})") from error
        finally:
            self._transfer.end()
            shutil.rmtree(aside, ignore_errors=True)
        self._say(f"restored in {time.monotonic() - began:.1f} s")
        return Found(final, manifest)

    def _fetch(self, step: int, aside: Path) -> Manifest:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        return self._remote.fetch(step, aside, self._stop, self._begun, self._transfer.moved)

    def _begun(self, manifest: Manifest) -> None:
        if self._transfer.step is None:  # once, however often it is tried
            size = readable(manifest.size_bytes)
            self._say(f"restoring checkpoint step {manifest.step} from {self._remote.url(manifest.step)}: {size}")
        self._transfer.begin(manifest.step, manifest.size_bytes)

    def _patiently(self, call: Callable[[], T]) -> T:
        for pause_s in _PAUSES_S:
            try:
                return call()
            except StorageError as error:
                if self._stop.is_set():
                    raise
                self._say(f"{error} (tried again in {pause_s:g} s)")
                self._stop.wait(pause_s)
        return call()
