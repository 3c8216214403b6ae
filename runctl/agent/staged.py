"""What has been brought to a host or from it: which version of each file."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path

from runctl.storage.base import Stamp

SUFFIX = ".runctl-staged.json"


class Record:
    """Which versions of which files have been brought, in a file beside them.

    Args:
        place: of the data on this host, a file or a folder.
        of: the other end, if one place may go to several.
    """

    def __init__(self, place: Path, *, of: str = "") -> None:
        self._place = place
        # Not in the folder: a training may take every file in there for its own.
        self._path = place.with_name(f".{place.name}{SUFFIX}")
        self._of = of
        self._lock = threading.Lock()
        try:
            self._told: dict[str, dict[str, list[object]]] = json.loads(self._path.read_text())
        except (OSError, ValueError):
            self._told = {}
        self._mine = self._told.setdefault(of, {})

    def path(self, name: str) -> Path:
        """Where a file lies on this host."""
        return self._place / name if name else self._place

    def has(self, name: str, stamp: Stamp) -> bool:
        """Whether this version has been brought, and the file here is as it was then."""
        known = self._mine.get(name)
        path = self.path(name)
        return known is not None and path.is_file() and known == self._line(path, stamp)

    def note(self, name: str, stamp: Stamp) -> None:
        with self._lock:
            self._mine[name] = self._line(self.path(name), stamp)

    def write(self) -> None:
        """Keep it; without it, everything would be brought once more."""
        with contextlib.suppress(OSError):
            aside = self._path.with_name(f".tmp-{self._path.name}")
            aside.write_text(json.dumps(self._told))
            aside.replace(self._path)

    @staticmethod
    def _line(path: Path, stamp: Stamp) -> list[object]:
        here = path.stat()
        return [stamp.size_bytes, stamp.version, here.st_size, here.st_mtime_ns]
