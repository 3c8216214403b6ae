"""`runctl.attach`: checkpoints for a plain training loop.

    ck = runctl.attach(model=model, optimizer=optimizer)
    for step in ck.steps(1000):
        ...
        ck.log(loss=loss)

The loop stops for the copy out of its tensors and for nothing else. Ranks meet at a step without a collective
(`runctl.agreement`); rank 0 alone saves, the others leave their random state to its writer.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from runctl.agreement import Appointment, Kind
from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.policy import RankPolicy
from runctl.errors import CheckpointError
from runctl.training import place, randomness
from runctl.training.beginning import begin
from runctl.training.log import log as log_metrics
from runctl.training.meeting import Meeting
from runctl.training.saver import Saver
from runctl.training.writer import DATA, rank_name

RESERVED = ("epoch", "step", "model_state_dict", "optimizer_state_dict", "loss", "config", "timestamp")
#: How long a training that has come to its end waits for its last checkpoint: large states take minutes to write, and
#: only a stop, which has a timer of its own, is in a hurry.
_AT_THE_END_S = 3600.0


class Checkpointer:
    """What `attach` returns: the loop's steps, saves and stops.

    Attributes:
        step: completed steps.
        epoch: completed epochs.
        loss: the last one that was logged, also before an interruption; None before the first.
        saver: rank 0's side of saving; None on other ranks.
    """

    def __init__(
        self, policy: RankPolicy, parts: Mapping[str, Any], loader: Any, config: Mapping[str, Any] | None
    ) -> None:
        self.step = 0
        self.epoch = 0
        self.loss: float | None = None
        self._policy = policy
        self._parts = parts
        self._loader = loader
        self._config = dict(config or {})
        self._metrics: dict[str, float] = {}
        self._rank, _, self._world_size, _ = place.here()
        self._meeting = Meeting(self._rank, self._world_size)
        if not policy.launched:
            self._meeting.stop_on_signals(policy.grace_s)
        self.saver = Saver(policy, self._meeting) if self._rank == 0 else None
        self._pending: list[Appointment] = []
        self._prepared = False
        self._stopping = False
        self._wait_s = 0.0
        self._batches_done = 0
        self._batch_in_hand = False
        self._epoch_random: dict[str, Any] | None = None
        self._loader_restored = False
        self._pass_done = self._by_batches = False
        begin(policy, self._meeting, self._load)
        self._saved_step = self.step
        self._meeting.agreement.publish(self._meeting.local_rank, self.step)
        self._meeting.say_restored(self.step)

    # --- the loop ---

    def steps(self, total: int) -> Iterator[int]:
        """Count the loop's steps from where the checkpoint left off to `total`.

        Yields:
            The number of completed steps: 0 for the first step of a new run.
        """
        self._meeting.say_length({"total_steps": total})
        while self.step < total:
            yield self.step
            self._completed_step()
        self._finish()

    def epochs(self, total: int) -> Iterator[int]:
        """Count epochs from where the checkpoint left off to `total`; iterate the data with `batches`.

        An epoch without `batches` is one step: at its end ranks stop, and save what is due.

        Yields:
            The number of completed epochs.
        """
        length = {"epochs": total}
        with contextlib.suppress(TypeError):  # a loader over a stream cannot tell
            length["total_steps"] = total * (1 if self._loader is None else len(self._loader))
        self._meeting.say_length(length)
        while self.epoch < total:
            yield self.epoch
            self.epoch += 1
            by_batches = self._by_batches
            self._begin_pass()
            if not by_batches:
                self._completed_step(of_an_epoch=True)
            if self._policy.every.unit == "epochs" and self.epoch % self._policy.every.count == 0:
                self.save()
        self._finish()

    def batches(self) -> Iterator[Any]:
        """The loader's batches of this epoch, one step each, from where the checkpoint left off.

        A loader with `state_dict` (torchdata's StatefulDataLoader) goes on by itself; otherwise the epoch's order
        is drawn again from the random state at its begin, and the batches that were done are skipped. After a stop at
        an epoch's last batch there are none left, and what follows them in the loop is still to be done.

        Raises:
            CheckpointError: if no loader was attached.
        """
        if self._loader is None:
            raise CheckpointError("ck.batches() needs a loader: runctl.attach(loader=…)")
        if self._pass_done:
            self._begin_pass()
        self._by_batches = True
        here = randomness.capture()
        resumed = self._epoch_random is not None
        if self._epoch_random is not None:
            randomness.restore(self._epoch_random)
        else:
            self._epoch_random = here
        batches = iter(self._loader)
        if resumed:
            skip = 0 if self._loader_restored else self._batches_done
            self._loader_restored = False
            collections.deque(itertools.islice(batches, skip), maxlen=0)
            # One that was saved within the loop's body had its batch in hand, drawn before the random state was kept.
            in_hand = list(itertools.islice(batches, int(self._batch_in_hand)))
            randomness.restore(here)
            batches = itertools.chain(in_hand, batches)
        for batch in batches:
            self._batch_in_hand = True
            yield batch
            self._batch_in_hand = False
            self._batches_done += 1
            self._completed_step()
        self._pass_done = True

    def log(self, **metrics: Any) -> None:
        """Record metrics of the step being done; `loss` also goes into the next checkpoint.

        Args:
            **metrics: numbers or one-element tensors by name. Reading a tensor on a GPU waits for it.
        """
        values = {name: value.item() if hasattr(value, "item") else value for name, value in metrics.items()}
        self.loss = values.get("loss", self.loss)
        self._metrics.update(values)
        log_metrics(step=self.step + 1, **values)

    def save(self) -> None:
        """Save now. Call it on every rank, at the same step."""
        self._save()

    @property
    def should_stop(self) -> bool:
        """Whether a stop was asked for: a long evaluation may end early for it."""
        return self._stopping or self._meeting.stop_requested()

    def _begin_pass(self) -> None:
        """The next batches are the first of a pass over the data."""
        self._batches_done, self._epoch_random, self._pass_done = 0, None, False
        self._by_batches = False

    # --- boundaries ---

    def _completed_step(self, *, of_an_epoch: bool = False) -> None:
        self.step += 1
        meeting = self._meeting
        meeting.agreement.publish(meeting.local_rank, self.step)
        if meeting.agreement.raised != meeting.seen:
            self._pending += meeting.new_appointments()
        due = [a for a in self._pending if a.step <= self.step]
        every = self._policy.every
        if due or (every.unit == "steps" and self.step % every.count == 0):
            self._pending = [a for a in self._pending if a.step > self.step]
            self._stopping = any(a.kind is Kind.STOP for a in due)
            self._wait_s = self._policy.grace_s if self._stopping else 0.0
            self._save()
            if self._stopping:
                self._leave()
        elif self.saver is not None:
            if not self._prepared:
                # After the first step, for only then the optimizer has the state that it will have.
                self.saver.prepare(self.state())
                self._prepared = True
            self.saver.poll()
            by_clock = time.monotonic() - self.saver.saved_at >= self.saver.interval_s
            if by_clock or self.saver.retry_due:
                self.saver.saved_at, self.saver.retry_due = time.monotonic(), False
                if of_an_epoch:
                    self._save()
                else:
                    meeting.agreement.want(Kind.SAVE)
        elif of_an_epoch:
            # The next step to agree on would be an epoch away: each rank leaves its state, and rank 0 decides alone.
            self._save()

    def _save(self) -> None:
        """Leave this rank's own state, and on rank 0 take the snapshot; nothing if this step is saved already."""
        if self.step == self._saved_step:
            return
        self._meeting.leave_rank_state(self.step, self._rank_state())
        if self.saver is not None and self.saver.save(
            self.state(), self.step, self.epoch, self._metrics, wait_s=self._wait_s
        ):
            self._saved_step = self.step

    def _finish(self) -> None:
        """The end of a loop: its last state is saved, and the writer is waited for. Another loop may follow."""
        self._wait_s = _AT_THE_END_S
        self._save()
        self._wait_for_commit()
        self._wait_s = 0.0

    def _leave(self) -> None:
        """A stop: the state is saved, so end this rank here, with success, for torchrun counts anything else."""
        self._wait_for_commit()
        self._meeting.say_stopped(self.step)
        raise SystemExit(0)

    def _wait_for_commit(self) -> None:
        if self.saver is not None:
            self.saver.finish(self._wait_s)
        elif self.step != self._saved_step:  # what this rank began from is committed, and nobody will say so again
            self._meeting.wait_for_commit(self.step, self._wait_s)

    # --- state ---

    def state(self) -> dict[str, Any]:
        """What a checkpoint of this moment holds; its tensors are the live ones."""
        state: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.step,
            "loss": self.loss,
            "config": self._config,
            "timestamp": datetime.now(timezone.utc).isoformat(),
            "batches_done": self._batches_done,
            "batch_in_hand": self._batch_in_hand,
        }
        return state | {key_of(name): part.state_dict() for name, part in self._parts.items()}

    def _rank_state(self) -> dict[str, Any]:
        state = {"random": randomness.capture(), "epoch_random": self._epoch_random}
        if self._loader is not None and hasattr(self._loader, "state_dict"):
            state["loader"] = self._loader.state_dict()
        return state

    def _load(self, folder: Path) -> None:
        """Put the state of a checkpoint in place."""
        state = torch.load(folder / DATA, weights_only=True, map_location="cpu", mmap=True)
        for name, part in self._parts.items():
            part.load_state_dict(state[key_of(name)])
        self.step, self.epoch = state["step"], state["epoch"]
        self.loss = state["loss"]
        self._batches_done, self._batch_in_hand = state["batches_done"], state["batch_in_hand"]
        if hasattr(getattr(self._loader, "sampler", None), "num_replicas"):
            # Each rank has a share of the data: as many batches of it as make up what all of them had done together.
            self._batches_done = self._batches_done * manifests.read(folder).world_size // self._world_size
        self._restore_rank(folder)

    def _restore_rank(self, folder: Path) -> None:
        own, first = folder / rank_name(self._rank), folder / rank_name(0)
        if own.exists():
            saved = torch.load(own, weights_only=True)
            if "loader" in saved and hasattr(self._loader, "load_state_dict"):
                self._loader.load_state_dict(saved["loader"])
                self._loader_restored = True
            self._epoch_random = saved["epoch_random"]
            randomness.restore(saved["random"])
        elif first.exists():
            sys.stderr.write(
                f"runctl: {folder.name} has no state of rank {self._rank}: fewer ranks trained it; "
                "its random state is derived from rank 0's\n"
            )
            saved = torch.load(first, weights_only=True)
            self._epoch_random = saved["epoch_random"]  # in the middle of an epoch, as the others are
            randomness.derive(saved["random"], self._rank)


def key_of(name: str) -> str:
    return f"{name}_state_dict"
