"""The ranks' output on the terminal: rank 0 as it comes, the others with their number in front."""

from __future__ import annotations

import os
import re
import select

from runctl.spec import Logs

_LINE_START = re.compile(rb"(\r\n|\n|\r)(?=.)", re.S)
_WAIT_S = 1.0


class Console:
    """Writes pieces of output to our standard streams, never mixing two ranks within a line.

    Args:
        logs: whose output to show, and whose with a prefix.
        ranks: how many ranks there are.
        out_fd, err_fd: where a rank's standard output and error go.
    """

    def __init__(self, logs: Logs, ranks: int, out_fd: int, err_fd: int) -> None:
        self._logs = logs
        self._alone = ranks == 1 or logs.show == "rank0"
        self._fds: dict[str, int | None] = {"out": out_fd, "err": err_fd}
        # On one terminal a line begun on one stream must end before the other stream writes.
        self._together = os.path.sameopenfile(out_fd, err_fd)
        #: For each device the source of the line begun on it, and whether a carriage return came last.
        self._begun: dict[int, tuple[tuple[int, str], bool]] = {}

    def shows_growth(self, stream: str) -> bool:
        """Whether to pass on the begun line of a prompt or a progress bar before it ends.

        On a terminal it is what people look at. In a pipe with several ranks it would tear the line as soon as
        another rank writes.
        """
        fd = self._fds[stream]
        return fd is not None and (self._alone or os.isatty(fd))

    def write(self, rank: int, stream: str, data: bytes) -> None:
        """Show a piece of a rank's output: whole lines, or the growing part of one.

        Args:
            rank: the global rank.
            stream: `out` or `err`.
            data: the bytes, not empty.
        """
        if self._logs.show == "none" or (self._logs.show == "rank0" and rank != 0):
            return
        fd = self._fds[stream]
        if fd is None:
            return
        device = 0 if self._together else fd
        source = (rank, stream)
        begun_by, returned = self._begun.pop(device, (None, False))
        lead = b"\n" if begun_by is not None and begun_by != source else b""
        if prefix := self._prefix(rank):
            # Each line begins with the prefix, also where a carriage return lets it begin again.
            again = returned and not data.startswith(b"\n")
            starts = (begun_by != source or again) and not data.startswith(b"\r")
            body = _LINE_START.sub(lambda match: match.group(1) + prefix, data)
        else:
            starts, body = False, data
        if not data.endswith(b"\n"):
            self._begun[device] = (source, data.endswith(b"\r"))
        self._send(stream, fd, lead + prefix + body if starts else lead + body)

    def _prefix(self, rank: int) -> bytes:
        if self._logs.prefix == "none" or (self._logs.prefix == "others" and rank == 0):
            return b""
        return b"[rank%d] " % rank

    def _send(self, stream: str, fd: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(fd, view) :]
            except BlockingIOError:
                # Somebody who shares the terminal or the pipe has set it so.
                select.select([], [fd], [], _WAIT_S)
            except OSError:
                # The reader went (`| head`, a closed terminal). A training is worth more than its echo.
                self._fds[stream] = None
                return
