"""A checkpoint that is asked for from elsewhere, through the run directory.

control/save.json       which save is asked for, and of which attempt
control/saved.json      what the agent has to say of it: the step that was saved, or why there is none yet
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from runctl.encoding import dumps
from runctl.rundir import RunDir

_ASKED, _ANSWER = "control/save.json", "control/saved.json"


@dataclass(frozen=True)
class SaveRequest:
    """A save that is asked for.

    Attributes:
        id: tells it from those before it.
        attempt: which attempt is asked.
    """

    id: str
    attempt: int


@dataclass(frozen=True)
class SaveAnswer:
    """What an agent says to a request.

    Attributes:
        id: the request's.
        step: of the checkpoint, once it has arrived where the run's checkpoints lie; None before.
        waiting: why the ranks could not be asked so far; empty once they have been.
    """

    id: str
    step: int | None = None
    waiting: str = ""


def ask(rundir: RunDir, attempt: int) -> SaveRequest:
    """Ask an attempt for a checkpoint; it looks every few seconds, and has its ranks save at their next step.

    Raises:
        StorageError: if that cannot be written.
    """
    request = SaveRequest(secrets.token_hex(6), attempt)
    rundir.store.write(_ASKED, dumps(request).encode())
    return request


def asked(rundir: RunDir, attempt: int) -> SaveRequest | None:
    """What an attempt was asked last, or None; what an earlier one was asked counts no more.

    Raises:
        StorageError: if that cannot be read.
    """
    request = rundir.read_as(SaveRequest, _ASKED)
    return request if request is not None and request.attempt == attempt else None


def answer(rundir: RunDir, said: SaveAnswer) -> None:
    """Say what became of a request, so far; it may be late, and must not end the attempt."""
    rundir.store.post(_ANSWER, dumps(said).encode())


def answered(rundir: RunDir, request: SaveRequest) -> SaveAnswer | None:
    """What the agent has said to a request; None if it has not heard of it.

    Raises:
        StorageError: if that cannot be read.
    """
    said = rundir.read_as(SaveAnswer, _ANSWER)
    return said if said is not None and said.id == request.id else None
