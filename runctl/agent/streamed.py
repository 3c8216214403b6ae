"""What a detached agent and its ranks would show on a terminal, on its way into the run directory."""

from __future__ import annotations

import os
import select
import sys
import threading
import traceback
from types import TracebackType

from runctl.agent.troubles import Troubles
from runctl.storage import Stream

_CHUNK_BYTES = 1 << 16


class StreamedOutput:
    """While entered, standard output and error of this process are one pipe, and a thread carries it into a stream.

    So all of it arrives, in the order in which it was written: the ranks' output, what the agent says, what a plugin
    prints. Nothing is kept in memory but the piece on its way.

    Args:
        stream: where it goes; closed at the end.
        troubles: keeps the error of a stream that cannot be written.
    """

    def __init__(self, stream: Stream, troubles: Troubles) -> None:
        self._stream = stream
        self._troubles = troubles
        self._thread = threading.Thread(target=self._carry, name="runctl-console", daemon=True)

    def __enter__(self) -> StreamedOutput:
        _flush()
        self._before = {fd: os.dup(fd) for fd in (1, 2)}
        self._read, write = os.pipe()
        self._wake_read, self._wake_write = os.pipe()
        for fd in self._before:
            os.dup2(write, fd)
        os.close(write)
        os.set_blocking(self._read, False)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the descriptors back, and have everything that was written published."""
        if error is not None:
            traceback.print_exception(kind, error, trace)
        _flush()
        for fd, before in self._before.items():
            os.dup2(before, fd)
            os.close(before)
        # Not by the end of the pipe: a process that outlives us may hold it open.
        os.write(self._wake_write, b"x")
        self._thread.join()
        with self._troubles.kept():
            self._stream.close()
        for fd in (self._read, self._wake_read, self._wake_write):
            os.close(fd)

    def _carry(self) -> None:
        finishing = False
        while True:
            if not finishing:
                finishing = self._wake_read in select.select([self._read, self._wake_read], [], [])[0]
            try:
                data = os.read(self._read, _CHUNK_BYTES)
            except BlockingIOError:
                if finishing:
                    return
                continue
            if not data:
                return
            with self._troubles.kept():
                self._stream.append(data)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
