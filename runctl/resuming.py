"""`runctl resume`: a run gone on with from its run directory, also on a machine that has never seen its project."""

from __future__ import annotations

import os
import posixpath
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from runctl.errors import ConfigError
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, RunIdentity


def resume(rundir: RunDir, words: Sequence[str], *, project: Path | None = None) -> int:
    """Go on with a run: the launch again, with the spec and the platform's options of its run directory.

    Args:
        rundir: of the run.
        words: what is to be otherwise than before, as `limits.max_time=2h`; see `config.again.MAY_DIFFER`.
        project: where the project lies on this machine: the working directory of the launch. If None, what the run's
            first launch sent is fetched.

    Returns:
        The exit code that the launch should have.

    Raises:
        RunctlError: for whatever the user should know and mend.
    """
    from omegaconf import OmegaConf

    from runctl import terminal
    from runctl.carrying import carry_out
    from runctl.composed import Composed, Manner, platform_of
    from runctl.config import again, compose
    from runctl.config import words as choices
    from runctl.config.argv import parse
    from runctl.config.checker import Checker
    from runctl.hooks import Hooks
    from runctl.platforms import registry

    before = rundir.read_spec()
    kept = rundir.store.read("config.yaml")
    if kept is None:
        raise ConfigError(f"{rundir.url} has no config.yaml, so how it was launched is not known; launch it again")
    composed, changed = again.composed(kept.decode(), words)
    cfg = Checker(registry.options).checked(composed)
    cfg.script, cfg.module = before.program.script, before.program.module
    if "checkpoint" not in changed:
        cfg.checkpoint.resume = "auto"
    # How the one before was followed is no matter of this one's.
    cfg.detach = cfg.detach and "detach" in changed
    if "output" not in changed:
        cfg.output = choices.Output.text
    cfg.run.id, cfg.run.root = before.run.id, rundir.url.rsplit("/", 1)[0]
    top, workdir = _places(rundir, before, project)
    os.chdir(workdir)  # where the launch's user stood
    now = compose.to_spec(cfg, compose.Typed(parse([]), ()), (), workdir)
    spec = _going_on(before, now, changed, fetched=project is None)
    hooks = Hooks.load(workdir, cfg.plugins.disable)
    as_json = cfg.output.value == "json"
    manner = Manner(output=sys.stderr if as_json else sys.stdout)
    platform = platform_of(cfg, top, manner)
    yaml = OmegaConf.to_yaml(composed)
    launch = Composed(cfg, platform.completed(spec), hooks, lambda: yaml, None, ())
    carried = carry_out(launch, platform, manner)
    if as_json:
        terminal.show_json(carried.to_json())
    return carried.exit_code


def rejoin(rundir: RunDir) -> int | None:
    """Follow a run that goes on on a rented host, and bring what only lies there, as its launcher did.

    Returns:
        The exit code of its launch, or None if it does not go on.

    Raises:
        RunctlError: as `resume`.
    """
    from runctl.registry import Registry

    record = rundir.attempts()
    if rundir.last_submission() is None or (record and record[-1].state.ended):
        return None
    entry = Registry().at(rundir.url)
    known = Path(entry.project) if entry is not None and entry.project is not None else None
    return resume(rundir, [], project=known if known is not None and known.is_dir() else None)


def _going_on(before: LaunchSpec, now: LaunchSpec, changed: set[str], *, fetched: bool) -> LaunchSpec:
    """The spec of before, with what was typed now, and with the files of the project as they are now."""
    parts: dict[str, Any] = {
        "limits": now.limits, "resources": now.resources, "retry_on": now.retry_on, "logs": now.logs,
        "checkpoint": now.checkpoint,
    }  # fmt: skip
    spec = replace(before, **{name: value for name, value in parts.items() if name in changed})
    if "checkpoint" not in changed:
        # Where an earlier launch began is no matter any more: this one goes on from the newest.
        spec = replace(spec, checkpoint=replace(spec.checkpoint, resume="auto"))
    spec = replace(spec, run=RunIdentity(before.run.id, before.run.name, now.run.root))
    if fetched:
        return spec
    return replace(spec, program=replace(before.program, digest=now.program.digest), environment=now.environment)


def _places(rundir: RunDir, spec: LaunchSpec, project: Path | None) -> tuple[Path, Path]:
    """The project's root on this machine, and the working directory in it."""
    from runctl.config import compose

    if project is not None:
        return compose.project_root(project), project
    top = _fetched(rundir, spec)
    return top, Path(posixpath.normpath(top / spec.program.workdir))


def _fetched(rundir: RunDir, spec: LaunchSpec) -> Path:
    """The project as the run's first launch sent it, unpacked among this user's state.

    Raises:
        ConfigError: if it was never sent anywhere, or is not there any more.
    """
    import tempfile
    import threading

    from runctl import terminal
    from runctl.config.files import state_home
    from runctl.digests import sha256_of
    from runctl.hosts import keeper
    from runctl.storage import open_store

    sent = _sent(rundir)
    here = "go to the project, and runctl resume --here goes on with what lies there"
    if sent is None:
        raise ConfigError(f"the project of {spec.run.id} is not on this machine, and was not sent anywhere; {here}")
    target = state_home() / "projects" / str(sent["sha256"])
    if target.is_dir():
        return target
    store = open_store(rundir.url.rsplit("/", 1)[0])
    key, size = str(sent["key"]), int(sent["size_bytes"])
    folder, _, name = key.rpartition("/")
    if store.sizes(folder).get(name) != size:
        raise ConfigError(f"{store.url}/{key}, the project of {spec.run.id}, is not there any more; {here}")
    terminal.tell(f"fetching the project of {spec.run.id} from {store.url}/{key}")
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=target.parent) as aside:
        archive = Path(aside, "project.tar.gz")
        store.get_file(key, archive, size, threading.Event())
        if sha256_of(archive) != sent["sha256"]:
            raise ConfigError(f"{store.url}/{key} is not what was sent; {here}")
        keeper.unpack(archive, Path(aside, "project"))
        if not target.exists():
            shutil.move(Path(aside, "project"), target)
    return target


def _sent(rundir: RunDir) -> dict[str, Any] | None:
    """What the first attempt on a rented host was told of the project: `key`, `sha256`, `size_bytes`; or None."""
    import json

    numbers = sorted(
        int(name.removesuffix(".submit.json"))
        for name in rundir.store.names("attempts")
        if name.endswith(".submit.json") and name.removesuffix(".submit.json").isdigit()
    )
    for number in numbers:
        plan = json.loads(rundir.store.read(f"attempts/{number}.submit.json") or b"{}").get("plan", {})
        for request in plan.get("requests", ()):
            for file in (request.get("orders") or {}).get("files") or ():
                if file.get("name") == "project.tar.gz" and file.get("key"):
                    found: dict[str, Any] = file
                    return found
    return None
