"""The ranks' output on the terminal: rank 0 as it comes, the others with their number in front."""

from __future__ import annotations

import os
import re

from runctl.spec import Logs

_LINE_START = re.compile(rb"(\r\n|\n|\r)(?=.)", re.S)


class Console:
    """Writes pieces of output to our standard streams, never mixing two ranks within a line.

    Args:
        logs: whose output to show, and whose with a prefix.
        out_fd, err_fd: where a rank's standard output and error go.
    """

    def __init__(self, logs: Logs, out_fd: int, err_fd: int) -> None:
        self._logs = logs
        self._fds: dict[str, int | None] = {"out": out_fd, "err": err_fd}
        # On one terminal a line begun on one stream must end before the other stream writes.
        self._together = os.path.sameopenfile(out_fd, err_fd)
        self._open_line: dict[int, tuple[int, str]] = {}

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
        begun = self._open_line.pop(device, None)
        lead = b"\n" if begun is not None and begun != source else b""
        prefix = self._prefix(rank)
        if prefix:
            # Each line begins with the prefix; a line already begun by this source has it.
            body = _LINE_START.sub(lambda match: match.group(1) + prefix, data)
            data = body if begun == source and not _starts_over(data) else prefix + body
        if not data.endswith(b"\n"):
            self._open_line[device] = source
        self._send(stream, fd, lead + data)

    def _prefix(self, rank: int) -> bytes:
        if self._logs.prefix == "none" or (self._logs.prefix == "others" and rank == 0):
            return b""
        return b"[rank%d] " % rank

    def _send(self, stream: str, fd: int, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(fd, view) :]
        except OSError:
            # The reader went (`| head`, a closed terminal). A training is worth more than its echo.
            self._fds[stream] = None


def _starts_over(data: bytes) -> bool:
    return data.startswith((b"\r", b"\n"))
