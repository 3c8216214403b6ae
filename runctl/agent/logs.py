"""Every rank's output on its way from the ranks' named pipes to the run directory and the terminal."""

from __future__ import annotations

import fcntl
import os
import re
import selectors
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from runctl.agent.console import Console
from runctl.hostdir import STREAMS, HostDir
from runctl.storage import Stream

_CHUNK_BYTES = 1 << 20
#: A line without an end is passed on in pieces from this size.
_MAX_PARTIAL_BYTES = 1 << 16
#: The begun line of a prompt or a progress bar is shown after this much silence.
_IDLE_S = 0.05
_FLUSH_S = 2.0
_ANSI = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


@dataclass
class _Source:
    """One stream of one rank."""

    fd: int
    rank: int | None
    stream: str
    log: Stream
    partial: bytes = b""
    shown: int = 0
    ended: bool = False
    our_end: int | None = None


class LogPump(threading.Thread):
    """A thread that carries output until told that no more will come.

    Carriage returns are kept everywhere, so that a progress bar stays one; ANSI sequences reach the terminal
    and are left out of files.

    Args:
        console: where to show it.
        on_rank0: called with whole lines of rank 0's output.
    """

    def __init__(self, console: Console, on_rank0: Callable[[bytes], None]) -> None:
        super().__init__(name="runctl-logs", daemon=True)
        self._console = console
        self._on_rank0 = on_rank0
        self._selector = selectors.DefaultSelector()
        self._sources: list[_Source] = []
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._stopping = False
        self._error: BaseException | None = None

    def add_rank(self, host_dir: HostDir, local_rank: int, rank: int, log: Stream) -> None:
        """Read both pipes of a rank; call it before the rank starts."""
        for stream in STREAMS:
            path = host_dir.pipe(local_rank, stream)
            read = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            # A writer of our own keeps the pipe open over restarts of the rank.
            write = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            if sys.platform == "linux":
                fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, _CHUNK_BYTES)
            self._add(_Source(read, rank, stream, log, our_end=write))

    def add_torchrun(self, fd: int, log: Stream) -> None:
        """Read what torchrun itself says; it goes to its log alone."""
        os.set_blocking(fd, False)
        self._add(_Source(fd, None, "err", log))

    def finish(self) -> None:
        """Carry what the ended ranks left in their pipes, close the logs, and stop.

        Raises:
            StorageError: if a log could not be written.
        """
        self._stopping = True
        os.write(self._wake_write, b"x")
        self.join()
        if self._error is not None:
            raise self._error

    def append(self, rank: int, text: str) -> None:
        """Add text of ours, such as a traceback, to a rank's log; only before `finish`."""
        for source in self._sources:
            if source.rank == rank and source.stream == "err":
                source.log.append(text.encode())

    def run(self) -> None:
        """Read, show, keep, until `finish`."""
        flushed = time.monotonic()
        while True:
            idle = any(len(source.partial) > source.shown for source in self._sources)
            events = self._selector.select(_IDLE_S if idle else _FLUSH_S)
            if not events and idle:
                for source in self._sources:
                    self._show_partial(source)
            stopping = self._stopping  # read before the pipes: what was written before it was set is read
            for key, _ in events:
                if key.data is not None:
                    self._read(key.data)
            if time.monotonic() - flushed > _FLUSH_S:
                self._for_each_log(lambda log: log.flush())
                flushed = time.monotonic()
            if stopping:
                break
        for source in self._sources:
            while self._read(source):
                pass
            if source.partial:
                self._pass_on(source, source.partial + b"\n")
        self._for_each_log(lambda log: log.close())
        for fd in (
            self._wake_read,
            self._wake_write,
            *(end for s in self._sources for end in (s.fd, s.our_end)),
        ):
            if fd is not None:
                os.close(fd)
        self._selector.close()

    def _add(self, source: _Source) -> None:
        self._sources.append(source)
        self._selector.register(source.fd, selectors.EVENT_READ, source)

    def _read(self, source: _Source) -> bool:
        try:
            data = os.read(source.fd, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not data:
            # Only torchrun's pipe has an end: we hold the ranks' pipes open ourselves.
            if not source.ended:
                self._selector.unregister(source.fd)
                source.ended = True
            return False
        cut = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if cut:
            self._pass_on(source, source.partial + data[:cut] if source.partial else data[:cut])
            source.partial, source.shown = data[cut:], 0
        else:
            source.partial += data
        if len(source.partial) > _MAX_PARTIAL_BYTES:
            self._pass_on(source, source.partial)
            source.partial, source.shown = b"", 0
        return True

    def _pass_on(self, source: _Source, data: bytes) -> None:
        if source.rank is not None:
            fresh = data[source.shown :] if source.shown else data
            if fresh:
                self._console.write(source.rank, source.stream, fresh)
        plain = _ANSI.sub(b"", data) if b"\x1b" in data else data
        if source.rank == 0:
            self._on_rank0(plain)
        self._guarded(lambda: source.log.append(plain))

    def _show_partial(self, source: _Source) -> None:
        if source.rank is not None and len(source.partial) > source.shown:
            self._console.write(source.rank, source.stream, source.partial[source.shown :])
            source.shown = len(source.partial)

    def _for_each_log(self, act: Callable[[Stream], None]) -> None:
        for log in {id(source.log): source.log for source in self._sources}.values():
            self._guarded(lambda log=log: act(log))  # type: ignore[misc]

    def _guarded(self, act: Callable[[], None]) -> None:
        """A log that can't be written must not stop a training; the first error is told at the end."""
        try:
            act()
        except Exception as error:  # noqa: BLE001
            self._error = self._error or error
