"""Carrying one launch out: its run begun, or gone on with, and seen to its end."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from runctl import identity, terminal
from runctl.platforms.base import Platform
from runctl.rundir import RunDir, run_url
from runctl.spec import LaunchSpec, Plan, RunHandle
from runctl.storage import check_place
from runctl.supervisor import Supervisor

if TYPE_CHECKING:
    from runctl.config.schemas import LaunchConfig
    from runctl.hooks import Hooks


def carry_out(
    cfg: LaunchConfig, spec: LaunchSpec, platform: Platform, hooks: Hooks, config_yaml: str, *, key: str | None
) -> int:
    """Begin the run, or go on with the one that carries its name or id, and see it to its end.

    Args:
        cfg: the configuration, checked.
        spec: what it comes to.
        platform: where it is to run.
        hooks: the active plugins.
        config_yaml: the configuration as it was composed.
        key: under which its run is found again; None for one that its id alone tells.

    Returns:
        The exit code that the launch should have.

    Raises:
        LeaseHeld: if another launch carries this run out just now.
        RunctlError: if nothing could be started.
    """
    as_json = cfg.output.value == "json"
    platform.check_ready(spec)
    RunDir.check(spec.run.root)
    if spec.checkpoint.url is not None:
        check_place("checkpoint.url", spec.checkpoint.url)
    known = identity.known_run(spec.run.root, key) if key else None
    if known is not None:
        spec = identity.under_id(spec, known)
    rundir = RunDir(run_url(spec.run.root, spec.run.id))
    living = _living(platform, rundir)
    if living is None:
        rundir.check_lease()
    earlier = rundir.attempts()
    if living is None and rundir.exists() and cfg.checkpoint.resume != "never":
        accept = cfg.run.changed.value == "accept"
        spec = identity.going_on(spec, rundir, earlier, platform.kind, accept=accept)
        if identity.finished(earlier) and not spec.checkpoint.resume.isdigit():
            terminal.tell(f"{spec.run.id} has finished: {rundir.url}")
            terminal.tell("checkpoint.resume=never runs it again from step 0, another run.name begins a new run")
            if as_json:
                terminal.show_json(rundir.read_outcome() or {})
            return 0
        if identity.script_changed(spec, rundir):
            terminal.tell(f"{spec.program.script} has changed since this run was launched last")
    supervisor = Supervisor(spec, platform, hooks, rundir, terminal.tell, output=sys.stderr if as_json else sys.stdout)
    if living is not None:
        plan, handle = living
        outcome = supervisor.run(plan, found=handle)
    else:
        plan = supervisor.first_plan(1 + (earlier[-1].number if earlier else 0))
        if not platform.terms.rented:
            rundir.take_lease(os.getpid())  # the agent inherits it; until here nothing was written
        spec = platform.staged(spec)
        rundir.write_spec(spec)
        rundir.publish("config.yaml", config_yaml.encode())
        if key is not None and known is None:
            identity.remember(spec.run.root, key, spec.run.id)
        terminal.show_start(spec, plan)
        outcome = supervisor.run(plan, detach=cfg.detach)
    if outcome is None:
        terminal.show_left(spec, platform.kind, stays=getattr(cfg.platform, "host", None) is not None)
        if as_json:
            terminal.show_json({"run_id": spec.run.id, "run_dir": rundir.url, "state": "running"})
        return 0
    terminal.show_outcome(outcome, rundir)
    if as_json:
        terminal.show_json(outcome.to_json())
    return outcome.exit_code


def _living(platform: Platform, rundir: RunDir) -> tuple[Plan, RunHandle] | None:
    """An attempt that an earlier launch submitted and whose host lives: its plan, and where it is."""
    plan = rundir.last_submission() if platform.terms.rented else None
    if plan is None or plan.platform != platform.kind:
        return None
    record = rundir.read_attempt(plan.attempt)
    handle = None if record is not None and record.state.ended else platform.find(plan)
    return None if handle is None else (plan, handle)
