"""The standard streams of our programs, which may be closed, full, or read by nobody any more."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from runctl.errors import ExitCode, OutputLost, RunctlError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def run(program: str, work: Callable[[], int]) -> int:
    """What a console script does: its work, and a line for what went wrong.

    Args:
        program: its name.
        work: returns its exit code.

    Returns:
        The exit code.
    """
    open_closed()
    _watch_output()
    try:
        try:
            return work()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read has what they wanted (`| head`)
        return int(ExitCode.FAILED)
    except OutputLost as error:  # it was told
        return int(error.exit_code)
    except RunctlError as error:
        _say(f"{program}: {error}")
        return int(error.exit_code)
    except KeyboardInterrupt:
        return int(ExitCode.USER_INTERRUPT)


def open_closed() -> None:
    """Lead whichever of standard input, output and error is closed to nowhere; cron jobs and services close them.

    Otherwise whatever file is opened next takes its number, and children print into that.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # so Python tells of one that was closed when it started
            mode = "r" if number == 0 else "w"
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 (it stays open)
            if stream.fileno() == number:  # the lowest free number, and all below are taken by now
                os.set_inheritable(number, True)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)  # so that it stays open whoever takes its place


class _Output(io.FileIO):
    """Standard output: its failure is told from that of any other file, at once and only once."""

    _is_lost = False

    def write(self, data: ReadableBuffer) -> int:
        if self._is_lost:  # Python would complain once more at its end, when it writes what is left in buffers
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except BrokenPipeError:
            self._is_lost = True
            raise
        except OSError as error:
            self._is_lost = True
            told = f"standard output cannot be written: {error.strerror}"
            _say(f"runctl: {told}")
            raise OutputLost(told) from error


def _watch_output() -> None:
    now = sys.stdout
    if isinstance(now, io.TextIOWrapper):
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Output(now.fileno(), "w", closefd=False)), now.encoding, now.errors,
            line_buffering=now.line_buffering, write_through=now.write_through,
        )  # fmt: skip


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{line}\n")
