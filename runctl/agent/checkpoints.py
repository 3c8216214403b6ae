"""What the agent does for checkpoints: what the ranks begin from, what they are told, how a stop reaches them.

With a run directory on this machine the ranks commit straight into it. With one on object storage they commit into a
folder of this host beside the attempts' host directories. That folder is removed at the end of an attempt if all of it
has arrived; otherwise, also after the agent was killed, it stays, and a later attempt on this host begins from it if it
has the newest checkpoint. From either an uploader carries them on: to `checkpoint.url`, or to the run directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runctl import processes
from runctl.agent.beginning import Beginning
from runctl.agent.last_upload import LastUpload
from runctl.agreement import Agreement, Kind
from runctl.checkpoint.catalog import Catalog, Found
from runctl.checkpoint.policy import RankPolicy
from runctl.checkpoint.progress import ProgressBar
from runctl.checkpoint.remote import RemoteCatalog
from runctl.checkpoint.transfer import Transfer
from runctl.checkpoint.uploader import Uploader
from runctl.errors import CheckpointCorrupt, CheckpointUnloadable, RunctlError
from runctl.hostdir import HostDir
from runctl.rundir import RunDir, run_url
from runctl.spec import LaunchSpec
from runctl.storage import RUN_ROOT, open_store


@dataclass(frozen=True)
class Asked:
    """Ranks that were asked for something.

    Attributes:
        restart: which ones, by the number of their restart.
        step: the furthest of them had completed so many.
    """

    restart: int
    step: int


class Checkpoints:
    """The checkpoints of a run, as one attempt on this host sees them.

    Args:
        spec: what runs.
        rundir: its run directory; with one on this machine, ranks commit straight into it.
        host_dir: this attempt's scratch directory.
        attempt: its number.
        ranks: how many there are on this host.
        bar: where people see how far a checkpoint has come, and what there is to say.
    """

    def __init__(
        self, spec: LaunchSpec, rundir: RunDir, host_dir: HostDir, attempt: int, ranks: int, *, bar: ProgressBar
    ) -> None:
        self._spec = spec
        self._host_dir = host_dir
        self._attempt = attempt
        self._ranks = ranks
        self._bar = bar
        own = rundir.local_checkpoints()
        self._staged = own is None
        self._catalog = Catalog(own or _staging(host_dir))
        self._remote: RemoteCatalog | None = None
        self._uploader: Uploader | None = None
        if spec.checkpoint.url is not None or own is None:
            store, named_by = rundir.store, RUN_ROOT
            if spec.checkpoint.url is not None:
                named_by = "checkpoint.url=…"
                store = open_store(run_url(spec.checkpoint.url, spec.run.id), named_by)
            self._remote = RemoteCatalog(store)
            self._uploader = Uploader(
                self._catalog, store.url, spec.checkpoint.retention, self._bar.say, named_by=named_by
            )
        self._unloadable: dict[int, str] = {}
        self._last_upload: LastUpload | None = None
        self._stall_s = 0.0
        self.resumed_from_step: int | None = None
        self.found: Found | None = None

    def begin(self, stopped: Callable[[], bool]) -> dict[str, str]:
        """Find what this attempt begins from, and bring it to this host.

        Args:
            stopped: whether a stop has come; asked again and again while a checkpoint is downloaded.

        Returns:
            The variable that tells the ranks.

        Raises:
            CheckpointUnloadable: if there are checkpoints and not one of them loads.
            CheckpointError: if there are checkpoints and none is usable, or if one is required and there is none.
            StorageError: if the storage cannot be read.
            RestoreStopped: if a stop came meanwhile.
        """
        if self._staged:
            _make_private(self._catalog.folder)
        self._catalog.sweep()
        resume = self._spec.checkpoint.resume
        beginning = Beginning(self._spec.checkpoint, self._catalog, self._remote, self._bar.say, self._show_restore)
        try:
            found = self.found = beginning.find(stopped, frozenset(self._unloadable))
        except CheckpointCorrupt as error:
            if not self._unloadable:
                raise
            raise CheckpointUnloadable(self._none_loads()) from error
        finally:
            self._bar.clear()
        if self._unloadable and resume.isdigit():
            raise CheckpointUnloadable(self._none_loads())
        if self._uploader is not None:
            self._uploader.durable = beginning.durable
        if resume == "never" or resume.isdigit():
            after = found.manifest.step if found else -1
            self._supersede(lambda step: step > after)
        if found is not None:
            self.resumed_from_step = found.manifest.step
            self._bar.say(f"resuming from step {found.manifest.step} ({found.path})")
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

    def go_back(self) -> bool:
        """Whether ranks that failed did so because their checkpoint would not load, so that the one before is next."""
        told = [w for w in self._host_dir.workers() if "unloadable" in w]
        if not told or self.found is None:
            return False
        self._unloadable[self.found.manifest.step] = str(told[0]["unloadable"])
        self._bar.say(
            f"{self.found.path} verifies but does not load ({told[0]['unloadable']}); going back to the one before"
        )
        return True

    def ask_to_stop(self) -> bool:
        """Ask the ranks to meet at a step, save and end.

        Returns:
            False if they cannot be asked: not all of them look out for it, or not yet.
        """
        return self._ask(Kind.STOP) is not None

    def ask_to_save(self) -> Asked | None:
        """Ask the ranks to save at their next step; None if they cannot be asked."""
        return self._ask(Kind.SAVE)

    def _ask(self, kind: Kind) -> Asked | None:
        restart = self.restart()
        path = self._host_dir.agreement(restart)
        polling = [w for w in self._host_dir.workers() if w.get("polling") and w["restart"] == restart]
        if len(polling) < self._ranks or not path.exists():
            return None
        agreement = Agreement(path)
        asked = Asked(restart, max(agreement.steps()))
        agreement.want(kind)
        agreement.close()
        return asked

    def restart(self) -> int:
        """The number of the ranks' last restart in place."""
        return self._host_dir.restart()

    def first_after(self, step: int) -> int | None:
        """The first checkpoint of a later step that lies where the run's checkpoints do; None as long as none does."""
        return min((one for one in self.progress()["checkpoints"] if one > step), default=None)

    @property
    def writer_at_work(self) -> int | None:
        """The process that writes a checkpoint just now, or None: a snapshot outlives the rank that took it."""
        path = self._host_dir.agreement(self._host_dir.restart())
        if not path.exists():
            return None
        agreement = Agreement(path)
        pid, self._stall_s = agreement.writer_at_work(), agreement.stall_s
        agreement.close()
        return pid if pid is not None and processes.started_at(pid) is not None else None

    def writer_hurries(self) -> bool:
        """Whether a checkpoint is being written; its writer need stand back no more, for nobody trains."""
        if (pid := self.writer_at_work) is not None:
            processes.run_when_idle(pid, False)
        return pid is not None

    def stopped_at_step(self) -> int | None:
        """The step at which the ranks ended because they were asked to, or None."""
        steps = [w["stopped_at_step"] for w in self._host_dir.workers() if "stopped_at_step" in w]
        return min(steps, default=None)

    def progress(self) -> dict[str, Any]:
        """What the status says of checkpoints."""
        durable = self._catalog.steps() if self._uploader is None else self._uploader.durable
        return {"checkpoints": durable, "resumed_from_step": self.resumed_from_step, "stall_s": self._stall_s}

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
        if self._unloadable and self._all_restored():
            # Only now: had none of them loaded, all would be as before.
            self._supersede(self._unloadable.__contains__)
            self._unloadable.clear()

    def _announce_durable(self, step: int) -> None:
        """Let rank 0 see how long uploads take: with `checkpoint.every=auto` it saves no more often than that."""
        path = self._host_dir.agreement(self._host_dir.restart())
        if path.exists():
            agreement = Agreement(path)
            agreement.announce_durable(step)
            agreement.close()

    def finish_upload(self) -> None:
        """Have the last checkpoint carried to where it belongs; `upload_goes_on` tells until when."""
        if self._uploader is not None and self._remote is not None:
            self._last_upload = LastUpload(self._uploader, self._remote.place, self._bar)

    def upload_goes_on(self) -> bool:
        """Whether to wait on for the last upload, as far as the upload is concerned."""
        return self._last_upload is not None and self._last_upload.goes_on()

    def _show_restore(self, transfer: Transfer) -> None:
        self._bar.show("restoring", transfer)

    def close(self) -> None:
        """Keep what the retention says, end the upload; remove this host's folder if all of it has arrived."""
        self._prune_what_a_killed_writer_left()
        if self._uploader is None or self._remote is None:
            return
        self._bar.clear()
        self._uploader.end()
        folder, steps = self._catalog.folder, self._catalog.steps()
        # An upload finishes also if it has refused the newest checkpoint, whose bytes are not those of its manifest.
        there = not steps or steps[-1] in self._uploader.durable
        if self._staged and there and (self._uploader.finished or not steps):
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()
        elif not there:
            why = f" ({self._uploader.failing})" if self._uploader.failing else ""
            self._bar.say(f"the checkpoint of step {steps[-1]} is not in {self._remote.place}{why}")
            self._bar.say(
                f"it stays on this host, for the next attempt of this run here: {self._catalog.path(steps[-1])}"
            )

    def _prune_what_a_killed_writer_left(self) -> None:
        """Keep no more than the retention: who is killed between a checkpoint and its pruning leaves one too many.

        Only where this attempt's ranks have loaded a checkpoint, or begun without one, so that what goes is never what
        the next attempt would have to go back to, and with no writer at work, which prunes itself.
        """
        if self._all_restored() and not self._unloadable and self.writer_at_work is None:
            with contextlib.suppress(CheckpointCorrupt, OSError):
                self._catalog.prune(self._spec.checkpoint.retention)

    def _all_restored(self) -> bool:
        restored = [w for w in self._host_dir.workers() if "restored_step" in w]
        return len(restored) >= self._ranks

    def _supersede(self, counts_no_more: Callable[[int], bool]) -> None:
        """Have checkpoints count no more, or the next attempt would go on from what this one does not begin from."""
        here = list(filter(counts_no_more, self._catalog.steps()))
        self._catalog.supersede(here, self._attempt)
        there = list(filter(counts_no_more, self._remote.steps())) if self._remote is not None else []
        if self._remote is not None:
            self._remote.supersede(there)
        if here or there:
            steps = ", ".join(map(str, sorted({*here, *there})))
            self._bar.say(f"checkpoints of steps {steps} are superseded; they are kept, unused")

    def _none_loads(self) -> str:
        tried = "; ".join(f"step {step}: {why}" for step, why in self._unloadable.items())
        return (
            f"no checkpoint of this run loads ({tried}). Nothing was changed: mend the script and launch again, "
            "or begin anew with checkpoint.resume=never"
        )


def _staging(host_dir: HostDir) -> Path:
    """Where the checkpoints of a run on object storage lie on this host.

    Not in the attempt's host directory, which is emptied at the next attempt's beginning; and no other run directory's
    checkpoints, for the same run id may have been used under two roots.
    """
    run = host_dir.path.parent
    return run.parent / ".checkpoints" / run.name


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
