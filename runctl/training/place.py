"""This process's place among the ranks of its launch (standard library, for every rank imports it at its start)."""

from __future__ import annotations

import os
from typing import NamedTuple


class Place(NamedTuple):
    """Which of how many ranks a process is, and after how many restarts in place."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    restart: int = 0


class _Alone:
    """Who is the only rank of its launch, by process id: what it starts may be ranks of a torchrun of its own."""

    pid: int | None = None


def say_alone() -> None:
    """This process is its launch's only rank: RANK and its like, which the script still sees, tell of another one."""
    _Alone.pid = os.getpid()


def here() -> Place:
    """As torchrun tells it by the environment; a process without it is the only one."""
    if _Alone.pid == os.getpid():
        return Place()
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT")
    told = (os.environ.get(name) for name in names)
    return Place(*(int(text or default) for text, default in zip(told, Place(), strict=True)))
