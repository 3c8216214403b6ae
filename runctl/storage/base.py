"""The face of a store, and the translation of what back-ends raise."""

from __future__ import annotations

import contextlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runctl.errors import StorageError

TEMPORARY = ".tmp-"
#: What names a place where nothing else is said.
RUN_ROOT = "run.root=…"


def unwatched(size_bytes: int) -> None:
    """Nobody looks on while bytes move."""


@dataclass(frozen=True)
class Stamp:
    """What tells one version of a file from the next.

    Attributes:
        size_bytes: its size.
        version: of its content, in the store's own terms.
    """

    size_bytes: int
    version: str


class Stream(ABC):
    """An append-only sequence of bytes under one name."""

    @abstractmethod
    def append(self, data: bytes) -> None:
        """Add bytes to the end, without waiting for a network."""

    @abstractmethod
    def flush(self) -> None:
        """Have what was appended readable by others soon; locally it is so at once."""

    @abstractmethod
    def close(self) -> None:
        """Make all that was appended readable, and release what is held.

        Raises:
            StorageError: if that failed.
        """


class Tail(ABC):
    """A reader of a stream that goes on where it left off."""

    @abstractmethod
    def read(self) -> Iterator[bytes]:
        """What has come since the last time, in pieces; nothing if there is no such stream yet."""


class Store(ABC):
    """A folder of named objects. Names are relative, with forward slashes.

    Args:
        url: where it lies.
        named_by: what the user would change to have another place, for the text of errors.
    """

    def __init__(self, url: str, named_by: str) -> None:
        self.url = url
        self._named_by = named_by

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """The object's bytes, or None if there is none."""

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The JSON object of that name, or None if there is none.

        Raises:
            StorageError: if it cannot be read, or is none.
        """
        data = self.read(name)
        try:
            parsed: dict[str, Any] | None = None if data is None else json.loads(data)
        except ValueError as error:
            raise StorageError(f"{self.url}/{name} cannot be read: {error}; delete it if it is damaged") from error
        return parsed

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Publish an object whole: a reader sees the old one or the new one, never a part."""

    @abstractmethod
    def post(self, name: str, data: bytes) -> None:
        """Publish an object that may be late: it never raises, and never waits for a network.

        The newest of a name wins. What cannot be written is said once, and tried again.
        """

    @abstractmethod
    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Hold the store alone among this machine's processes, where it can be locked: locally."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Names of the objects right below `folder`, sorted, temporary ones left out."""

    @abstractmethod
    def sizes(self, folder: str) -> dict[str, int]:
        """Sizes in bytes of all objects anywhere below `folder`, by path from there, temporary ones left out."""

    @abstractmethod
    def stamps(self, name: str) -> dict[str, Stamp]:
        """Every file below the folder `name`, by path from there; one file is there by the empty path. {} for nothing.

        Temporary ones are left out.
        """

    @abstractmethod
    def put_file(self, source: Path, name: str, moved: Callable[[int], None] = unwatched) -> None:
        """Publish a file whole, however large, in parts: memory is bounded, and a reader never sees a part.

        Args:
            source: the file.
            name: the object's.
            moved: called with numbers of bytes as they move, from several threads.
        """

    @abstractmethod
    def get_file(
        self,
        name: str,
        target: Path,
        size_bytes: int,
        stop: threading.Event,
        moved: Callable[[int], None] = unwatched,
    ) -> None:
        """Copy an object of a known size into a file, in parts; once `stop` is set, it raises soon.

        Args:
            moved: called with numbers of bytes as they move, from several threads.
        """

    @abstractmethod
    def abort_uploads(self, folder: str) -> int:
        """Discard the parts of uploads below `folder` that were never finished, which would be billed.

        Returns:
            How many uploads were discarded.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object; nothing happens if there is none."""

    def remove_folder(self) -> None:  # noqa: B027 (object storage has no folders)
        """Remove the store's own folder, where it is one, with whatever is left in it."""

    def sweep(self) -> None:  # noqa: B027 (most stores have nothing to do)
        """Remove what writers that were killed left behind; only where nobody else writes.

        Object storage has nothing of the kind: a put is there whole or not at all.
        """

    @abstractmethod
    def stream(self, name: str, writer: str = "") -> Stream:
        """Open a stream for appending; `writer` tells writers of one stream apart."""

    def read_stream(self, name: str) -> Iterator[bytes]:
        """A stream's bytes so far, in pieces, in order."""
        return self.tail(name).read()

    @abstractmethod
    def tail(self, name: str, skip_bytes: int = 0) -> Tail:
        """A reader of a stream from its begin, or from `skip_bytes` on."""

    def _translated(self, where: str, errors: type[Exception] = OSError) -> contextlib.AbstractContextManager[None]:
        """As `translated`, with a hint at what named this place."""
        return translated(where, f"choose another place with {self._named_by}", errors)


@contextlib.contextmanager
def translated(where: str, hint: str, errors: type[Exception] = OSError) -> Iterator[None]:
    """What a back-end raises as a StorageError that says what to do.

    Args:
        where: what was tried on what.
        hint: what the user may do about it.
        errors: the kind of exception that is translated.

    Raises:
        StorageError: from one of `errors`.
    """
    try:
        yield
    except errors as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise StorageError(f"{where}: {reason}; {hint}") from error
