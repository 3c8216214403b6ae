"""The checkpoints of a run in its run directory on object storage: list, publish, fetch, prune.

    checkpoints/step-000120/data.pt …      in parallel
    checkpoints/step-000120/manifest.json  after everything else has arrived
    checkpoints/LATEST                     a hint for people, which no reader here looks at

Nothing can be renamed there: a checkpoint is there when its manifest is, and is gone when its manifest is. One that
turned out to be corrupt has its manifest under another name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.catalog import kept
from runctl.checkpoint.manifest import Manifest
from runctl.encoding import dumps, loads
from runctl.errors import CheckpointCorrupt, CheckpointError, StorageError
from runctl.spec import Retention
from runctl.storage import Store
from runctl.storage.base import unwatched

FOLDER = "checkpoints"
LATEST = "LATEST"
_BAD = f"bad-{manifests.NAME}"
_SUPERSEDED = f"superseded-{manifests.NAME}"
_FILES_AT_ONCE = 8


class RemoteCatalog:
    """The folder `checkpoints/` of one run's directory, wherever that lies.

    Args:
        store: the run directory.
        folder: where in it they lie.
    """

    def __init__(self, store: Store, folder: str = FOLDER) -> None:
        self._store = store
        self._base = folder

    @property
    def place(self) -> str:
        """Where the checkpoints lie, for people."""
        return f"{self._store.url}/{self._base}"

    def url(self, step: int) -> str:
        """Where a checkpoint lies, for people."""
        return f"{self._store.url}/{self._folder(step)}"

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints (those with a manifest), ascending."""
        return sorted(step for step, files in self._listing().items() if manifests.NAME in files)

    def has_bad(self) -> bool:
        """Whether there are checkpoints that were set aside."""
        return any(_BAD in files for files in self._listing().values())

    def manifest(self, step: int) -> Manifest:
        """The manifest of a checkpoint all of whose files are there in their sizes; their bytes are not looked at.

        Raises:
            CheckpointCorrupt: naming what is missing or wrong.
            StorageError: if the storage cannot be read.
        """
        manifest = self._read_manifest(step)
        have = self._store.sizes(self._folder(step))
        for name, entry in manifest.files.items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise CheckpointCorrupt(f"{self.url(step)}: its manifest names {name}, which lies outside of it")
            if have.get(name) != entry.size_bytes:
                said = f"has {have[name]} bytes" if name in have else "is not there"
                raise CheckpointCorrupt(f"{self.url(step)}/{name}: {said}, the manifest says {entry.size_bytes} bytes")
        return manifest

    def durable(self) -> dict[int, Manifest]:
        """The checkpoints that are there as their manifests say, by step."""
        found = {}
        for step in self.steps():
            try:
                found[step] = self.manifest(step)
            except CheckpointCorrupt:  # whoever restores from it looks closer and says so
                continue
        return found

    def publish(self, folder: Path, arrived: set[str], moved: Callable[[int], None] = unwatched) -> None:
        """Carry a finished checkpoint there.

        Args:
            folder: the checkpoint on this machine.
            arrived: names of its files that an earlier try has carried already; added to as more arrive.
            moved: called with numbers of bytes as they move, from several threads.

        Raises:
            StorageError: if that fails; what has arrived by then is no checkpoint to any reader.
        """
        manifest = manifests.read(folder)
        if not self._is_there(manifest):
            self._replace(folder, manifest, arrived, moved)
        self._store.write(f"{self._base}/{LATEST}", f"{manifests.folder_name(manifest.step)}\n".encode())

    def fetch(
        self,
        step: int,
        aside: Path,
        stop: threading.Event,
        begun: Callable[[Manifest], None] | None = None,
        moved: Callable[[int], None] = unwatched,
    ) -> Manifest:
        """Copy a checkpoint into a folder of this machine, every byte of it checked.

        Args:
            step: which.
            aside: an existing, empty folder.
            stop: once set, the copying ends soon with an error.
            begun: called before the first byte of its files, each time that they are copied.
            moved: called with numbers of bytes as they move, from several threads.

        Returns:
            Its manifest.

        Raises:
            CheckpointCorrupt: naming the file whose bytes are wrong, twice over: a first time may be the network's.
            CheckpointError: if this machine's disk does not take it.
            StorageError: if the storage cannot be read.
        """
        try:
            return self._fetch(step, aside, stop, begun, moved)
        except CheckpointCorrupt:
            # It may have been the network: also what the manifest says comes anew.
            return self._fetch(step, aside, stop, begun, moved)

    def _fetch(
        self,
        step: int,
        aside: Path,
        stop: threading.Event,
        begun: Callable[[Manifest], None] | None,
        moved: Callable[[int], None],
    ) -> Manifest:
        manifest = self.manifest(step)
        if begun is not None:
            begun(manifest)
        for name, entry in manifest.files.items():
            target = aside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and manifests.hash_file(target, manifest.hash) == entry:
                moved(entry.size_bytes)
                continue
            self._store.get_file(f"{self._folder(step)}/{name}", target, entry.size_bytes, stop, moved)
            if manifests.hash_file(target, manifest.hash) != entry:
                raise CheckpointCorrupt(
                    f"{self.url(step)}/{name}: its bytes are not those that were written ({manifest.hash} differs)"
                )
        try:
            # What was checked, and not what another request would bring.
            (aside / manifests.NAME).write_text(dumps(manifest))
        except OSError as error:
            raise CheckpointError(f"{aside}: cannot be written ({error.strerror})") from error
        return manifest

    def set_aside(self, step: int) -> None:
        """Have a checkpoint that is not usable count no more; its files stay for people to look at."""
        self._rename_manifest(step, _BAD)

    def supersede(self, steps: Iterable[int]) -> None:
        """Have checkpoints count no more; as `Catalog.supersede`."""
        for step in steps:
            self._rename_manifest(step, _SUPERSEDED)

    def prune(self, durable: dict[int, Manifest], retention: Retention, newest: int) -> list[int]:
        """Remove what the retention does not keep.

        Args:
            durable: what is known to be there whole; steps that are removed are taken out of it.
            newest: the step that was published last. It stays even if there are later steps, from before a resume.

        Returns:
            The steps removed.
        """
        steps = sorted(durable)
        keep = kept(steps, retention, lambda step: durable[step].metrics) | {newest}
        removed = [step for step in steps if step not in keep]
        for step in removed:
            self.remove(step)
            del durable[step]
        return removed

    def remove(self, step: int) -> None:
        """Remove a checkpoint; it stops being one before its files go."""
        self._store.delete(f"{self._folder(step)}/{manifests.NAME}")
        for name in self._store.sizes(self._folder(step)):
            self._store.delete(f"{self._folder(step)}/{name}")

    def abort(self) -> None:
        """Discard the parts of large files that never became whole."""
        self._store.abort_uploads(self._base)

    def sweep(self) -> None:
        """Remove what uploads that were killed left behind: files without a manifest; their parts, `abort` removes."""
        for step, files in self._listing().items():
            if not {manifests.NAME, _BAD, _SUPERSEDED} & files:
                self.remove(step)

    def _is_there(self, manifest: Manifest) -> bool:
        try:
            return self.manifest(manifest.step).files == manifest.files
        except CheckpointCorrupt:
            return False

    def _replace(self, folder: Path, manifest: Manifest, arrived: set[str], moved: Callable[[int], None]) -> None:
        where = self._folder(manifest.step)
        # Another's files of this step, from before a resume: they stop being a checkpoint before they change.
        self._store.delete(f"{where}/{manifests.NAME}")
        self._carry(folder, [name for name in manifest.files if name not in arrived], where, arrived, moved)
        have = self._store.sizes(where)
        for name, entry in manifest.files.items():
            if have.get(name) != entry.size_bytes:
                arrived.discard(name)
                raise StorageError(f"{self.url(manifest.step)}/{name}: arrived with {have.get(name, 0)} bytes")
        data = (folder / manifests.NAME).read_bytes()
        self._store.write(f"{where}/{manifests.NAME}", data)
        if self._store.read(f"{where}/{manifests.NAME}") != data:  # no other hash stands behind it
            raise StorageError(f"{self.url(manifest.step)}/{manifests.NAME}: arrived with other bytes")
        for stale in (_BAD, _SUPERSEDED):
            self._store.delete(f"{where}/{stale}")

    def _carry(
        self, folder: Path, names: Iterable[str], where: str, arrived: set[str], moved: Callable[[int], None]
    ) -> None:
        def put(name: str) -> None:
            self._store.put_file(folder / name, f"{where}/{name}", moved)
            arrived.add(name)

        pool = ThreadPoolExecutor(_FILES_AT_ONCE, "runctl-upload")
        try:
            list(pool.map(put, names))
        finally:
            pool.shutdown(cancel_futures=True)

    def _rename_manifest(self, step: int, name: str) -> None:
        data = self._store.read(f"{self._folder(step)}/{manifests.NAME}")
        self._store.write(f"{self._folder(step)}/{name}", data or b"")
        self._store.delete(f"{self._folder(step)}/{manifests.NAME}")

    def _read_manifest(self, step: int) -> Manifest:
        data = self._store.read(f"{self._folder(step)}/{manifests.NAME}")
        if data is None:
            raise CheckpointCorrupt(f"{self.url(step)}: has no {manifests.NAME}: it was never finished")
        try:
            manifest = loads(Manifest, data.decode())
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointCorrupt(f"{self.url(step)}: its {manifests.NAME} cannot be read ({error})") from error
        if manifest.step != step:
            raise CheckpointCorrupt(f"{self.url(step)}: its manifest is of step {manifest.step}")
        return manifest

    def _listing(self) -> dict[int, set[str]]:
        """What there is of each step, finished or not."""
        found: dict[int, set[str]] = {}
        for path in self._store.sizes(self._base):
            folder, _, name = path.partition("/")
            if (step := manifests.step_of(folder)) is not None and name:
                found.setdefault(step, set()).add(name)
        return found

    def _folder(self, step: int) -> str:
        return f"{self._base}/{manifests.folder_name(step)}"
