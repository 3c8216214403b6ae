"""Where the jobs of a sweep write besides their run directories: no two in the same place."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator

from runctl.composed import Composed
from runctl.errors import ConfigError


class PlaceTaken(ConfigError):
    """Two jobs would write in the same place."""


class Places:
    """What is written by whom.

    Args:
        rented: whether each job has a disk of its own; on this machine all of them stand in the same folder.
        at_once: whether several run at the same time.
        one_by_one: whether the user said that they do not.
    """

    def __init__(self, *, rented: bool, at_once: bool, one_by_one: bool) -> None:
        self._share_a_folder = at_once and not rented
        # Each finds in the folder what the one before it left there, and has it brought away with its own.
        self._may_add_up = one_by_one and not rented
        self._taken: dict[tuple[str, str], str] = {}

    def take(self, launch: Composed) -> None:
        """Note where a job writes.

        Raises:
            PlaceTaken: if another one writes there; it says how to give each a place of its own.
        """
        run_id = launch.spec.run.id
        for key, place, why in self._written(launch):
            if self._taken.setdefault((key, _same(place)), run_id) != run_id:
                raise PlaceTaken(why)

    def _written(self, launch: Composed) -> Iterator[tuple[str, str, str]]:
        """By what, where, and what to say if another one does."""
        spec, own = launch.spec, _name(launch.swept)
        watch = spec.checkpoint.watch
        if watch is not None and self._share_a_folder:
            words = [f"args.out=out-{own}", f"checkpoint.watch=out-{own}/*.pt"]
            yield "watch", watch, _same_files(f"checkpoint.watch={watch}", "the same files", words)
        for one in spec.data.outputs:
            source, target = one.source.rstrip("/"), one.target.rstrip("/")
            if self._share_a_folder:
                words = [f"args.out={source}-{own}", f'data.outputs=[{{from: "{source}-{own}", to: "{target}-{own}"}}]']
                yield "from", source, _same_files("data.outputs", f"the same {source}", words)
            if not self._may_add_up:
                words = [f'data.outputs=[{{from: {source}, to: "{target}-{own}"}}]']
                yield (
                    "to",
                    target,
                    (
                        f"data.outputs: every job would bring its {source} to {target}, over that of the others; give "
                        f"each its own, as in {_typed(words)}"
                    ),
                )


def _same_files(what: str, which: str, words: Iterable[str]) -> str:
    return (
        f"{what}: jobs that run at once would write {which}; give each its own, as in {_typed(words)}, or "
        "sweep.max_parallel=1"
    )


def _same(place: str) -> str:
    return place.rstrip("/") if "://" in place else os.path.normpath(place)


def _name(swept: Iterable[str]) -> str:
    """What tells a job from the others, as Hydra fills it in."""
    keys = [word.lstrip("+").partition("=")[0] for word in swept]
    # A group has no value of its own, but a choice.
    return "-".join(f"${{{key if '.' in key else f'hydra:runtime.choices.{key}'}}}" for key in keys) or "${args.lr}"


def _typed(words: Iterable[str]) -> str:
    return " ".join(map(shlex.quote, words))
