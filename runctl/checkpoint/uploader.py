"""The upload process as whoever has checkpoints sees it: started when there is one, restarted when it died."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runctl import processes
from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.transfer import Transfer
from runctl.checkpoint.upload import FINISH
from runctl.encoding import dumps
from runctl.spec import Retention
from runctl.storage import RUN_ROOT

#: How long the last upload may take when nobody is in a hurry, and how much of that without anything going through.
FINISH_WITHIN_S = 1800.0
FINISH_FAILING_S = 120.0
#: How long a checkpoint may wait for processors that the training leaves idle.
PATIENCE_S = 20.0
_RESTART_AFTER_S = 2.0
_RESTART_AT_MOST_S = 60.0
_PACKAGE_DIR = str(Path(__file__).resolve().parents[2])


class Uploader:
    """Has the checkpoints of a folder carried to a run directory.

    Only the main thread may call `poll`, for the process dies with the thread that started it.

    Args:
        local: the folder that the ranks commit into.
        url: the run directory.
        retention: which checkpoints stay there.
        say: takes what people should know, each thing once.
        named_by: what the user would change to have another place, for the text of errors.

    Attributes:
        transfer: how far the checkpoint in flight has come, as it said last.
        durable: steps of the checkpoints that are there.
        failing: the storage's last error, or None while it takes what it is given.
    """

    def __init__(
        self,
        local: Catalog,
        url: str,
        retention: Retention,
        say: Callable[[str], None],
        *,
        named_by: str = RUN_ROOT,
    ) -> None:
        self._local = local
        self._url = url
        self._named_by = named_by
        self._retention = retention
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._start_at = 0.0
        self._behind_since: float | None = None
        self._hurried = False
        self._restart_s = _RESTART_AFTER_S
        self._heard = b""
        self._told = False
        self._finishing_since: float | None = None
        self._failing_since = 0.0
        self.transfer = Transfer()
        self.failing: str | None = None
        self.finished = False
        self.durable: list[int] = []

    @property
    def pid(self) -> int | None:
        """The process, or None while there is none."""
        return self._process.pid if self._process is not None else None

    def poll(self) -> None:
        """Take in what the process says, without waiting; start it if there is something to carry."""
        if self._process is not None:
            self._hear(self._process)
        if self._process is not None:
            self._hurry(self._process.pid)
        due = self._process is None and not self.finished and time.monotonic() >= self._start_at
        if due and self._local.steps():
            self._start()

    def finish(self) -> None:
        """Ask for the last checkpoint to be carried, and for the process to end then; `poll` goes on."""
        self._finishing_since = time.monotonic()
        if self._process is not None:
            self._tell(self._process)
        elif not self._local.steps():
            self.finished = True

    def hopeless(self) -> bool:
        """Whether to wait no longer for the last upload, though nobody is in a hurry."""
        now = time.monotonic()
        if self._finishing_since is None:
            return False
        failing_s = now - max(self._failing_since, self._finishing_since) if self.failing is not None else 0.0
        return failing_s > FINISH_FAILING_S or now - self._finishing_since > FINISH_WITHIN_S

    def end(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._hear(self._process)
        if self._process is not None:
            self._process.kill()
            self._forget(self._process)

    def _hurry(self, pid: int) -> None:
        """Let it compete for the processors once a checkpoint has waited for long.

        At idle priority it gets next to nothing where every processor is busy, as with a training on the CPU.
        """
        behind = bool(set(self._local.steps()[-1:]) - set(self.durable))
        now = time.monotonic()
        self._behind_since = (self._behind_since or now) if behind else None
        waited_s = now - self._behind_since if self._behind_since is not None else 0.0
        if (waited_s > PATIENCE_S) != self._hurried:
            self._hurried = not self._hurried
            processes.run_when_idle(pid, not self._hurried)

    def _start(self) -> None:
        words = [str(self._local.folder), self._url, self._named_by, dumps(self._retention), str(os.getpid())]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "runctl.checkpoint.upload", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                cwd=_PACKAGE_DIR,
                start_new_session=True,
            )
        except OSError as error:
            # No memory for it, or an upgrade took our folder away: the training can do without for a while.
            self._try_later(f"its process cannot be started: {error.strerror} ({error.filename})")
            return
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._heard = b""
        self._hurried = False
        if self._finishing_since is not None:
            self._tell(self._process)

    def _tell(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died; the next one is told
            process.stdin.write(FINISH)

    def _hear(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        ended = process.poll() is not None  # before reading: what it said last is read as well
        while data := process.stdout.read(1 << 16):
            self._heard += data
        *lines, self._heard = self._heard.split(b"\n")
        for line in lines:
            self._take(json.loads(line))
        if ended:
            self._forget(process)
            if not self.finished:
                self._try_later(f"its process ended with code {process.returncode}")

    def _try_later(self, why: str) -> None:
        self._start_at = time.monotonic() + self._restart_s
        self._restart_s = min(2 * self._restart_s, _RESTART_AT_MOST_S)
        self._take({"error": why})

    def _take(self, told: dict[str, Any]) -> None:
        if isinstance(step := told.get("step"), int):
            self.transfer.begin(step, told["size"], told["moved"])
        if isinstance(steps := told.get("durable"), list):
            self.transfer.end()
            self.durable = steps
            self._restart_s = _RESTART_AFTER_S
            self.failing = None
        if "skipped" in told:
            self._say(str(told["skipped"]))
        if told.get("finished"):
            self.finished = True
        if "error" in told:
            self.transfer.end()
            if told["error"] is not None and self.failing is None:
                self._failing_since = time.monotonic()
            self.failing = None if told["error"] is None else str(told["error"])
            if self.failing is not None and not self._told:
                self._told = True
                self._say(f"checkpoints wait for their upload: {self.failing} (tried again until it works)")

    def _forget(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None
