"""Every rank's output on its way from the ranks' named pipes to the run directory and the terminal."""

from __future__ import annotations

import contextlib
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
from runctl.agent.troubles import Troubles
from runctl.hostdir import STREAMS, HostDir
from runctl.nodelogs import length_line
from runctl.storage import Stream

_CHUNK_BYTES = 1 << 20
#: A line without an end is passed on in pieces from this size.
_MAX_PARTIAL_BYTES = 2 << 20
#: The begun line of a prompt or a progress bar is shown after this much silence.
_IDLE_S = 0.05
_FLUSH_S = 2.0
#: How often it is noted how long the logs are; `runctl logs --since` finds the place by it.
_TIMES_S = 10.0
_ANSI = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


@dataclass
class _Source:
    """One stream of one rank, or torchrun's own."""

    fd: int
    rank: int | None
    stream: str
    log: Stream
    partial: bytes = b""
    shown: int = 0
    ended: bool = False
    our_end: int | None = None

    @property
    def for_console(self) -> bool:
        return self.rank is not None and self.stream != "log"


class LogPump(threading.Thread):
    """A thread that carries output until told that no more will come.

    Carriage returns are kept everywhere, so that a progress bar stays one; ANSI sequences reach the terminal
    and are left out of files.

    Args:
        console: where to show it.
        on_rank0: called with whole lines of rank 0's output.
        times: takes how long the logs were at what time.
        troubles: keeps the error of a log that cannot be written.
    """

    def __init__(self, console: Console, on_rank0: Callable[[bytes], None], times: Stream, troubles: Troubles) -> None:
        super().__init__(name="runctl-logs", daemon=True)
        self._console = console
        self._on_rank0 = on_rank0
        self._times = times
        self._troubles = troubles
        self._lengths: dict[str, int] = {}
        self._noted: tuple[float, dict[str, int]] = (time.monotonic(), {})
        self._selector = selectors.DefaultSelector()
        self._sources: list[_Source] = []
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)

    def add_rank(self, host_dir: HostDir, local_rank: int, rank: int, log: Stream) -> None:
        """Read the pipes of a rank; call it before the rank starts."""
        for stream in STREAMS:
            path = host_dir.pipe(local_rank, stream)
            read = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            # A writer of our own keeps the pipe open over restarts of the rank.
            write = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            if sys.platform == "linux":
                with contextlib.suppress(OSError):  # a user's pipes may hold so much together and no more
                    fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, _CHUNK_BYTES)
            self._add(_Source(read, rank, stream, log, our_end=write))

    def add_torchrun(self, fd: int, log: Stream) -> None:
        """Read what torchrun itself says; it goes to its log alone."""
        os.set_blocking(fd, False)
        self._add(_Source(fd, None, "err", log))

    def finish(self) -> None:
        """Have it carry what the ended ranks left in their pipes, close the logs, and end; `join` waits for that."""
        os.write(self._wake_write, b"x")

    def run(self) -> None:
        """Read, show, keep, until `finish`."""
        flushed = time.monotonic()
        while True:
            growing = [source for source in self._sources if self._has_growth_to_show(source)]
            events = self._selector.select(_IDLE_S if growing else _FLUSH_S)
            if not events:
                for source in growing:
                    self._show_growth(source)
            ready = [key.data for key, _ in events if key.data is not None]
            for source in sorted(ready, key=lambda source: source.stream == "log"):
                self._read(source)
            if time.monotonic() - flushed > _FLUSH_S:
                self._for_each_log(lambda log: log.flush())
                flushed = time.monotonic()
                self._note_lengths(flushed)
            if any(key.data is None for key, _ in events):
                break  # `finish` woke us; what was written before it is read below
        for source in self._sources:
            while self._read(source):
                pass
            self._end_line(source)
        self._for_each_log(lambda log: log.close())
        with self._troubles.kept():
            self._times.close()
        for fd in (self._wake_read, self._wake_write, *(end for s in self._sources for end in (s.fd, s.our_end))):
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
        if source.stream == "log":
            # The rank has ended, or begun anew: no line of its other streams goes on.
            for other in self._sources:
                if other.rank == source.rank and other is not source:
                    self._end_line(other)
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
        plain = _ANSI.sub(b"", data) if b"\x1b" in data else data
        with self._troubles.kept():
            source.log.append(plain)
        name = "torchrun" if source.rank is None else f"r{source.rank}"
        self._lengths[name] = self._lengths.get(name, 0) + len(plain)
        if source.rank == 0 and source.for_console:
            self._on_rank0(plain)
        # Last, for a terminal whose reader has stopped holds us up here.
        if source.rank is not None and source.for_console and len(data) > source.shown:
            self._console.write(source.rank, source.stream, data[source.shown :] if source.shown else data)

    def _end_line(self, source: _Source) -> None:
        """Pass on a begun line whose end will not come."""
        if source.partial:
            self._pass_on(source, source.partial + b"\n")
            source.partial, source.shown = b"", 0

    def _has_growth_to_show(self, source: _Source) -> bool:
        grown = source.for_console and len(source.partial) > source.shown
        return grown and self._console.shows_growth(source.stream)

    def _show_growth(self, source: _Source) -> None:
        if source.rank is not None:
            self._console.write(source.rank, source.stream, source.partial[source.shown :])
            source.shown = len(source.partial)

    def _note_lengths(self, now: float) -> None:
        if now - self._noted[0] > _TIMES_S and self._lengths != self._noted[1]:
            self._noted = now, dict(self._lengths)
            with self._troubles.kept():
                self._times.append(length_line(self._lengths))

    def _for_each_log(self, act: Callable[[Stream], None]) -> None:
        for log in {id(source.log): source.log for source in self._sources}.values():
            with self._troubles.kept():
                act(log)
