"""`runctl.attach`: checkpoints for a plain training loop.

    ck = runctl.attach(model=model, optimizer=optimizer)
    for step in ck.steps(1000):
        ...
        ck.log(loss=loss)

The loop stops for the copy out of its tensors and for nothing else. Ranks meet at a step without a collective
(`runctl.agreement`); rank 0 alone saves, the others leave their random state to its writer.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from runctl.agreement import Appointment, Kind
from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.policy import RankPolicy
from runctl.errors import CheckpointCorrupt, CheckpointError, CheckpointUnloadable
from runctl.spec import Every
from runctl.training import randomness
from runctl.training.log import log as log_metrics
from runctl.training.meeting import Meeting
from runctl.training.saver import Saver
from runctl.training.writer import DATA, rank_name

_RESERVED = ("epoch", "step", "model_state_dict", "optimizer_state_dict", "loss", "config", "timestamp")


class Checkpointer:
    """What `attach` returns: the loop's steps, saves and stops.

    Attributes:
        step: completed steps.
        epoch: completed epochs.
        saver: rank 0's side of saving; None on other ranks.
    """

    def __init__(
        self, policy: RankPolicy, parts: Mapping[str, Any], loader: Any, config: Mapping[str, Any] | None
    ) -> None:
        self.step = 0
        self.epoch = 0
        self._policy = policy
        self._parts = parts
        self._loader = loader
        self._config = dict(config or {})
        self._loss: float | None = None
        self._metrics: dict[str, float] = {}
        self._rank = int(os.environ.get("RANK", "0"))
        self._world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self._meeting = Meeting(self._rank, self._world_size)
        if not policy.launched:
            self._meeting.stop_on_signals(policy.grace_s)
        self.saver = Saver(policy, self._meeting) if self._rank == 0 else None
        self._pending: list[Appointment] = []
        self._prepared = False
        self._stopping = False
        self._skip_batches = 0
        self._epoch_random: dict[str, Any] | None = None
        if policy.restore is not None:
            self._restore(Path(policy.restore))
        self._saved_step = self.step
        self._meeting.agreement.publish(self._meeting.local_rank, self.step)

    # --- the loop ---

    def steps(self, total: int) -> Iterator[int]:
        """Count the loop's steps from where the checkpoint left off to `total`.

        Yields:
            The number of completed steps: 0 for the first step of a new run.
        """
        while self.step < total:
            yield self.step
            self._completed_step()
        self._finish()

    def epochs(self, total: int) -> Iterator[int]:
        """Count epochs from where the checkpoint left off to `total`; iterate the data with `batches`.

        Yields:
            The number of completed epochs.
        """
        while self.epoch < total:
            yield self.epoch
            self.epoch += 1
            self._skip_batches = 0
            self._epoch_random = None
            if self._policy.every.unit == "epochs" and self.epoch % self._policy.every.count == 0:
                self.save()
        self._finish()

    def batches(self) -> Iterator[Any]:
        """The loader's batches of this epoch, one step each, from where the checkpoint left off.

        A loader with `state_dict` (torchdata's StatefulDataLoader) goes on by itself; otherwise the epoch's order
        is drawn again from the random state at its begin, and the batches that were done are skipped.

        Raises:
            CheckpointError: if no loader was attached.
        """
        if self._loader is None:
            raise CheckpointError("ck.batches() needs a loader: runctl.attach(loader=…)")
        here = randomness.capture()
        if self._skip_batches and self._epoch_random is not None:
            randomness.restore(self._epoch_random)
        else:
            self._epoch_random = here
        stateful = hasattr(self._loader, "state_dict")
        batches = iter(self._loader)
        if self._skip_batches and not stateful:
            for _ in range(self._skip_batches):
                next(batches)
            randomness.restore(here)
        done = self._skip_batches
        for batch in batches:
            yield batch
            done += 1
            self._skip_batches = done
            self._completed_step()

    def log(self, **metrics: Any) -> None:
        """Record metrics of the step being done; `loss` also goes into the next checkpoint.

        Args:
            **metrics: numbers or one-element tensors by name. Reading a tensor on a GPU waits for it.
        """
        values = {name: value.item() if hasattr(value, "item") else value for name, value in metrics.items()}
        self._loss = values.get("loss", self._loss)
        self._metrics.update(values)
        log_metrics(step=self.step + 1, **values)

    def save(self) -> None:
        """Save now. Call it on every rank, at the same step."""
        self._save()

    @property
    def should_stop(self) -> bool:
        """Whether a stop was asked for: a long evaluation may end early for it."""
        return self._stopping or self._meeting.stop_requested()

    # --- boundaries ---

    def _completed_step(self) -> None:
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
            self._save()
            if self._stopping:
                self._leave()
        elif self.saver is not None:
            if not self._prepared:
                # After the first step, for only then the optimizer has the state that it will have.
                self.saver.prepare(self.state())
                self._prepared = True
            self.saver.poll()
            by_clock = every.unit == "seconds" and time.monotonic() - self.saver.saved_at >= every.count
            if by_clock or self.saver.retry_due:
                self.saver.saved_at, self.saver.retry_due = time.monotonic(), False
                meeting.agreement.want(Kind.SAVE)

    def _save(self) -> None:
        """Leave this rank's own state, and on rank 0 take the snapshot; nothing if this step is saved already."""
        if self.step == self._saved_step:
            return
        self._meeting.leave_rank_state(self.step, self._rank_state())
        if self.saver is not None and self.saver.save(
            self.state(), self.step, self.epoch, self._metrics, wait=self._stopping
        ):
            self._saved_step = self.step

    def _finish(self) -> None:
        """The end of the training: its last state is saved, and the writer is waited for."""
        self._stopping = True
        self._save()
        self._wait_for_commit()

    def _leave(self) -> None:
        """A stop: the state is saved, so end this rank here, with success, for torchrun counts anything else."""
        self._wait_for_commit()
        self._meeting.say_stopped(self.step)
        raise SystemExit(0)

    def _wait_for_commit(self) -> None:
        if self.saver is not None:
            self.saver.finish()
        else:
            self._meeting.wait_for_commit(self.step, self._policy.grace_s)

    # --- state ---

    def state(self) -> dict[str, Any]:
        """What a checkpoint of this moment holds; its tensors are the live ones."""
        state: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.step,
            "loss": self._loss,
            "config": self._config,
            "timestamp": datetime.now(timezone.utc).isoformat(),
            "batches_done": self._skip_batches,
        }
        return state | {_key(name): part.state_dict() for name, part in self._parts.items()}

    def _rank_state(self) -> dict[str, Any]:
        state = {"random": randomness.capture(), "epoch_random": self._epoch_random}
        if self._loader is not None and hasattr(self._loader, "state_dict"):
            state["loader"] = self._loader.state_dict()
        return state

    def _restore(self, folder: Path) -> None:
        try:
            state = torch.load(folder / DATA, weights_only=True, map_location="cpu", mmap=True)
            for name, part in self._parts.items():
                part.load_state_dict(state[_key(name)])
            self.step, self.epoch = state["step"], state["epoch"]
            self._loss, self._skip_batches = state["loss"], state["batches_done"]
            self._restore_rank(folder)
        except Exception as error:
            raise CheckpointUnloadable(
                f"{folder} verifies but does not load: {type(error).__name__}: {error}"
            ) from error

    def _restore_rank(self, folder: Path) -> None:
        own, first = folder / rank_name(self._rank), folder / rank_name(0)
        if own.exists():
            saved = torch.load(own, weights_only=True)
            if "loader" in saved and hasattr(self._loader, "load_state_dict"):
                self._loader.load_state_dict(saved["loader"])
            self._epoch_random = saved["epoch_random"]
            randomness.restore(saved["random"])
        elif first.exists():
            randomness.derive(torch.load(first, weights_only=True)["random"], self._rank)


