"""The checkpoints of a run on a local path: list, find the newest that verifies, prune."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.manifest import Manifest
from runctl.errors import CheckpointCorrupt
from runctl.spec import Retention

#: Pruning never leaves fewer than this many checkpoints.
KEEP_AT_LEAST = 2
_BAD = "bad-"


def kept(steps: list[int], retention: Retention, metrics: Callable[[int], dict[str, float]]) -> set[int]:
    """The steps that a retention keeps, and never fewer than `KEEP_AT_LEAST` of the newest.

    Args:
        steps: of all finished checkpoints, ascending.
        retention: which stay.
        metrics: what the manifest of a step says of metrics.
    """
    keep = set(steps[-max(retention.keep_last, KEEP_AT_LEAST) :])
    if retention.keep_every:
        keep |= {step for step in steps if step % retention.keep_every == 0}
    if retention.keep_best:
        name, sign = retention.keep_best.removeprefix("-"), -1 if retention.keep_best.startswith("-") else 1
        values = {step: sign * said[name] for step in steps if name in (said := metrics(step))}
        # Nothing is less than NaN, which would stay the best for ever: a loss that overflows in the first steps.
        values = {step: value for step, value in values.items() if not math.isnan(value)}
        keep |= {min(values, key=lambda step: values[step])} if values else set()
    return keep


@dataclass(frozen=True)
class Found:
    """A checkpoint that verified."""

    path: Path
    manifest: Manifest


class Catalog:
    """The folder `checkpoints/` of one run.

    Args:
        folder: where the `step-N` folders lie; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints (those with a manifest), ascending."""
        if not self.folder.is_dir():
            return []
        found = ((manifests.step_of(path.name), path) for path in self.folder.iterdir())
        return sorted(step for step, path in found if step is not None and (path / manifests.NAME).is_file())

    def path(self, step: int) -> Path:
        return self.folder / manifests.folder_name(step)

    def verified(self, step: int) -> Manifest:
        """The manifest of one checkpoint, every byte of it checked.

        Raises:
            CheckpointCorrupt: if it does not verify, or there is none of that step.
        """
        if not self.path(step).is_dir():
            have = ", ".join(map(str, self.steps())) or "none"
            raise CheckpointCorrupt(f"{self.folder}: no checkpoint of step {step}; there are {have}")
        return manifests.verify(self.path(step))

    def newest(
        self,
        reject: Callable[[CheckpointCorrupt], None],
        *,
        skip: frozenset[int] = frozenset(),
        set_aside: bool = True,
    ) -> Found | None:
        """The newest checkpoint that verifies, or None if there is none at all.

        Args:
            reject: called for each one that does not verify.
            skip: steps not to consider: those whose load has failed.
            set_aside: rename those that do not verify, so that nobody looks at them again.

        Raises:
            CheckpointCorrupt: if there are checkpoints and not one of them verifies or may be used: going on
                from step 0 then would hide a loss.
        """
        steps = self.steps()
        for step in reversed(steps):
            if step in skip:
                continue
            try:
                return Found(self.path(step), manifests.verify(self.path(step)))
            except CheckpointCorrupt as error:
                reject(error)
                if set_aside:
                    self.set_aside(step)
        if steps or self.has_bad():
            raise CheckpointCorrupt(
                f"{self.folder}: there are checkpoints and none is usable; "
                "look at them, or begin anew with checkpoint.resume=never"
            )
        return None

    def prune(self, retention: Retention) -> list[int]:
        """Remove what the retention does not keep; returns the steps removed."""
        steps = self.steps()
        keep = kept(steps, retention, lambda step: manifests.read(self.path(step)).metrics)
        removed = [step for step in steps if step not in keep]
        for step in removed:
            self.remove(step)
        return removed

    def remove(self, step: int) -> None:
        """Remove a checkpoint."""
        # The name goes first, so that a reader never sees half a checkpoint under it.
        doomed = self.folder / f".tmp-pruned-{manifests.folder_name(step)}"
        shutil.rmtree(doomed, ignore_errors=True)  # left by one that was killed here
        self.path(step).rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def supersede(self, steps: Iterable[int], attempt: int) -> None:
        """Have checkpoints count no more: an attempt begins before them.

        They stay for people, under `superseded-by-aN/`. Otherwise the next attempt would go on from them.

        Args:
            steps: of checkpoints that are here.
            attempt: the attempt's number.
        """
        for step in steps:
            away = self.folder / f"superseded-by-a{attempt}"
            away.mkdir(exist_ok=True)
            name = manifests.folder_name(step)
            taken = (away / name).exists()
            self.path(step).rename(away / (f"{name}-{time.time_ns()}" if taken else name))

    def sweep(self) -> None:
        """Remove what writers that were killed left behind."""
        if self.folder.is_dir():
            for path in self.folder.glob(".tmp-*"):
                shutil.rmtree(path, ignore_errors=True)

    def has_bad(self) -> bool:
        """Whether there are checkpoints that were set aside."""
        return self.folder.is_dir() and any(self.folder.glob(f"{_BAD}*"))

    def set_aside(self, step: int) -> None:
        """Rename a checkpoint that is not usable, so that nobody looks at it again."""
        bad = self.folder / f"{_BAD}{manifests.folder_name(step)}"
        shutil.rmtree(bad, ignore_errors=True)
        self.path(step).rename(bad)
