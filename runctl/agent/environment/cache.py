"""Environments that were made before, below the root of runs.

<run.root>/.environments/<key>/<sha256>.tar.gz   parts of the environment
<run.root>/.environments/<key>/manifest.json     which parts they are, written last

Two that make the same one write parts each, and the last manifest counts. A part is trusted by its SHA-256.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from runctl.agent.carried import at_once
from runctl.agent.environment import archive
from runctl.digests import sha256_of
from runctl.encoding import dumps, from_data
from runctl.errors import StorageError
from runctl.storage import Store, open_store

FOLDER = ".environments"
_AT_ONCE = 8


@dataclass(frozen=True)
class Part:
    """One archive: the SHA-256 of its content, and its size."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """What is kept of one environment.

    Attributes:
        parts: its archives.
        folder: where it was made.
        seconds: how long making it took.
    """

    parts: tuple[Part, ...]
    folder: str
    seconds: float

    @property
    def size_bytes(self) -> int:
        return sum(part.size_bytes for part in self.parts)


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
        folder.mkdir(parents=True)
        jobs = [functools.partial(self._fetch, key, part, folder, stop) for part in found.parts]
        try:
            at_once(jobs, min(_AT_ONCE, os.cpu_count() or 1), "runctl-environment")
            archive.relocate(folder, found.folder)
        except (CacheBroken, StorageError, OSError, ValueError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise CacheBroken(str(error)) from error

    def _fetch(self, key: str, part: Part, folder: Path, stop: threading.Event) -> None:
        packed = folder.with_name(f".tmp-{part.sha256}.tar.gz")
        try:
            self._store.get_file(self._name(key, part.sha256), packed, part.size_bytes, stop)
            if sha256_of(packed) != part.sha256:
                raise CacheBroken("its SHA-256 is not the one it was kept with")
            archive.unpack(packed, folder)
        finally:
            packed.unlink(missing_ok=True)

    def put(self, key: str, packed: Path) -> Part:
        """Put down a part, which counts for nothing until the manifest names it.

        Raises:
            StorageError: if that fails.
        """
        part = Part(sha256_of(packed), packed.stat().st_size)
        self._store.put_file(packed, self._name(key, part.sha256))
        return part

    def publish(self, key: str, manifest: Manifest) -> None:
        """Have an environment be there whose parts are.

        Raises:
            StorageError: if that fails.
        """
        self._store.write(f"{FOLDER}/{key}/manifest.json", dumps(manifest).encode())

    @staticmethod
    def _name(key: str, digest: str) -> str:
        return f"{FOLDER}/{key}/{digest}.tar.gz"
