"""The commands that make an environment: their output shown without secrets, their end told, stopped when asked to."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import signal
import subprocess
import sys
import threading
import urllib.parse
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from runctl.errors import EnvironmentFailed

_LOOK_S = 0.1
_TAIL_LINES = 20
_CREDENTIALS = re.compile(r"(\w://)[^\s/@]+@")
#: A shorter value is found by chance in what is none.
_SECRET_FROM = 4


class BuildStopped(Exception):
    """The attempt was stopped while its environment was made."""


class Scrubber:
    """Takes secrets out of text: their values, as they stand and as a URL holds them, what a URL logs in with."""

    def __init__(self, secrets: Iterable[str]) -> None:
        values = {value for value in secrets if len(value) >= _SECRET_FROM}
        values |= {urllib.parse.quote(value, safe="") for value in values}
        self.values = sorted(values, key=len, reverse=True)

    def clean(self, text: str) -> str:
        for value in self.values:
            text = text.replace(value, "***")
        return _CREDENTIALS.sub(r"\1***@", text)


class Commands:
    """Runs commands.

    Args:
        env: their environment.
        scrubber: takes the secrets out of what they print.
        stop: set when nothing is wanted any more.
    """

    def __init__(self, env: Mapping[str, str], scrubber: Scrubber, stop: threading.Event) -> None:
        self.env = dict(env)
        self._scrubber = scrubber
        self._stop = stop

    def run(
        self, words: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, given: str = ""
    ) -> None:
        """Run a command to its end; its output goes where ours goes.

        Args:
            words: the command.
            cwd: where; None is anywhere.
            env: what its environment has besides.
            given: what it reads.

        Raises:
            EnvironmentFailed: if it cannot be started or fails, with the end of what it printed.
            BuildStopped: if it was stopped.
        """
        shown = self._scrubber.clean(shlex.join(words))
        try:
            process = subprocess.Popen(
                words, cwd=cwd or "/", env={**self.env, **(env or {})}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise EnvironmentFailed(f"environment: {shown}: {error.strerror}: {words[0]}") from error
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(given.encode())
            process.stdin.close()
        try:
            tail = self._shown(process)
            code = process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        if code != 0:
            told = "\n".join(f"  {line}" for line in tail)
            raise EnvironmentFailed(
                f"environment: {shown} ended with code {code}{':' if told else ''}\n{told}".rstrip()
            )

    def _shown(self, process: subprocess.Popen[bytes]) -> list[str]:
        """Show what a command prints until it prints no more; the last of it."""
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        rest = b""
        assert process.stdout is not None
        with process.stdout as out, selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            while True:
                if self._stop.is_set():
                    raise BuildStopped
                if not selector.select(_LOOK_S):
                    continue
                data = os.read(out.fileno(), 1 << 16)
                *lines, rest = (rest + data).split(b"\n")
                for line in [*lines, *([rest] if rest and not data else [])]:
                    text = self._scrubber.clean(line.decode(errors="replace").rstrip("\r"))
                    tail.append(text)
                    sys.stderr.write(f"{text}\n")
                if not data:
                    return list(tail)
