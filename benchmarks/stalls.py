"""How long the loop waits for a save, each way in a process of its own, measured beside a plain copy.

The copy is timed in the same process just before each save, so that a machine whose speed drifts still gives a fair
ratio.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from memory import Peak, tree_bytes
from states import Training, copying
from ways import BESIDE, WAYS

#: The saves that are asked for in a row, whether or not the one before is on disk.
PRESSED = 5
PRESSED_PACE_S = 0.5
#: Lightning queues every save with a copy of its own: more than that would not fit a small machine.
PRESSED_AT_MOST_GB = 1.0


class WayFailed(Exception):
    """A way's process ended before it had told its figures."""


@dataclass(frozen=True)
class Stalls:
    """What one way costs.

    Attributes:
        state_bytes: of the tensors of one checkpoint.
        first_s: the loop's wait for the first save.
        waits_s: its waits for the saves after that.
        limits_s: the plain copy before each of those.
        extra_bytes: peak memory of the process and its children beyond what the training had itself.
        deferred: how many of these saves were put off.
        pressed_s: waits for saves that come `PRESSED_PACE_S` apart.
        pressed_deferred: how many of those were put off.
        pressed_bytes: peak memory beyond the training's own meanwhile.
    """

    state_bytes: int
    first_s: float
    waits_s: list[float]
    limits_s: list[float]
    extra_bytes: int
    deferred: int
    pressed_s: list[float]
    pressed_deferred: int
    pressed_bytes: int

    @property
    def ratio(self) -> float:
        """Median of the waits over the copies beside them."""
        return statistics.median(wait / limit for wait, limit in zip(self.waits_s, self.limits_s, strict=True))


@dataclass(frozen=True)
class Case:
    """What is saved, and how often.

    Attributes:
        make: builds the training from `size_gb` and `device`, in the process that is measured.
        rounds: saves that are timed after the first.
    """

    make: Callable[[float, str], Training]
    size_gb: float
    device: str
    rounds: int


def measure(name: str, case: Case, env: Mapping[str, str]) -> Stalls:
    """One way's figures.

    Args:
        name: of `ways.WAYS`.
        env: variables for the process that is measured.

    Raises:
        WayFailed: if that process fails; it has said why on standard error.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    before = dict(os.environ)
    os.environ.update(env)
    try:
        child = context.Process(target=_measured, args=(theirs, name, case))
        child.start()
    finally:
        os.environ.clear()
        os.environ.update(before)
    theirs.close()
    assert child.pid is not None
    try:
        ours.recv()
        own = tree_bytes(child.pid)
        extra = _peak_until_told(ours, child.pid) - own
        ours.recv()  # the timed rounds are done
        pressed = _peak_until_told(ours, child.pid) - own
        told = ours.recv()
    except EOFError:
        child.join()
        raise WayFailed(f"failed: its process ended with code {child.exitcode}") from None
    child.join()
    return Stalls(**told, extra_bytes=extra, pressed_bytes=pressed)


def _peak_until_told(pipe: Connection, pid: int) -> int:
    peak = Peak(pid)
    pipe.send("watched")
    pipe.recv()
    return peak.stop()


def _measured(pipe: Connection, name: str, case: Case) -> None:
    torch.set_num_threads(1)
    training = case.make(case.size_gb, case.device)
    copy = copying(training)
    copy()
    pipe.send("the training's own memory is taken")
    pipe.recv()
    with tempfile.TemporaryDirectory() as folder, WAYS[name](training, Path(folder)) as way:

        def timed(what: Callable[[], None]) -> float:
            training.wait()
            began = time.perf_counter()
            what()
            training.wait()
            return time.perf_counter() - began

        first = timed(way.save)
        way.settle()
        pipe.send("the first save is done")
        waits, limits = [], []
        for _ in range(case.rounds):
            limits.append(timed(copy))
            waits.append(timed(way.save))
            way.settle()
        deferred = way.deferred()
        pipe.send("timed")
        pipe.recv()
        pressed: list[float] = []
        if name in BESIDE and case.size_gb <= PRESSED_AT_MOST_GB:
            for _ in range(PRESSED):
                pressed.append(timed(way.save))
                _compute(PRESSED_PACE_S)
            way.settle()
        pipe.send("pressed")
        told: dict[str, Any] = {
            "state_bytes": sum(tensor.numel() * tensor.itemsize for tensor in training.tensors()),
            "first_s": first,
            "waits_s": waits,
            "limits_s": limits,
            "deferred": deferred,
            "pressed_s": pressed,
            "pressed_deferred": way.deferred() - deferred,
        }
        pipe.send(told)


def _compute(seconds: float) -> None:
    left, right = torch.randn(256, 256), torch.randn(256, 256)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        left @ right