def attach(
    *,
    model: Any = None,
    optimizer: Any = None,
    scheduler: Any = None,
    scaler: Any = None,
    loader: Any = None,
    config: Mapping[str, Any] | None = None,
    folder: str | Path = "checkpoints",
    every_s: float = 600.0,
    every_steps: int | None = None,
    **others: Any,
) -> Checkpointer:
    """Restore what there is to restore, and checkpoint from now on.

    Args:
        model: the module; one wrapped by DDP or torch.compile is saved without its wrapper.
        optimizer, scheduler, scaler: as in any PyTorch training.
        loader: for its position in the data.
        config: plain values that belong to the training, kept in each checkpoint.
        folder, every_s, every_steps: where and how often, without a launcher; the launcher's word wins.
        **others: anything else with `state_dict` and `load_state_dict`, by name.

    Returns:
        The checkpointer; call it on every rank.

    Raises:
        CheckpointError: if a checkpoint is there and cannot be restored.
        TypeError: for something without `state_dict`.
    """
    given = {"model": _unwrapped(model), "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler, **others}
    parts = {name: part for name, part in given.items() if part is not None}
    for name, part in parts.items():
        if not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
            raise TypeError(f"runctl.attach({name}=…): a {type(part).__name__} has no state_dict and load_state_dict")
        if _key(name) in _RESERVED and name not in ("model", "optimizer"):
            raise TypeError(f"runctl.attach({name}=…): the name is taken; choose another")
    policy = RankPolicy.from_environment()
    if policy is None:
        every = Every("steps", every_steps) if every_steps else Every("seconds", every_s)
        policy = _plain_policy(Path(folder).absolute(), every)
    return Checkpointer(policy, parts, loader, config)


def _plain_policy(folder: Path, every: Every) -> RankPolicy:
    """Without a launcher each rank looks for itself; all see the same files and find the same checkpoint."""
    rank = int(os.environ.get("RANK", "0"))
    newest = Catalog(folder).newest(_say, set_aside=rank == 0)
    return RankPolicy(str(folder), "plain", every=every, restore=str(newest.path) if newest else None, launched=False)


def _say(error: CheckpointCorrupt) -> None:
    sys.stderr.write(f"runctl: {error}; going back to the one before\n")


def _unwrapped(model: Any) -> Any:
    """The module inside DDP's and torch.compile's wrappers, in whichever order."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, torch.nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def _key(name: str) -> str:
    return f"{name}_state_dict"
