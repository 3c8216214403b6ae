"""A rented host as far as it can be planned without looking: command and environment, no offers, no prices."""

from __future__ import annotations

from pathlib import Path

from runctl import command
from runctl.command import HostFacts
from runctl.errors import NotBuiltYet
from runctl.hostdir import HostDir
from runctl.platforms.base import Platform
from runctl.rundir import run_url
from runctl.spec import LaunchSpec, Plan, Quote, RunHandle, RunState

#: Where everything of a run lies on a rented host; its agent is root.
_HOST_ROOT = "/var/lib/runctl"


def planned(spec: LaunchSpec, quote: Quote, attempt: int, kind: str, run_dir_there: str | None = None) -> Plan:
    """Command and environment of the ranks on a rented host, as far as they are known before there is one.

    Args:
        spec: what is to run.
        quote: what was looked up.
        attempt: its number.
        kind: the platform's.
        run_dir_there: the run directory's path on the host, if it keeps one of its own.
    """
    home = f"{_HOST_ROOT}/{spec.run.id}/a{attempt}"
    nproc = spec.trainer.nproc_per_node
    known = nproc if isinstance(nproc, int) else None
    run_dir = run_url(spec.run.root, spec.run.id)
    there = run_dir_there or run_dir
    scratch = HostDir.for_attempt(spec.run.id, attempt, there, Path(_HOST_ROOT, "tmp", "runctl-0"))
    facts = HostFacts("python3", f"{home}/runctl", f"{home}/project", str(scratch.path), known or 1, 1, True)
    argv = [
        # How many ranks there will be, only the host can tell.
        word if known is not None else word.replace(f"--nproc-per-node={facts.nproc}", f"--nproc-per-node={nproc}")
        for word in command.rank_argv(spec, facts)
    ]
    return Plan(
        run_id=spec.run.id,
        attempt=attempt,
        platform=kind,
        argv=tuple(argv),
        env=command.rank_env(spec, facts, there, attempt),
        nproc_per_node=known,
        nnodes=spec.trainer.nnodes,
        workdir=command.workdir(spec, facts),
        run_dir=run_dir,
        offers=quote.offers,
    )


class PlannedPlatform(Platform):
    """Plans, and refuses to submit."""

    def _check_ready(self, spec: LaunchSpec) -> None:
        raise self._not_yet()

    def _quote(self, spec: LaunchSpec) -> Quote:
        return Quote()

    def _plan(self, spec: LaunchSpec, quote: Quote, attempt: int) -> Plan:
        return planned(spec, quote, attempt, self.kind)

    def _submit(self, plan: Plan) -> RunHandle:
        raise self._not_yet()

    def _wait(self, handle: RunHandle, timeout_s: float) -> RunState:
        raise self._not_yet()

    def _cancel(self, handle: RunHandle, reason: str, now: bool) -> None:
        raise self._not_yet()

    def _clean_up(self, handle: RunHandle, keep_s: float) -> None:
        raise self._not_yet()

    def _not_yet(self) -> NotBuiltYet:
        return NotBuiltYet(
            f"platform={self.kind} cannot launch in this version; dry_run=true and explain=true show what it would do"
        )
