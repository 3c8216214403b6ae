"""How the ranks of one host agree on a step, without a collective and without touching the GPU (standard library).

A small file that agent and ranks map into their memory. Each rank publishes the steps it has completed. Whoever
wants something done by all of them at one step, a save or a stop, makes an *appointment*: raise the number of
appointments, look at the published steps, and set it for one step after the furthest. A rank that sees the raised
number at a step boundary waits there for the decision, which depends on no rank, so it cannot deadlock; then it goes
on to the appointed step.

The look comes a moment after the raise, so that a rank that missed the raise has published its step by then.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

#: Between raising the number of appointments and looking at the steps: far longer than a rank takes from
#: publishing its step to reading the number.
SETTLE_S = 0.02
_RING = 16
_WORD = 8
# Words of the file: whether a save is wanted | a stop | raised | decided | committed step | step in writing |
# writer's pid | durable step | microseconds that the loop waited for copies | ring of (kind, step) | steps.
# Two words for what is wanted: who asks for the one must not overwrite the other, whoever asks for that just now.
_SAVE_WANTED, _STOP_WANTED, _RAISED, _DECIDED, _COMMITTED, _WRITING, _WRITER, _DURABLE, _STALL = range(9)
_RING_AT = 9
_STEPS_AT = _RING_AT + 2 * _RING
_WAIT_S = 0.0005


class Kind(IntEnum):
    """What an appointment is for; a stop is a save as well."""

    SAVE = 1
    STOP = 2


@dataclass(frozen=True)
class Appointment:
    """Something that every rank does when it has completed `step` steps."""

    kind: Kind
    step: int


class Agreement:
    """The mapped file.

    Args:
        path: the file, made by `create`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        # Aligned 8-byte stores and loads through a cast memoryview are single machine instructions.
        self._words = memoryview(self._map).cast("q")
        self.ranks = len(self._words) - _STEPS_AT

    @classmethod
    def create(cls, path: Path, ranks: int) -> Agreement:
        """Make the file for so many ranks of this host; no rank has published a step yet."""
        words = [0] * _STEPS_AT + [-1] * ranks
        words[_COMMITTED] = words[_WRITING] = words[_DURABLE] = -1
        aside = path.with_name(f".tmp-{path.name}-{os.getpid()}")
        aside.write_bytes(struct.pack(f"={len(words)}q", *words))
        aside.replace(path)
        return cls(path)

    # --- ranks ---

    def publish(self, local_rank: int, step: int) -> None:
        """Say that a rank has completed `step` steps."""
        self._words[_STEPS_AT + local_rank] = step

    @property
    def raised(self) -> int:
        """How many appointments there have been."""
        return self._words[_RAISED]

    def read(self, seen: int, timeout_s: float) -> list[Appointment]:
        """The appointments after the first `seen`, waiting for those that are still being decided.

        Raises:
            TimeoutError: if whoever raised them does not decide in time: it was killed.
        """
        deadline = time.monotonic() + timeout_s
        raised = self.raised
        while self._words[_DECIDED] < raised:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no decision within {timeout_s:g} s on a step to meet at")
            time.sleep(_WAIT_S)
        return [self._at(number) for number in range(seen, raised)]

    def want(self, kind: Kind) -> None:
        """Ask whoever decides for an appointment."""
        self._words[_STOP_WANTED if kind is Kind.STOP else _SAVE_WANTED] = 1

    def announce_writing(self, step: int, writer_pid: int) -> None:
        """Say that the checkpoint of a step is being written, and by whom."""
        self._words[_WRITER] = writer_pid
        self._words[_WRITING] = step

    def writer_at_work(self) -> int | None:
        """Process id of a writer that has a checkpoint to finish, or None."""
        return self._words[_WRITER] if self._words[_WRITING] > self._words[_COMMITTED] else None

    @property
    def writing(self) -> int:
        """Step of the newest checkpoint that was handed to the writer, or -1."""
        return self._words[_WRITING]

    def announce_commit(self, step: int) -> None:
        """Say that the checkpoint of a step is committed."""
        self._words[_COMMITTED] = step

    @property
    def committed(self) -> int:
        """Step of the newest committed checkpoint, or -1."""
        return self._words[_COMMITTED]

    def announce_durable(self, step: int) -> None:
        """Say that the checkpoint of a step has arrived on object storage."""
        self._words[_DURABLE] = step

    @property
    def durable(self) -> int:
        """Step of the newest checkpoint that has arrived on object storage; -1 before the first, and without one."""
        return self._words[_DURABLE]

    def add_stall(self, seconds: float) -> None:
        """Say how long the loop waited for a copy (rank 0 alone)."""
        self._words[_STALL] += round(seconds * 1e6)

    @property
    def stall_s(self) -> float:
        """Seconds that the loop has waited for copies so far."""
        return self._words[_STALL] / 1e6

    @property
    def stop_wanted(self) -> bool:
        """Whether a stop was asked for and is not decided yet."""
        return self._words[_STOP_WANTED] == 1

    # --- whoever decides: the agent, or without one a thread of rank 0 ---

    def wanted(self) -> Kind | None:
        """What was asked for, and is not asked for any more; who asks again meanwhile gets the same appointment."""
        for word, kind in ((_STOP_WANTED, Kind.STOP), (_SAVE_WANTED, Kind.SAVE)):
            if self._words[word]:
                self._words[word] = 0
                if kind is Kind.STOP:
                    self._words[_SAVE_WANTED] = 0
                return kind
        return None

    def appoint(self, kind: Kind) -> Appointment:
        """Make an appointment for one step after the furthest rank."""
        number = self._words[_RAISED]
        self._words[_RAISED] = number + 1
        time.sleep(SETTLE_S)
        steps = self.steps()
        appointment = Appointment(kind, max(steps) + 1)
        at = _RING_AT + 2 * (number % _RING)
        self._words[at], self._words[at + 1] = kind, appointment.step
        self._words[_DECIDED] = number + 1
        return appointment

    def steps(self) -> list[int]:
        """Steps that each rank has completed; -1 for one that has not begun."""
        return list(self._words[_STEPS_AT:])

    def _at(self, number: int) -> Appointment:
        at = _RING_AT + 2 * (number % _RING)
        return Appointment(Kind(self._words[at]), self._words[at + 1])

    def close(self) -> None:
        self._words.release()
        self._map.close()
