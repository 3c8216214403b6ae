"""Timing two commands in turn, A B A B …, so that a machine whose speed drifts still gives a fair ratio."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pairs:
    """Wall times of two commands, in seconds, pair by pair."""

    ours: list[float]
    peer: list[float]

    @property
    def ratio(self) -> float:
        """Median of the ratios, ours over the peer's."""
        return statistics.median(a / b for a, b in zip(self.ours, self.peer, strict=True))

    def row(self, name: str) -> str:
        """One line of a table: medians, the median ratio, and its spread."""
        ratios = [a / b for a, b in zip(self.ours, self.peer, strict=True)]
        return (
            f"{name:<24} {statistics.median(self.ours):8.3f} s {statistics.median(self.peer):8.3f} s "
            f"{self.ratio:7.3f}  ({min(ratios):.3f} to {max(ratios):.3f}, {len(ratios)} pairs)"
        )


def run_pairs(
    ours: Sequence[str], peer: Sequence[str], *, count: int, cwd: Path, env: Mapping[str, str] | None = None
) -> Pairs:
    """Run both commands `count` times in turn, after one round that does not count."""
    times: dict[bool, list[float]] = {True: [], False: []}
    for number in range(count + 1):
        # Each goes first in every other pair.
        for mine in (True, False) if number % 2 else (False, True):
            took = timed(ours if mine else peer, cwd, env)
            if number:
                times[mine].append(took)
    return Pairs(times[True], times[False])


def timed(command: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None) -> float:
    """Wall time of one run; its output is read and thrown away.

    Raises:
        subprocess.CalledProcessError: if the command fails.
    """
    before = time.perf_counter()
    subprocess.run(command, cwd=cwd, env=env, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return time.perf_counter() - before
