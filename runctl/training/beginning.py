"""How the ranks begin: from the checkpoint that the agent chose, or from what they find together.

They look for themselves without an agent, and where torchrun has restarted them in place: the agent chose before the
attempt began, and its ranks have saved since.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.catalog import Catalog, Found
from runctl.checkpoint.policy import ATTACH_URL, RankPolicy
from runctl.checkpoint.remote import RemoteCatalog
from runctl.checkpoint.restore import Restore
from runctl.errors import CheckpointCorrupt, CheckpointUnloadable, RunctlError
from runctl.storage import open_store
from runctl.training import plain
from runctl.training.meeting import Meeting

Load = Callable[[Path], None]


def begin(policy: RankPolicy, meeting: Meeting, load: Load) -> None:
    """Load what there is to begin from.

    Args:
        policy: with the checkpoint that the agent has chosen, or without an agent the folder to look in.
        meeting: where the ranks meet.
        load: puts the state of a checkpoint's folder in place, and raises whatever goes wrong.

    Raises:
        CheckpointUnloadable: if it does not load; where the ranks look, if there are checkpoints and none of them does.
        RunctlError: if what there is cannot be read.
    """
    if not policy.launched or meeting.restart:
        _begin_together(policy, meeting, load)
    elif policy.restore is not None:
        error = _try_twice(load, Path(policy.restore))
        if error is not None:
            meeting.say_unloadable(_describe(error))
            raise CheckpointUnloadable(f"{policy.restore} verifies but does not load: {_describe(error)}") from error


def _begin_together(policy: RankPolicy, meeting: Meeting, load: Load) -> None:
    """Rank 0 looks, all load, and what does not load on one of them is loaded on none."""
    if meeting.rank == 0:
        meeting.wait_for_former_writer()
        if not policy.launched:  # the agent has done so
            plain.sweep_checkpoints(Path(policy.folder))
    unloadable: dict[int, str] = {}
    for turn in itertools.count():
        told = meeting.exchange(f"begin-{turn}", _chosen(policy, unloadable) if meeting.rank == 0 else None)[0]
        if "error" in told:
            if policy.restore is not None:
                meeting.say_unloadable(told["error"])
            raise CheckpointUnloadable(told["error"])
        if told["path"] is None:
            return
        error = _try_twice(load, Path(told["path"]))
        errors = meeting.exchange(f"begun-{turn}", error and _describe(error))
        why = next((text for text in errors if text is not None), None)
        if why is None:
            if unloadable and meeting.rank == 0:
                _supersede(policy, unloadable)
            if policy.launched and meeting.rank == 0:
                _say(f"resuming from step {told['step']} ({told['path']})")
            return
        unloadable[told["step"]] = why
        if meeting.rank == 0:
            _say(f"{told['path']} verifies but does not load ({why}); going back to the one before")


def _chosen(policy: RankPolicy, unloadable: dict[int, str]) -> dict[str, Any]:
    """What all ranks are to load next, in the words that rank 0 tells them."""
    try:
        found = _find(policy, frozenset(unloadable))
    except CheckpointCorrupt as error:
        tried = "; ".join(f"step {step}: {why}" for step, why in unloadable.items())
        return {"error": f"no checkpoint in {policy.folder} loads ({tried})" if unloadable else str(error)}
    except RunctlError as error:
        return {"error": str(error)}
    return {"path": str(found.path), "step": found.manifest.step} if found else {"path": None}


def _find(policy: RankPolicy, skip: frozenset[int]) -> Found | None:
    local = Catalog(Path(policy.folder))
    if policy.launched:
        own = _of_this_attempt(policy, local)
        if not own:
            return None
        skip |= set(local.steps()) - own
    if policy.upload_to is None:
        return local.newest(lambda error: _say(f"{error}; going back to the one before"), skip=skip)
    remote = RemoteCatalog(open_store(policy.upload_to, ATTACH_URL))
    return Restore(local, remote, _say, threading.Event()).newest(skip)


def _of_this_attempt(policy: RankPolicy, local: Catalog) -> set[int]:
    """Steps of what an attempt's ranks began from, and have saved since.

    What else lies there the agent has passed over; and what a script wrote by itself is not ours to load.
    """
    own = set()
    for step in local.steps():
        with contextlib.suppress(CheckpointCorrupt):
            told = manifests.read(local.path(step))
            if str(local.path(step)) == policy.restore or (told.attempt == policy.attempt and told.watched is None):
                own.add(step)
    return own


def _supersede(policy: RankPolicy, unloadable: dict[int, str]) -> None:
    """What would not load stays for people, or the next start would go on from there again."""
    local = Catalog(Path(policy.folder))
    local.supersede(unloadable.keys() & set(local.steps()), policy.attempt)
    if policy.upload_to is not None:
        remote = RemoteCatalog(open_store(policy.upload_to, ATTACH_URL))
        remote.supersede(unloadable.keys() & set(remote.steps()))


def _try_twice(load: Load, folder: Path) -> Exception | None:
    """The error of the second try, for a first may be the disk's or the network's; None once it has loaded."""
    for last in (False, True):
        try:
            load(folder)
        except Exception as error:  # noqa: BLE001 (whatever a user's load_state_dict raises)
            if last:
                return error
        else:
            return None
    raise AssertionError("unreachable")


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _say(text: str) -> None:
    sys.stderr.write(f"runctl: {text}\n")
