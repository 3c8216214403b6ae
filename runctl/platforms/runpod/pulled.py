"""Checkpoints that lie on a pod, brought here as they are finished: what survives the pod without object storage.

Only whole ones, those with a manifest; every byte is checked against it before the folder gets its name. The newest
comes first: it is what the next pod begins from.
"""

from __future__ import annotations

import contextlib
import posixpath
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.progress import ProgressBar
from runctl.checkpoint.transfer import Transfer
from runctl.errors import CheckpointCorrupt, PlatformError
from runctl.platforms.runpod.files import PodFiles
from runctl.platforms.runpod.mirror import Listed
from runctl.platforms.runpod.ssh import Connection
from runctl.spec import Retention

FOLDER = "checkpoints"
#: Files at once: one channel comes no further than its window in each round trip.
_AT_ONCE = 4


class PulledCheckpoints:
    """Brings checkpoints in a thread of its own, one after the other.

    Args:
        connection: to the pod.
        remote: the run directory's path there.
        catalog: the checkpoints here.
        retention: which of them stay here.
        arrived: called with the step of each that is here.
        bar: shows how far one has come.
        tell: takes lines for the user.
    """

    def __init__(
        self, connection: Connection, remote: str, catalog: Catalog, retention: Retention, *,
        arrived: Callable[[int], None], bar: ProgressBar, tell: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._connection = connection
        self._remote = posixpath.join(remote, FOLDER)
        self._catalog = catalog
        self._retention = retention
        self._arrived = arrived
        self._bar = bar
        self._tell = tell
        self._done: set[int] = set(catalog.steps())
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    @property
    def steps(self) -> list[int]:
        """The steps of those that are here."""
        return self._catalog.steps()

    def look(self, listed: Mapping[str, Listed], *, wait: bool) -> list[int]:
        """Begin to bring what is missing, unless something is on its way.

        Args:
            listed: all files of the run directory there.
            wait: until all of it is here.

        Returns:
            The steps of those that are here.

        Raises:
            PlatformError: if the last one could not be brought.
        """
        while True:
            if self._thread is not None and (wait or not self._thread.is_alive()):
                self._thread.join()
                self._thread = None
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            missing = sorted(_finished(listed) - self._done)
            if self._thread is None and missing:
                self._thread = threading.Thread(
                    target=self._bring, args=(missing[-1], listed), name="runctl-checkpoints", daemon=True
                )
                self._thread.start()
            if not (wait and missing):
                return self.steps

    def close(self) -> None:
        """Bring no more, once the connection is closed."""
        if self._thread is not None:
            self._thread.join()

    def _bring(self, step: int, listed: Mapping[str, Listed]) -> None:
        try:
            self._bring_one(step, listed)
            self._done.add(step)
        except FileNotFoundError:
            self._done.add(step)  # pruned there meanwhile
        except CheckpointCorrupt as error:
            self._tell(f"{error}; it is left on the pod")
            self._done.add(step)
        except OSError as error:
            self._error = PlatformError(f"{self._catalog.path(step)} cannot be written: {error.strerror}")
        except Exception as error:  # noqa: BLE001 (raised again by whoever looks)
            self._error = error

    def _bring_one(self, step: int, listed: Mapping[str, Listed]) -> None:
        name = manifests.folder_name(step)
        prefix = f"{FOLDER}/{name}/"
        files = {path.removeprefix(prefix): one for path, one in listed.items() if path.startswith(prefix)}
        # Its parts stay if the line breaks off: the next try goes on with them.
        aside = self._catalog.folder / ".tmp-pulled" / name
        aside.mkdir(parents=True, exist_ok=True)
        transfer = Transfer(lambda moved: self._bar.show("bringing", moved))
        transfer.begin(step, sum(one.size_bytes for one in files.values()))

        def bring(path: str) -> None:
            if (aside / path).exists():
                transfer.moved(files[path].size_bytes)
                return
            with contextlib.closing(PodFiles(self._connection)) as there:
                source = posixpath.join(self._remote, name, path)
                there.get(source, aside / path, size_bytes=files[path].size_bytes, verify=False, moved=transfer.moved)

        try:
            with ThreadPoolExecutor(_AT_ONCE, "runctl-checkpoint") as pool:
                for done in [
                    pool.submit(bring, path) for path in sorted(files, key=lambda path: -files[path].size_bytes)
                ]:
                    done.result()
        except FileNotFoundError:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        finally:
            transfer.end()
            self._bar.clear()
        self._publish(step, aside)

    def _publish(self, step: int, aside: Path) -> None:
        try:
            manifests.verify(aside)
        except CheckpointCorrupt:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        final = self._catalog.path(step)
        shutil.rmtree(final, ignore_errors=True)  # an unfinished folder of that name
        aside.rename(final)
        self._arrived(step)
        self._catalog.prune(self._retention)


def _finished(listed: Mapping[str, Listed]) -> set[int]:
    """Steps of the checkpoints that have a manifest."""
    found = (path.split("/") for path in listed if path.startswith(f"{FOLDER}/") and path.endswith(manifests.NAME))
    steps = (manifests.step_of(words[1]) for words in found if len(words) == 3)
    return {step for step in steps if step is not None}
