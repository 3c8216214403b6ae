"""Which run a word on the command line means."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from runctl.errors import ConfigError, RunctlError

if TYPE_CHECKING:
    from runctl.registry import Entry, Registry
    from runctl.rundir import RunDir

#: How `RUN` is explained in every command's help.
RUN_HELP = "An id or the beginning of one, a name, `latest`, or the path or URL of a run directory."
_CANDIDATES = 10


def entry_of(word: str, registry: Registry | None = None) -> Entry:
    """What the registry knows of the run that is meant; a run that it does not know is looked for, and noted.

    Args:
        word: an id, the unique beginning of one, a name, `latest`, or where a run directory lies.
        registry: where to look; this user's if None.

    Raises:
        ConfigError: if there is no such run, or more than one.
        StorageError: if the place that was named cannot be read.
    """
    from runctl.registry import Registry
    from runctl.rundir import run_url

    registry = registry or Registry()
    if "/" in word:
        return _at(word, registry)
    if word == "latest":
        newest = registry.newest()
        if newest is None:
            raise ConfigError(f"latest: no run is known here yet{_reindex()}")
        return newest
    found = registry.named(word)
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{word} may mean {len(found)} runs:\n{_told(found)}\nName one of them by its id")
    for root in _roots(registry):
        entry = _looked_for(run_url(root, word), registry)
        if entry is not None:
            return entry
    known = [name for one in registry.entries(limit=1000) for name in (one.id, one.name)]
    near = difflib.get_close_matches(word, known, 1)
    hint = f"; did you mean {near[0]}?" if near else f"; runctl ps --all lists those that are known{_reindex()}"
    raise ConfigError(f"no run is called {word}{hint}")


def run_of(word: str) -> RunDir:
    """The run directory of the run that is meant; see `entry_of`."""
    from runctl.rundir import RunDir

    return RunDir(entry_of(word).url)


def complete(incomplete: str) -> list[tuple[str, str]]:
    """What a shell may complete a run by: ids, the newest first, with their names."""
    from runctl.registry import Registry

    try:
        known = Registry().entries(limit=200)
    except RunctlError:
        return []
    words = [(one.id, f"{one.state} {one.name}") for one in known]
    return [(word, about) for word, about in [*words, ("latest", "the newest")] if word.startswith(incomplete)]


def _at(place: str, registry: Registry) -> Entry:
    from runctl.rundir import RunDir

    url = RunDir(place.rstrip("/")).url
    entry = registry.at(url) or _looked_for(url, registry)
    if entry is None:
        raise ConfigError(f"{place} is no run directory: it has no spec.json")
    return entry


def _looked_for(url: str, registry: Registry) -> Entry | None:
    """A run that lies there, noted; None if none does."""
    from runctl import standing
    from runctl.rundir import RunDir

    rundir = RunDir(url)
    if not rundir.exists():
        return None
    entry = standing.look(rundir).entry()
    registry.note(entry)
    return entry


def _roots(registry: Registry) -> Iterator[str]:
    """Where runs may lie that this machine has not seen."""
    from runctl.platforms import registry as platforms

    yield from dict.fromkeys([*registry.roots(), "runs", platforms.load("aws").default_root()])


def _told(entries: list[Entry]) -> str:
    shown = entries[:_CANDIDATES]
    lines = [f"  {one.id:<40} {one.state:<12} {_day(one.created_at)}  {one.name}" for one in shown]
    more = len(entries) - len(shown)
    return "\n".join([*lines, *([f"  and {more} more"] if more else [])])


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _reindex() -> str:
    return "; runctl reindex ROOT finds those below a folder or a bucket, such as s3://bucket/runs"
