"""Rank 0's side of saving: snapshot, writer process, what to do when the writer is still busy."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.interval import AutoInterval
from runctl.checkpoint.policy import ATTACH_URL, RankPolicy
from runctl.checkpoint.uploader import Uploader
from runctl.errors import CheckpointError, CheckpointUnloadable
from runctl.training import plain
from runctl.training.meeting import Meeting
from runctl.training.snapshot import Snapshot
from runctl.training.writer import Job

#: How long a writer may take at idle priority.
_PATIENCE_S = 20.0
_UPLOADER_LOOK_S = 0.5
_LOOK_S = 0.05
_PACKAGE_DIR = str(Path(__file__).resolve().parents[2])


class Saver:
    """Takes snapshots and hands them to the writer.

    A save that comes while the writer still reads the buffer is deferred and counted, never waited for, except
    at a stop.

    Attributes:
        busy: whether the writer still reads the buffer.
        saved_at: when the last save was begun (monotonic).
        deferred: saves that had to be put off.
        retry_due: a save was put off, and the writer is free again.
        interval_s: after so long a save is due by the clock; infinite where steps or epochs decide.
        stall_s: seconds that the training loop waited for copies, per save.
    """

    def __init__(self, policy: RankPolicy, meeting: Meeting) -> None:
        self._policy = policy
        self._meeting = meeting
        self._snapshot = Snapshot()
        self._begin_writer()
        if not policy.launched:
            plain.at_own_exit(self._at_exit)
        self._uploader: Uploader | None = None
        self._begin_upload()
        self._uploader_at = 0.0
        self.busy = False
        self._first = True
        self._missed = False
        self.saved_at = time.monotonic()
        self.deferred = 0
        self.retry_due = False
        self.stall_s: list[float] = []
        every = policy.every
        self._auto = AutoInterval(policy.mean_time_to_interruption_s) if every.unit == "auto" else None
        self._on_its_way: tuple[int, float] | None = None
        self.interval_s = every.count if every.unit == "seconds" else math.inf
        if self._auto is not None:
            self.interval_s = self._auto.seconds

    def _begin_writer(self) -> None:
        self._replies, reply_write = os.pipe()
        self._writer = subprocess.Popen(
            [sys.executable, "-m", "runctl.training.writer", str(self._snapshot.descriptor), str(reply_write)],
            stdin=subprocess.PIPE,
            cwd=_PACKAGE_DIR,
            pass_fds=(self._snapshot.descriptor, reply_write),
            # A session of its own: what kills this rank's process group lets the writer finish what it has.
            start_new_session=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )
        os.close(reply_write)

    def _begin_upload(self) -> None:
        if self._policy.upload_to is not None:
            self._uploader = Uploader(
                Catalog(Path(self._policy.folder)),
                self._policy.upload_to,
                self._policy.retention,
                _say,
                named_by=ATTACH_URL,
            )

    @property
    def _let_go(self) -> bool:
        """Whether the writer was let go at the end of a loop."""
        assert self._writer.stdin is not None
        return self._writer.stdin.closed

    def prepare(self, state: dict[str, Any]) -> None:
        """Get ready for saves of such a state, beside the training."""
        self._snapshot.prepare(state)
        if self._auto is not None:
            # The first save measures what one costs: that must not be a wait for what is prepared here.
            self.saved_at = time.monotonic()

    def wait_until_prepared(self) -> None:
        """Wait for what `prepare` began."""
        self._snapshot.join()

    def save(self, state: dict[str, Any], step: int, epoch: int, metrics: dict[str, float], *, wait_s: float) -> bool:
        """Copy the state and have it written.

        Args:
            state: what `data.pt` will hold.
            metrics: latest values by name, for the manifest.
            wait_s: how long to wait for a writer that is busy; 0 to defer instead.

        Returns:
            Whether the snapshot was taken; False if it was deferred.

        Raises:
            CheckpointError: if the writer is gone, or what it wrote would not load.
        """
        if self._let_go:  # another loop follows
            self._begin_writer()
            self._begin_upload()
        self.poll()
        if self.busy and not wait_s:
            self.deferred += 1
            self._missed = True
            return False
        self._wait(wait_s)
        began = time.monotonic()
        skeleton, size = self._snapshot.take(state)
        self.stall_s.append(time.monotonic() - began)
        self._meeting.agreement.add_stall(self.stall_s[-1])
        ranks = range(self._meeting.agreement.ranks)
        job = Job(
            folder=self._policy.folder,
            run_id=self._policy.run_id,
            attempt=self._policy.attempt,
            step=step,
            epoch=epoch,
            skeleton=skeleton,
            size_bytes=size,
            rank_files=tuple(self._meeting.rank_file(step, rank) for rank in ranks),
            read_back=self._first,
            metrics=metrics,
            retention=self._policy.retention,
            agreement=str(self._meeting.agreement.path),
        )
        assert self._writer.stdin is not None
        self._meeting.agreement.announce_writing(step, self._writer.pid)
        try:
            pickle.dump(job, self._writer.stdin)
            self._writer.stdin.flush()
        except BrokenPipeError as error:
            raise CheckpointError(f"the checkpoint writer ended with code {self._writer.wait()}") from error
        self.busy, self._first, self._missed, self.retry_due = True, False, False, False
        self.saved_at = time.monotonic()
        return True

    def poll(self) -> None:
        """Take in what the writer says, without waiting."""
        if self.busy:
            self._hear(0)
            if self.busy and time.monotonic() - self.saved_at > _PATIENCE_S:
                self._hurry()
        if self._uploader is not None and time.monotonic() - self._uploader_at > _UPLOADER_LOOK_S:
            self._uploader_at = time.monotonic()
            self._uploader.poll()
            if self._uploader.durable:
                self._meeting.agreement.announce_durable(max(self._uploader.durable))
        if self._auto is not None:
            self._follow(self._auto)

    def finish(self, wait_s: float) -> None:
        """Wait for the writer to finish, and let it go; have what it wrote carried to where it belongs.

        Args:
            wait_s: for how long, seconds; what is carried then has no limit but a stop's own.

        Raises:
            CheckpointError: if the writer takes longer, or is gone.
        """
        try:
            self._finish_writing(wait_s)
        finally:
            if self._uploader is not None:
                self._finish_upload(self._uploader)

    def _finish_writing(self, wait_s: float) -> None:
        if self._let_go:
            return
        self._wait(wait_s)
        assert self._writer.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it went before; what it had to do is done
            # Said in so many words: data loader workers, forked from here, hold the pipe open as well.
            pickle.dump(None, self._writer.stdin)
            self._writer.stdin.close()
        self._writer.wait()
        os.close(self._replies)

    def _finish_upload(self, uploader: Uploader) -> None:
        """Wait for as long as it gets on; a stop's own timer ends the rank if that takes too long."""
        self._uploader = None
        uploader.finish()
        while not uploader.finished and not uploader.hopeless():
            uploader.poll()
            time.sleep(_LOOK_S)
        uploader.end()
        if not uploader.finished:
            _say(f"the last checkpoint has not arrived at {self._policy.upload_to} ({uploader.failing}); "
                 f"it stays in {self._policy.folder} for the next start")  # fmt: skip

    def _at_exit(self) -> None:
        """Without an agent that would see to it: an exception ends the script, and what was saved is kept."""
        if self._writer.poll() is None or self._uploader is not None:
            with contextlib.suppress(CheckpointError):
                self.finish(self._policy.grace_s)

    def _wait(self, wait_s: float) -> None:
        if self.busy:
            self._hurry()
            self._hear(wait_s)

    def _hurry(self) -> None:
        """Let the writer compete for the processor: on a machine with none to spare it would never be done."""
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setscheduler(self._writer.pid, os.SCHED_OTHER, os.sched_param(0))

    def _hear(self, timeout_s: float) -> None:
        replies = select.poll()  # where `select` takes no descriptor beyond 1023: a script may have many files open
        replies.register(self._replies, select.POLLIN)
        if not replies.poll(timeout_s * 1000):
            if timeout_s:
                raise CheckpointError(f"the checkpoint writer did not finish within {timeout_s:g} s")
            return
        text = os.read(self._replies, 1 << 16)
        if not text:
            raise CheckpointError(f"the checkpoint writer ended with code {self._writer.wait()}")
        self.busy = False
        self.retry_due = self._missed
        reply = json.loads(text)
        if "error" in reply:
            raise CheckpointUnloadable(f"the checkpoint of step {reply['step']} failed: {reply['error']}")
        if self._auto is not None:
            self._auto.saved(self.stall_s[-1], reply["took_s"])
            self._on_its_way = self._on_its_way or (reply["step"], time.monotonic())

    def _follow(self, auto: AutoInterval) -> None:
        """Take over the interval as it is reckoned now, and say so if it is news."""
        if self._on_its_way is not None:
            step, committed_at = self._on_its_way
            if self._meeting.agreement.durable >= step:
                self._on_its_way = None
                auto.uploaded(time.monotonic() - committed_at)
        self.interval_s = auto.seconds
        if (news := auto.news()) is not None:
            _say(news)


def _say(text: str) -> None:
    sys.stderr.write(f"runctl: {text}\n")
