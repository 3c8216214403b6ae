"""What may reach object storage late: posted objects and the segments of streams, sent from a thread of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from runctl.storage.base import Stream, translated

_log = logging.getLogger(__name__)


class Target(Protocol):
    """What segments need of a store."""

    def names(self, folder: str) -> list[str]:
        """Names right below a folder."""

    def put(self, name: str, data: bytes) -> None:
        """Publish an object now."""


class SegmentStream(Stream):
    """Bytes kept in a spool on this machine's disk and published as `name/000000`, `name/000001`, …"""

    MAX_SEGMENT_BYTES = 8 << 20

    def __init__(self, store: Target, publisher: Publisher, name: str, writer: str) -> None:
        self._store = store
        self._publisher = publisher
        self._name = name
        self._writer = f"{writer}-" if writer else ""
        mine = (re.fullmatch(rf"{re.escape(self._writer)}(\d+)", found) for found in store.names(name))
        self._next = 1 + max((int(match[1]) for match in mine if match is not None), default=-1)
        # On disk, for an outage may last longer than memory; nameless, so that nothing stays behind. Unbuffered: what a
        # full disk does not take would wait in the buffer, and nothing could be read, sent and cut off before it.
        self._spool = tempfile.TemporaryFile(prefix="runctl-", buffering=0)  # noqa: SIM115 (closed in close)
        self._sent = 0
        self._segment = b""
        self._appending, self._sending = threading.Lock(), threading.Lock()
        publisher.add(self)

    def append(self, data: bytes) -> None:
        with _spooling("keep output in"), self._appending:
            end, view = self._spool.seek(0, os.SEEK_END), memoryview(data)
            try:
                while view:
                    view = view[self._spool.write(view) :]
            except OSError:
                self._spool.truncate(end)  # no half a line, which the next one would follow
                raise
        self._publisher.wake()

    def flush(self) -> None:
        self._publisher.wake()

    def close(self) -> None:
        self._publisher.remove(self)
        self.send()
        with self._sending:
            self._spool.close()

    def send(self) -> None:
        """Publish what is in the spool.

        Raises:
            StorageError: if a segment could not be published; the same one comes first the next time.
        """
        with self._sending:
            while not self._spool.closed and (self._segment or self._take()):
                self._store.put(f"{self._name}/{self._writer}{self._next:06d}", self._segment)
                self._next += 1
                self._segment = b""

    def _take(self) -> bool:
        with _spooling("read output from"), self._appending:
            self._spool.seek(self._sent)
            self._segment = self._spool.read(self.MAX_SEGMENT_BYTES)
            self._sent += len(self._segment)
            if not self._segment:
                self._spool.truncate(0)
                self._sent = 0
        return bool(self._segment)


def _spooling(verb: str) -> contextlib.AbstractContextManager[None]:
    return translated(f"cannot {verb} {tempfile.gettempdir()}", "TMPDIR chooses another place")


class Publisher:
    """Sends what may be late from a thread of its own: an outage delays it, and nobody waits for it."""

    INTERVAL_S = 2.0

    def __init__(self, store: Target) -> None:
        self._store = store
        self._posted: dict[str, bytes] = {}
        self._streams: list[SegmentStream] = []
        self._wanted = threading.Event()
        self._putting = threading.Lock()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def post(self, name: str, data: bytes) -> None:
        """Have an object published soon, in place of an older one that still waits."""
        self._posted[name] = data
        self.wake()

    def add(self, stream: SegmentStream) -> None:
        """Send what a stream collects from now on."""
        self._streams.append(stream)

    def remove(self, stream: SegmentStream) -> None:
        """Leave a stream to its owner."""
        with contextlib.suppress(ValueError):  # closed before
            self._streams.remove(stream)

    def wake(self) -> None:
        """Have everything sent soon."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="runctl-publisher", daemon=True)
                self._thread.start()
        self._wanted.set()

    @contextlib.contextmanager
    def overtaken(self, name: str) -> Iterator[None]:
        """Nothing older that was posted under `name` comes after what the caller writes now."""
        self._posted.pop(name, None)
        with self._putting:
            self._posted.pop(name, None)  # one that was on its way just now failed, and waits again
            yield

    def _run(self) -> None:
        failing = False
        while self._wanted.wait():
            self._wanted.clear()
            try:
                self._send()
                failing = False
            except Exception as error:  # noqa: BLE001 (whatever it is: nobody starts this thread again)
                if not failing:
                    _log.warning("%s (tried again until it works; the run goes on)", error)
                failing = True
                self._wanted.set()
            time.sleep(self.INTERVAL_S)

    def _send(self) -> None:
        for name in list(self._posted):
            with self._putting:
                data = self._posted.pop(name, None)
                if data is not None:
                    try:
                        self._store.put(name, data)
                    except Exception:
                        self._posted.setdefault(name, data)
                        raise
        for stream in list(self._streams):
            stream.send()
