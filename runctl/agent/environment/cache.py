"""Environments that were made before, below the root of runs.

<run.root>/.environments/<key>/<sha256>.tar.gz   the environment
<run.root>/.environments/<key>/manifest.json     which archive it is, written last

Two that make the same one write an archive each, and the last manifest counts. An archive is trusted by its SHA-256.
"""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from runctl.agent.environment import archive
from runctl.digests import sha256_of
from runctl.encoding import dumps, from_data
from runctl.errors import StorageError
from runctl.storage import Store, open_store

FOLDER = ".environments"


@dataclass(frozen=True)
class Manifest:
    """What is kept of one environment.

    Attributes:
        sha256: of the archive.
        size_bytes: its size.
        folder: where it was made.
        seconds: how long making it took.
    """

    sha256: str
    size_bytes: int
    folder: str
    seconds: float


class CacheBroken(Exception):
    """What is kept cannot be used; the text says why."""


class Cache:
    """The environments below one root of runs.

    Args:
        root: path or URL.
    """

    def __init__(self, root: str) -> None:
        self._store: Store = open_store(root)

    def find(self, key: str) -> Manifest | None:
        """What is kept under a key, or None.

        Raises:
            CacheBroken: if its manifest cannot be read.
        """
        try:
            data = self._store.read(f"{FOLDER}/{key}/manifest.json")
            return None if data is None else from_data(Manifest, json.loads(data))
        except (StorageError, ValueError, TypeError, AttributeError) as error:
            raise CacheBroken(str(error)) from error

    def fetch(self, key: str, found: Manifest, folder: Path, stop: threading.Event) -> None:
        """Have a kept environment lie in `folder`.

        Raises:
            CacheBroken: if it cannot be had, or is not what it was.
        """
        packed = folder.with_name(f".tmp-{folder.name}.tar.gz")
        try:
            self._store.get_file(self._name(key, found.sha256), packed, found.size_bytes, stop)
            if sha256_of(packed) != found.sha256:
                raise CacheBroken("its SHA-256 is not the one it was kept with")
            archive.unpack(packed, folder)
            archive.relocate(folder, found.folder)
        except (StorageError, OSError, ValueError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise CacheBroken(str(error)) from error
        finally:
            packed.unlink(missing_ok=True)

    def publish(self, key: str, packed: Path, folder: Path, seconds: float) -> Manifest:
        """Keep a packed environment; a reader sees all of it or nothing.

        Raises:
            StorageError: if that fails.
        """
        manifest = Manifest(sha256_of(packed), packed.stat().st_size, str(folder), seconds)
        self._store.put_file(packed, self._name(key, manifest.sha256))
        self._store.write(f"{FOLDER}/{key}/manifest.json", dumps(manifest).encode())
        return manifest

    @staticmethod
    def _name(key: str, digest: str) -> str:
        return f"{FOLDER}/{key}/{digest}.tar.gz"
