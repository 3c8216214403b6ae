"""Which run a launch belongs to: a name goes on with its run; another script or other arguments under it are refused.

<root>/.names/<name>.json     which run carries a name
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from dataclasses import replace
from typing import Any

from runctl.errors import ConfigError
from runctl.outcome import Attempt
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, Program, RunIdentity, RunState
from runctl.storage import open_store


def known_run(root: str, key: str) -> str | None:
    """Id of the run that carries a name below `root`, or None."""
    data = open_store(root).read(f".names/{key}.json")
    return None if data is None else str(json.loads(data)["run_id"])


def remember(root: str, key: str, run_id: str) -> None:
    """Have later launches under this name go on with this run."""
    open_store(root).write(f".names/{key}.json", json.dumps({"run_id": run_id}).encode())


def key_of(spec: LaunchSpec) -> str:
    """A name as part of a path."""
    # The name itself for people, the hash for names that differ only in what a path cannot hold.
    word = "".join(letter if letter.isalnum() else "-" for letter in spec.run.name)[:40]
    return f"{word}-{hashlib.sha256(spec.run.name.encode()).hexdigest()[:8]}"


def under_id(spec: LaunchSpec, run_id: str) -> LaunchSpec:
    """The same launch as a run that exists."""
    return replace(spec, run=RunIdentity(run_id, spec.run.name, spec.run.root))


def finished(attempts: list[Attempt]) -> bool:
    """Whether the run came to its end with success."""
    return bool(attempts) and attempts[-1].state is RunState.SUCCEEDED


def going_on(spec: LaunchSpec, rundir: RunDir, attempts: list[Attempt], platform: str, *, accept: bool) -> LaunchSpec:
    """The spec with which a run that exists goes on.

    On another platform than before the arguments stay those of the first attempt: its multipliers are not this one's.

    Args:
        spec: the launch as composed now.
        rundir: the run's directory.
        attempts: its attempts so far.
        platform: where it is to go on.
        accept: take another script and changed arguments (`run.changed=accept`).

    Raises:
        ConfigError: for either, with the difference and the ways on.
    """
    before = rundir.read_spec()
    moved = bool(attempts) and attempts[-1].platform != platform
    differing = _differences(before, spec, "base" if moved else "effective")
    if differing and not accept:
        raise ConfigError(
            f"run {spec.run.id} exists with other arguments: {'; '.join(differing)}. "
            "run.changed=accept goes on with the new ones; another run.name begins a new run"
        )
    return replace(spec, args=before.args) if moved and not differing else spec


def script_changed(spec: LaunchSpec, rundir: RunDir) -> bool:
    """Whether the text of the run's script is another one than when the run was launched last."""
    before, now = rundir.read_spec().program, spec.program
    return None not in (before.digest, now.digest) and before.digest != now.digest and _place(before) == _place(now)


def _differences(before: LaunchSpec, now: LaunchSpec, which: str) -> list[str]:
    """`lr: 0.1 → 0.01` for every argument that differs, and `script: a.py → b.py` for another program."""
    old: dict[str, Any] = {name: getattr(arg, which) for name, arg in before.args.items()}
    new: dict[str, Any] = {name: getattr(arg, which) for name, arg in now.args.items()}
    names = [*old, *(name for name in new if name not in old)]
    told = _other_program(before.program, now.program)
    told += [
        f"{name}: {old.get(name, 'not given')} → {new.get(name, 'not given')}"
        for name in names
        if (name in old, old.get(name)) != (name in new, new.get(name))
    ]
    for field in ("argv", "tail"):
        was, are = getattr(before.program, field), getattr(now.program, field)
        if was != are:
            told.append(f"words: {' '.join(was) or 'none'} → {' '.join(are) or 'none'}")
    return told


def _other_program(before: Program, now: Program) -> list[str]:
    """What differs if it is another one; a script that has the same text at another place is the same one, moved."""
    pairs = {"script": (_place(before), _place(now)), "module": (before.module, now.module)}
    if before.digest is not None and before.digest == now.digest:
        del pairs["script"]
    return [f"{key}: {was or 'not given'} → {are or 'not given'}" for key, (was, are) in pairs.items() if was != are]


def _place(program: Program) -> str | None:
    """Where the script lies in the project: the same from whichever folder it is launched."""
    return program.script and posixpath.normpath(posixpath.join(program.workdir, program.script))
