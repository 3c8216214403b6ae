"""The upload: a process that carries the checkpoints of a folder to the run directory.

    python -m runctl.checkpoint.upload LOCAL_FOLDER RUN_URL NAMED_BY RETENTION_JSON PARENT_PID

A process of its own and no thread of the agent: only so can it run at idle priority beside the training. An idle
thread of the agent would hold the agent's interpreter lock while the ranks have the processors, and they would wait
for an agent that cannot read their output.

It looks into the folder by itself and always takes the newest checkpoint, so at most that one waits behind the one in
flight. What fails is tried again, with pauses of up to `PAUSE_AT_MOST_S`, for as long as the agent lets it: a
checkpoint that came meanwhile takes the failed one's place. It is told one thing, `finish` on its standard input:
carry what there is, then end. What it says are lines of JSON: {"durable": steps}, {"error": text or null},
{"skipped": text}, {"step": step, "moved": bytes, "size": bytes}, {"finished": true}.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from runctl import processes
from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.manifest import Manifest
from runctl.checkpoint.remote import RemoteCatalog
from runctl.checkpoint.transfer import Transfer
from runctl.encoding import loads
from runctl.errors import CheckpointCorrupt, StorageError
from runctl.spec import Retention
from runctl.storage import open_store

FINISH = b"finish\n"
PAUSE_AT_MOST_S = 15.0
_PAUSE_S = 0.5
#: Someone waits: a pause should not be the reason that the time runs out.
_PAUSE_FINISHING_S = 2.0
_LOOK_S = 0.3
_TELL_S = 0.2


class Upload:
    """Carries checkpoints, one at a time.

    Args:
        local: the folder that the ranks commit into.
        remote: where the checkpoints go.
        retention: which stay there.
        transfer: told how far a checkpoint has come.

    Attributes:
        durable: manifests of what is there, by step.
        skipped: what was wrong with checkpoints that were not carried; whoever tells people empties it.
    """

    def __init__(
        self, local: Catalog, remote: RemoteCatalog, retention: Retention, transfer: Transfer | None = None
    ) -> None:
        self._local = local
        self._remote = remote
        self._retention = retention
        self._transfer = transfer or Transfer()
        self._refused: set[str] = set()
        self._at_work: tuple[str, set[str]] = ("", set())
        self._failed = False
        self._may_discard = True
        self.durable: dict[int, Manifest] = {}
        self.skipped: list[str] = []

    def begin(self) -> None:
        """Clear away what an upload that was killed left behind, and learn what is there.

        Raises:
            StorageError: if the storage does not answer.
        """
        self._discard_parts()
        self._remote.sweep()
        self.durable = self._remote.durable()

    def pending(self) -> Manifest | None:
        """The newest checkpoint that can be carried, unless it is there already."""
        # By step, as everyone looks for the newest who restores or prunes, and not by time: the clocks of hosts differ,
        # and are set. Steps beyond the one that an attempt begins from are superseded, so none of them comes first.
        for step in reversed(self._local.steps()):
            with contextlib.suppress(CheckpointCorrupt):  # pruned just now
                newest = manifests.read(self._local.path(step))
                if _identity(newest) in self._refused:
                    continue  # the one before it is the newest that can be used
                there = self.durable.get(newest.step)
                return None if there is not None and there.files == newest.files else newest
        return None

    def carry(self, manifest: Manifest) -> None:
        """Carry one checkpoint, and remove what the retention does not keep.

        Raises:
            StorageError: if the storage refuses; the next try of the same checkpoint goes on where this one ended.
        """
        identity = _identity(manifest)
        if self._at_work[0] != identity:
            self._at_work = (identity, set())
        if self._failed:
            self._discard_parts()
            self._failed = False
        held = self._hold(manifest.step)
        if held is None:
            return
        try:
            if _identity(manifests.verify(held)) != identity:
                return  # replaced just now; the newer one is next
            arrived = self._at_work[1]
            there = sum(manifest.files[name].size_bytes for name in arrived)
            self._transfer.begin(manifest.step, manifest.size_bytes, there)
            self._remote.publish(held, arrived, self._transfer.moved)
        except CheckpointCorrupt as error:
            self._refused.add(identity)
            self.skipped.append(f"not uploaded: {error}")
            return
        except StorageError:
            self._failed = True
            raise
        finally:
            self._transfer.end()
            shutil.rmtree(held.parent, ignore_errors=True)
        self.durable[manifest.step] = manifest
        self._remote.prune(self.durable, self._retention, manifest.step)

    def end(self) -> None:
        """Discard uploads that nobody knows of: one was begun, and the answer that named it was lost.

        Raises:
            StorageError: if the storage does not answer.
        """
        self._discard_parts()

    def _discard_parts(self) -> None:
        """Discard unfinished uploads; whoever may not is told so once, and what was finished counts all the same."""
        if not self._may_discard:
            return
        try:
            self._remote.abort()
        except StorageError as error:
            if not isinstance(error.__cause__, PermissionError):
                raise
            self._may_discard = False
            self.skipped.append(f"{error} (parts of uploads that broke off stay there, and are billed)")

    def _hold(self, step: int) -> Path | None:
        """A second name for a checkpoint's files, which the ranks may prune while they travel; None if they did.

        The files of a checkpoint never change, so hard links will do.
        """
        held = self._local.folder / f".tmp-upload-{os.getpid()}" / manifests.folder_name(step)
        shutil.rmtree(held.parent, ignore_errors=True)
        try:
            shutil.copytree(self._local.path(step), held, copy_function=os.link)
        except (OSError, shutil.Error):
            shutil.rmtree(held.parent, ignore_errors=True)
            if self._local.path(step).exists():
                raise
            return None
        return held


def main(local: str, url: str, named_by: str, retention: str, parent_pid: str) -> None:
    """Carry checkpoints until told to finish."""
    processes.die_with_parent(int(parent_pid))
    processes.run_when_idle(os.getpid(), True)
    remote = RemoteCatalog(open_store(url, named_by))
    upload = Upload(Catalog(Path(local)), remote, loads(Retention, retention), Transfer(_Teller().tell))
    finishing = begun = False
    pause_s = 0.0
    while True:
        failing = pause_s > 0
        pause_s = max(pause_s, _LOOK_S)
        if not finishing and (finishing := _told_to_finish(pause_s)):
            processes.run_when_idle(os.getpid(), False)
        elif finishing and failing:
            _told_to_finish(min(pause_s, _PAUSE_FINISHING_S))
        try:
            if not begun:
                upload.begin()
                begun = True
                _say(durable=sorted(upload.durable))
            while (manifest := upload.pending()) is not None:
                upload.carry(manifest)
                _say(durable=sorted(upload.durable))
            if finishing:
                upload.end()
            pause_s = 0.0
            if failing:
                _say(error=None)
        except (StorageError, OSError) as error:
            pause_s = min(max(2 * pause_s, _PAUSE_S), PAUSE_AT_MOST_S)
            _say(error=str(error))
        while upload.skipped:
            _say(skipped=upload.skipped.pop())
        if finishing and pause_s == 0:
            _say(finished=True)
            return


def _told_to_finish(timeout_s: float) -> bool:
    ready, _, _ = select.select([0], [], [], timeout_s)
    return bool(ready) and os.read(0, len(FINISH)) == FINISH


class _Teller:
    """Says how far a checkpoint has come, now and then."""

    def __init__(self) -> None:
        self._said_at = 0.0

    def tell(self, transfer: Transfer) -> None:
        now = time.monotonic()
        if transfer.step is not None and now - self._said_at > _TELL_S:
            self._said_at = now
            _say(step=transfer.step, moved=transfer.moved_bytes, size=transfer.size_bytes)


def _identity(manifest: Manifest) -> str:
    return f"{manifest.step} of attempt {manifest.attempt} at {manifest.created_at}"


def _say(**told: Any) -> None:
    os.write(1, json.dumps(told).encode() + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
