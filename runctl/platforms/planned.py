"""A rented host as far as it can be planned without looking: command and environment, no offers, no prices."""

from __future__ import annotations

from pathlib import Path

from runctl import command, hosts
from runctl.command import HostFacts
from runctl.hostdir import HostDir
from runctl.rundir import run_url
from runctl.spec import LaunchSpec, Plan, Quote

#: Where everything of a run lies on a rented host; its agent is root.
hosts.ROOT = "/var/lib/runctl"


def planned(spec: LaunchSpec, quote: Quote, attempt: int, kind: str, run_dir_there: str | None = None) -> Plan:
    """Command and environment of the ranks on a rented host, as far as they are known before there is one.

    Args:
        spec: what is to run.
        quote: what was looked up.
        attempt: its number.
        kind: the platform's.
        run_dir_there: the run directory's path on the host, if it keeps one of its own.
    """
    home = f"{hosts.ROOT}/{spec.run.id}/a{attempt}"
    nproc = spec.trainer.nproc_per_node
    known = nproc if isinstance(nproc, int) else None
    run_dir = run_url(spec.run.root, spec.run.id)
    there = run_dir_there or run_dir
    scratch = HostDir.for_attempt(spec.run.id, attempt, there, Path(hosts.ROOT, "tmp", "runctl-0"))
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
