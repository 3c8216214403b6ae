"""Carrying one launch out: its run begun, or gone on with, and seen to its end."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from typing import Any

from runctl import identity, terminal, warm
from runctl.composed import Composed, Composer, Manner, keep_warm_s
from runctl.holdings import check_resumed
from runctl.platforms import registry
from runctl.platforms.base import Berth, Platform
from runctl.rundir import RunDir, run_url
from runctl.spec import LaunchSpec, Plan, RunHandle
from runctl.storage import check_place
from runctl.supervisor import Supervisor, outcome_of


@dataclass(frozen=True)
class Carried:
    """What came of it.

    Attributes:
        run_id: of the run.
        exit_code: that the launch should have.
        outcome: in its public form; None for a run that was left to itself.
        url: of its run directory.
    """

    run_id: str
    exit_code: int
    outcome: dict[str, Any] | None
    url: str = ""

    def to_json(self) -> dict[str, Any]:
        """What `output=json` prints."""
        if self.outcome is None:
            return {"run_id": self.run_id, "run_dir": self.url, "state": "running"}
        return self.outcome


def carry_out_alone(launch: Composed, composer: Composer) -> Carried:
    """One launch, before whoever typed it; on a host that waits for it if there is one.

    Raises:
        RunctlError: as `carry_out`.
    """
    cfg, root = launch.cfg, launch.spec.run.root
    manner = Manner(output=sys.stderr if cfg.output.value == "json" else sys.stdout)
    keep_s = keep_warm_s(cfg)
    if not registry.load(cfg.platform.kind).has_berths or getattr(cfg.platform, "host", None) is not None:
        return carry_out(launch, composer.platform(cfg, manner), manner)
    berth = Berth(keep_s or 0.0, warm.Waiting(root, cfg.platform.kind, launch.spec.run.id))
    manner = replace(manner, berth=berth)
    try:
        return carry_out(launch, composer.platform(cfg, manner), manner)
    finally:
        warm.leave(root, berth, manner.tell)


def carry_out(launch: Composed, platform: Platform, manner: Manner) -> Carried:
    """Begin the run, or go on with the one that carries its name or id, and see it to its end.

    Args:
        launch: what is to run.
        platform: where.
        manner: how.

    Raises:
        LeaseHeld: if another launch carries this run out just now.
        RunctlError: if nothing could be started.
    """
    cfg, spec, tell = launch.cfg, launch.spec, manner.tell
    platform.check_ready(spec)
    RunDir.check(spec.run.root)
    if spec.checkpoint.url is not None:
        check_place("checkpoint.url", spec.checkpoint.url)
    spec, rundir, known = _identified(launch)
    living = _living(platform, rundir)
    if living is None:
        rundir.lease.check()
    earlier = rundir.attempts()
    if living is None and rundir.exists() and cfg.checkpoint.resume != "never":
        accept = cfg.run.changed.value == "accept"
        spec = identity.going_on(spec, rundir, earlier, platform.kind, accept=accept)
        if manner.is_done(earlier) and not spec.checkpoint.resume.isdigit():
            if identity.finished(earlier):
                tell(f"{spec.run.id} has finished: {rundir.url}")
                tell("checkpoint.resume=never runs it again from step 0, another run.name begins a new run")
            # Worked out anew: a launcher that left before its end has written none.
            before = outcome_of(spec, rundir, earlier)
            return Carried(spec.run.id, before.exit_code, before.to_json(), url=rundir.url)
        if identity.script_changed(spec, rundir):
            tell(f"{spec.program.script} has changed since this run was launched last")
    supervisor = Supervisor(
        spec, platform, launch.hooks, rundir, tell, output=manner.output, signals=manner.signals,
        attended=manner.attended,
    )  # fmt: skip
    if living is not None:
        plan, handle = living
        outcome = supervisor.run(plan, found=handle)
    else:
        check_resumed(spec, rundir)
        plan = supervisor.first_plan(1 + (earlier[-1].number if earlier else 0))
        if not platform.terms.rented:
            rundir.lease.take(os.getpid())  # the agent inherits it; until here nothing was written
        spec = platform.staged(spec)
        if platform.terms.rented:
            # Before the spec: a run for which nobody asks for a host has no launcher any more.
            rundir.write_submission(plan, None)
        rundir.write_spec(spec)
        rundir.publish("config.yaml", launch.yaml().encode())
        if launch.key is not None and not known:
            identity.remember(spec.run.root, launch.key, spec.run.id)
        terminal.show_start(spec, plan, tell)
        outcome = supervisor.run(plan, detach=cfg.detach)
    if outcome is None:
        terminal.show_left(spec, platform.kind, tell, stays=getattr(cfg.platform, "host", None) is not None)
        return Carried(spec.run.id, 0, None, url=rundir.url)
    terminal.show_outcome(outcome, rundir, tell)
    return Carried(spec.run.id, outcome.exit_code, outcome.to_json(), url=rundir.url)


def foreseen(launch: Composed, platform: Platform) -> tuple[LaunchSpec, int, bool]:
    """What a launch would carry out, for a plan of it: its spec, the number of its attempt, whether it has finished.

    Raises:
        ConfigError: for what the launch itself would refuse of a run that exists.
        StorageError: if the run directory cannot be read.
    """
    cfg, spec = launch.cfg, launch.spec
    if launch.key is None and cfg.run.id is None:  # a new run, of which nothing can lie anywhere
        check_resumed(spec, RunDir(run_url(spec.run.root, spec.run.id)))
        return spec, 1, False
    spec, rundir, _ = _identified(launch)
    earlier = rundir.attempts()
    done = False
    if rundir.exists() and cfg.checkpoint.resume != "never":
        spec = identity.going_on(spec, rundir, earlier, platform.kind, accept=cfg.run.changed.value == "accept")
        done = identity.finished(earlier) and not spec.checkpoint.resume.isdigit()
    if not done:
        check_resumed(spec, rundir)
    return spec, 1 + (earlier[-1].number if earlier else 0), done


def _identified(launch: Composed) -> tuple[LaunchSpec, RunDir, bool]:
    """The spec under the id of the run that carries its name, that run's directory, and whether there is such a run."""
    spec = launch.spec
    known = identity.known_run(spec.run.root, launch.key) if launch.key else None
    if known is not None:
        spec = identity.under_id(spec, known)
    return spec, RunDir(run_url(spec.run.root, spec.run.id)), known is not None


def _living(platform: Platform, rundir: RunDir) -> tuple[Plan, RunHandle] | None:
    """An attempt that an earlier launch submitted and whose host lives: its plan, and where it is."""
    plan = rundir.last_submission() if platform.terms.rented else None
    if plan is None or plan.platform != platform.kind:
        return None
    record = rundir.read_attempt(plan.attempt)
    handle = None if record is not None and record.state.ended else platform.find(plan)
    return None if handle is None else (plan, handle)
