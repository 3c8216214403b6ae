"""What the agent does for checkpoints: what the ranks begin from, what they are told, how a stop reaches them.

With a run directory on this machine the ranks commit straight into it. With one on object storage they commit into a
folder of this host beside the attempts' host directories, from where an uploader carries them on. That folder is
removed at the end of an attempt if all of it has arrived; otherwise, also after the agent was killed, it stays, and a
later attempt on this host begins from it if it has the newest checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runctl import processes
from runctl.agreement import Agreement, Kind
from runctl.checkpoint.catalog import Catalog, Found
from runctl.checkpoint.policy import RankPolicy
from runctl.checkpoint.remote import RemoteCatalog
from runctl.checkpoint.restore import Restore
from runctl.checkpoint.uploader import Uploader
from runctl.errors import CheckpointError, RunctlError
from runctl.hostdir import HostDir
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec

_LOOK_S = 0.05


class RestoreStopped(CheckpointError):
    """A stop came while a checkpoint was being downloaded."""


class Checkpoints:
    """The checkpoints of a run, as one attempt on this host sees them.

    Args:
        spec: what runs.
        rundir: its run directory; with one on this machine, ranks commit straight into it.
        host_dir: this attempt's scratch directory.
        attempt: its number.
    """

    def __init__(self, spec: LaunchSpec, rundir: RunDir, host_dir: HostDir, attempt: int) -> None:
        self._spec = spec
        self._host_dir = host_dir
        self._attempt = attempt
        self._catalog = Catalog(rundir.local_checkpoints() or _staging(host_dir, spec.run.id, rundir.url))
        self._remote: RemoteCatalog | None = None
        self._uploader: Uploader | None = None
        if rundir.local_checkpoints() is None:
            self._remote = RemoteCatalog(rundir.store)
            self._uploader = Uploader(self._catalog, rundir.url, spec.checkpoint.retention, _say)
        self.resumed_from_step: int | None = None
        self.found: Found | None = None

    def begin(self, stopped: Callable[[], bool]) -> dict[str, str]:
        """Find what this attempt begins from, and bring it to this host.

        Args:
            stopped: whether a stop has come; asked again and again while a checkpoint is downloaded.

        Returns:
            The variable that tells the ranks.

        Raises:
            CheckpointError: if there are checkpoints and none is usable, or if one is required and there is none.
            StorageError: if the run directory cannot be read.
            RestoreStopped: if a stop came meanwhile.
        """
        if self._uploader is not None:
            _make_private(self._catalog.folder)
        self._catalog.sweep()
        try:
            found = self.found = self._find(stopped)
            if self._spec.checkpoint.resume not in ("auto", "require"):
                self._supersede(found.manifest.step if found else -1)
        except BaseException:
            self.close()
            raise
        if found is not None:
            self.resumed_from_step = found.manifest.step
            _say(f"resuming from step {found.manifest.step} ({found.path})")
        policy = self._spec.checkpoint
        return RankPolicy(
            folder=str(self._catalog.folder),
            run_id=self._spec.run.id,
            attempt=self._attempt,
            every=policy.every,
            restore=str(found.path) if found and found.manifest.watched is None else None,
            grace_s=policy.grace_s,
            mean_time_to_interruption_s=policy.mean_time_to_interruption_s,
            retention=policy.retention,
        ).to_environment()

    @property
    def catalog(self) -> Catalog:
        return self._catalog

    def ask_to_stop(self, ranks: int) -> bool:
        """Ask the ranks to meet at a step, save and end.

        Returns:
            False if they cannot be asked: not all of them look out for it, or not yet.
        """
        restart = self._host_dir.restart()
        path = self._host_dir.agreement(restart)
        polling = [w for w in self._host_dir.workers() if w.get("polling") and w["restart"] == restart]
        if len(polling) < ranks or not path.exists():
            return False
        agreement = Agreement(path)
        agreement.want(Kind.STOP)
        agreement.close()
        return True

    def wait_for_writer(self, timeout_s: float) -> None:
        """Let a checkpoint that is being written be finished: its snapshot outlives the rank that took it."""
        path = self._host_dir.agreement(self._host_dir.restart())
        if not path.exists():
            return
        agreement = Agreement(path)
        deadline = time.monotonic() + timeout_s
        while (pid := agreement.writer_at_work()) is not None and time.monotonic() < deadline:
            if processes.started_at(pid) is None:
                break
            time.sleep(_LOOK_S)
        agreement.close()

    def stopped_at_step(self) -> int | None:
        """The step at which the ranks ended because they were asked to, or None."""
        steps = [w["stopped_at_step"] for w in self._host_dir.workers() if "stopped_at_step" in w]
        return min(steps, default=None)

    def progress(self) -> dict[str, Any]:
        """What the status says of checkpoints."""
        durable = self._catalog.steps() if self._uploader is None else self._uploader.durable
        return {"checkpoints": durable, "resumed_from_step": self.resumed_from_step}

    # --- the upload ---

    @property
    def upload_pid(self) -> int | None:
        """The upload's process, which outlives the ranks."""
        return self._uploader.pid if self._uploader is not None else None

    def poll(self) -> None:
        """Keep the upload going, without waiting for it."""
        if self._uploader is not None:
            before = self._uploader.durable
            self._uploader.poll()
            if self._uploader.durable and self._uploader.durable != before:
                self._announce_durable(max(self._uploader.durable))

    def _announce_durable(self, step: int) -> None:
        """Let rank 0 see how long uploads take: with `checkpoint.every=auto` it saves no more often than that."""
        path = self._host_dir.agreement(self._host_dir.restart())
        if path.exists():
            agreement = Agreement(path)
            agreement.announce_durable(step)
            agreement.close()

    def finish_upload(self) -> None:
        """Have the last checkpoint carried to the run directory; `upload_goes_on` tells when."""
        if self._uploader is not None:
            self._uploader.finish()

    def upload_goes_on(self) -> bool:
        """Whether to wait on for the last upload, as far as the upload is concerned."""
        if self._uploader is None:
            return False
        self._uploader.poll()
        return not self._uploader.finished and not self._uploader.hopeless()

    def close(self) -> None:
        """End the upload; remove this host's folder if all of it has arrived, else say where it stays."""
        if self._uploader is None or self._remote is None:
            return
        self._uploader.end()
        folder, steps = self._catalog.folder, self._catalog.steps()
        if self._uploader.finished or not steps:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()
        elif self._uploader.durable[-1:] != steps[-1:]:
            why = f" ({self._uploader.failing})" if self._uploader.failing else ""
            _say(f"the checkpoint of step {steps[-1]} is not in {self._remote.place}{why}")
            _say(f"it stays on this host, for the next attempt of this run here: {self._catalog.path(steps[-1])}")

    def _supersede(self, after: int) -> None:
        """An attempt that was told where to begin makes what lies beyond count no more."""
        later = set(self._catalog.supersede(after, self._attempt))
        if self._remote is not None:
            later |= set(self._remote.supersede(after))
        if later:
            _say(f"checkpoints of steps {', '.join(map(str, sorted(later)))} are superseded; they are kept, unused")

    def _find(self, stopped: Callable[[], bool]) -> Found | None:
        resume = self._spec.checkpoint.resume
        if resume == "never":
            return None
        if self._remote is not None and self._uploader is not None:
            return self._find_remote(self._remote, self._uploader, stopped)
        if resume.isdigit():
            path = self._catalog.path(int(resume))
            return Found(path, self._catalog.verified(int(resume)))
        found = self._catalog.newest(lambda error: _say(f"{error}; going back to the one before"))
        if found is None and resume == "require":
            raise CheckpointError(f"checkpoint.resume=require: there is no checkpoint in {self._catalog.folder}")
        return found

    def _find_remote(self, remote: RemoteCatalog, uploader: Uploader, stopped: Callable[[], bool]) -> Found | None:
        """The same where checkpoints may have to be downloaded: in a thread, so that a stop is heard meanwhile."""
        resume = self._spec.checkpoint.resume
        stop = threading.Event()
        restore = Restore(self._catalog, remote, _say, stop)
        result: list[Found | None] = []
        errors: list[BaseException] = []

        def find() -> None:
            try:
                result.append(restore.of_step(int(resume)) if resume.isdigit() else restore.newest())
                uploader.durable = remote.steps()
            except BaseException as error:  # noqa: BLE001 (it goes on in the main thread)
                errors.append(error)

        thread = threading.Thread(target=find, name="runctl-restore", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_LOOK_S)
            if stopped():
                stop.set()
                raise RestoreStopped("stopped while a checkpoint was being downloaded")
        if errors:
            raise errors[0]
        if result[0] is None and resume == "require":
            raise CheckpointError(f"checkpoint.resume=require: there is no checkpoint in {remote.place}")
        return result[0]


def _staging(host_dir: HostDir, run_id: str, url: str) -> Path:
    """Where the checkpoints of a run on object storage lie on this host.

    Not in the attempt's host directory, which is emptied at the next attempt's beginning; and no other run directory's
    checkpoints, for the same run id may have been used under two roots.
    """
    digest = hashlib.blake2b(url.encode(), digest_size=6).hexdigest()
    return host_dir.path.parent.parent / ".checkpoints" / f"{run_id}-{digest}"


def _make_private(folder: Path) -> None:
    """Make the folder, below one that only this user may look into.

    Raises:
        RunctlError: if that is another user's doing: what lies there would be taken for checkpoints of ours.
    """
    base = folder.parent.parent
    try:
        base.mkdir(exist_ok=True, mode=0o700)
        if base.lstat().st_uid != os.getuid():
            raise RunctlError(f"{base} belongs to another user; set TMPDIR to a folder of your own")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunctlError(f"cannot make {folder}: {error.strerror}; TMPDIR chooses another place") from error


def _say(text: str) -> None:
    sys.stderr.write(f"runctl: {text}\n")
