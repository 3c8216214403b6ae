"""A run directory that lies on a pod, brought here round after round, so that everything that reads runs can read it.

Where there is no object storage the pod's agent writes on the pod's own disk. What grows there grows here: a log by
what is new of it, a stream of lines by the lines that are not here yet, a console in segments, as a follower reads
them. Small files come whole; the status comes last, so that whoever reads of an end finds everything else.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runctl.errors import PlatformError
from runctl.platforms.runpod.files import PodFiles
from runctl.platforms.runpod.ssh import Connection, SshError
from runctl.rundir import RunDir
from runctl.spec import RunState

#: What one round brings of one stream at most, so that all of them live.
_PIECE_BYTES = 8 << 20
_STATUS = "status.json"
#: What is asked of an attempt from here, and what it says to that.
_ASKED, _ANSWER = ("control/stop.json", "control/save.json"), "control/saved.json"
_LINES = ("events.jsonl", "metrics.jsonl", "usage.jsonl")
#: The launcher's own, and what another part brings.
_NOT_OURS = re.compile(
    r"spec\.json|lease\.json|config\.yaml|outcome\.json|status\.json|(control|checkpoints|outputs|hosts)/.*"
)
#: What belongs to one attempt, by its number.
_EARLIER = re.compile(r"logs/a\d+/|attempts/\d+")


@dataclass(frozen=True)
class Listed:
    """A file of the run directory on the pod."""

    size_bytes: int
    version: str


class Mirror:
    """Brings what is small, for one attempt.

    Args:
        connection: to the pod.
        remote: the run directory's path there.
        rundir: the one here.
        attempt: whose.
    """

    def __init__(self, connection: Connection, remote: str, rundir: RunDir, attempt: int) -> None:
        self._connection = connection
        self._files = PodFiles(connection)
        self._remote = remote
        self._rundir = rundir
        self._here = Path(rundir.url)
        self._attempt = attempt
        self._seen: dict[str, Listed] = {}
        self._caught_up: set[str] = set()
        self._told: dict[str, Any] | None = None
        self._asked: dict[str, bytes] = {}
        self._console = _Console(self._here / f"logs/a{attempt}/console")

    def close(self) -> None:
        self._files.close()

    def round(self, besides: Callable[[dict[str, Listed], bool], list[int] | None] = lambda *_: None) -> RunState:
        """Bring what is new.

        Args:
            besides: called with all that lies there and whether the attempt has ended, before the status is published;
                it returns the steps of the checkpoints that are here, where the status is to tell of those alone.

        Returns:
            Where the attempt stands; PENDING before its agent's first word.

        Raises:
            PlatformError: if the connection broke or something cannot be brought; the next round goes on.
        """
        self._hand_on()
        # Read before anything else is looked for: of an end it tells last.
        status = self._read_status()
        ended = status is not None and RunState(status["state"]).ended
        while True:
            listed = self.listing(complete=ended)
            all_here = True
            for name, file in sorted(listed.items(), key=_urgency):
                if not _NOT_OURS.fullmatch(name) and self._seen.get(name) != file:
                    self._seen[name] = self._bring(name, file)
                    all_here = all_here and self._seen[name].size_bytes >= file.size_bytes
            if all_here or not ended:
                break
        steps = besides(listed, ended)
        self._bring_answer(listed.get(_ANSWER), steps)
        if status is None:
            return RunState.PENDING
        if steps is not None:
            status = {**status, "checkpoints": [step for step in status.get("checkpoints", ()) if step in steps]}
        if status != self._told:
            self._rundir.store.write(_STATUS, (json.dumps(status, indent=2, ensure_ascii=False) + "\n").encode())
            self._told = status
        return RunState(status["state"])

    def listing(self, *, complete: bool = True) -> dict[str, Listed]:
        """All files of the run directory there, by path; those that are being written left out.

        Args:
            complete: whether nothing goes any more, so that nothing can be in the way of looking.

        Raises:
            PlatformError: if it cannot be looked at.
        """
        folder = shlex.quote(self._remote)
        told = bytearray()
        try:
            for piece in self._connection.stream(
                f"test -d {folder} || exit 0; cd {folder} && find . -ignore_readdir_race -type f ! -path '*/.tmp-*' "
                "-printf '%s %T@ %P\\0'"
            ):
                told += piece
        except SshError:
            raise
        except PlatformError:
            if complete or not told:
                raise  # or else a folder went while it was looked into
        found = {}
        for line in told.decode(errors="replace").split("\0")[:-1]:
            size, version, name = line.split(" ", 2)
            found[name] = Listed(int(size), version)
        return found

    def _read_status(self) -> dict[str, Any] | None:
        data = self._read(_STATUS)
        status: dict[str, Any] | None = None if data is None else json.loads(data)
        return status if status is not None and status["attempt"] == self._attempt else None

    def _read(self, name: str, begin: int = 0, end: int = 1 << 16) -> bytes | None:
        try:
            return b"".join(self._files.read(posixpath.join(self._remote, name), begin, end))
        except FileNotFoundError:
            return None

    def _hand_on(self) -> None:
        """Take to the pod what somebody has put down here: that the attempt is to stop, or to save."""
        for name in _ASKED:
            asked = self._rundir.store.read(name)
            if asked is not None and asked != self._asked.get(name):
                self._files.put(asked, posixpath.join(self._remote, name))
                self._asked[name] = asked

    def _bring_answer(self, file: Listed | None, steps: list[int] | None) -> None:
        """Bring what the agent says to a save, once that checkpoint, or one after it, is here."""
        if file is None or self._seen.get(_ANSWER) == file:
            return
        answer = self._read(_ANSWER)
        step = None if answer is None else json.loads(answer).get("step")
        if answer is not None and (step is None or steps is None or step <= max(steps, default=-1)):
            self._rundir.store.write(_ANSWER, answer)
            self._seen[_ANSWER] = file

    def _bring(self, name: str, file: Listed) -> Listed:
        """Bring one file, or more of it; what of it is here now."""
        if name in _LINES:
            return self._bring_lines(name, file)
        if name == f"logs/a{self._attempt}/console":
            begin = self._console.size_bytes
            data = self._read(name, begin, min(file.size_bytes, begin + _PIECE_BYTES)) or b""
            self._console.add(data)
            return Listed(begin + len(data), file.version)
        if name.startswith(f"logs/a{self._attempt}/") and name.endswith(".log"):
            path = self._here / name
            begin = path.stat().st_size if path.exists() else 0
            data = self._read(name, begin, min(file.size_bytes, begin + _PIECE_BYTES)) or b""
            _append(path, data)
            return Listed(begin + len(data), file.version)
        if _EARLIER.match(name) and int(re.findall(r"\d+", name)[0]) != self._attempt:
            return file  # we sent it there ourselves
        found = self._read(name, 0, file.size_bytes)
        if found is not None:
            self._rundir.store.write(name, found)
        return file

    def _bring_lines(self, name: str, file: Listed) -> Listed:
        """Add the whole lines that are not here yet; others write into the same stream here.

        Lines carry their time: at the first look after a launcher was killed, those that are here are known by
        themselves, and nothing need be remembered of how far it had come.
        """
        begin = self._seen[name].size_bytes if name in self._seen else 0
        path = self._here / name
        data = self._read(name, begin, min(file.size_bytes, begin + _PIECE_BYTES)) or b""
        whole = data[: data.rfind(b"\n") + 1]
        lines = whole.splitlines(keepends=True)
        if path.exists() and name not in self._caught_up:
            here = set(path.read_bytes().splitlines(keepends=True))
            lines = [line for line in lines if line not in here]
        _append(path, b"".join(lines))
        if begin + len(data) >= file.size_bytes:
            self._caught_up.add(name)
            if not whole:  # a torn line, of a writer that was killed, if nothing follows it
                return file
        return Listed(begin + len(whole), file.version)


class _Console:
    """What a terminal would show, here in write-once segments, as on object storage.

    Args:
        folder: of the segments.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        sizes = [path.stat().st_size for path in folder.glob("[0-9]*")] if folder.is_dir() else []
        self._next, self.size_bytes = len(sizes), sum(sizes)

    def add(self, data: bytes) -> None:
        if data:
            self._folder.mkdir(parents=True, exist_ok=True)
            aside = self._folder / f".tmp-{self._next:06d}"
            aside.write_bytes(data)
            aside.replace(self._folder / f"{self._next:06d}")
            self._next, self.size_bytes = self._next + 1, self.size_bytes + len(data)


def _append(path: Path, data: bytes) -> None:
    if data:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as stream:
            stream.write(data)


def _urgency(entry: tuple[str, Listed]) -> tuple[bool, str]:
    """What somebody looks at comes first."""
    name, _ = entry
    return not name.endswith("/console"), name
