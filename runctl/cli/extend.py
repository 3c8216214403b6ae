"""`runctl extend`: more time for a run that lives."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer

from runctl.cli import table
from runctl.cli.reference import RUN_HELP, complete, run_of
from runctl.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from runctl.rundir import RunDir
    from runctl.spec import LaunchSpec

#: How long its agent may take to hear of it, and to say so: it looks every 3 s, and tells every 5.
_HEARD_S = 40.0
_LOOK_S = 1.0


def extend(
    run: str = typer.Argument(..., help=RUN_HELP, metavar="RUN", autocompletion=complete),
    more: str = typer.Argument(..., help="How much longer, such as 12h.", metavar="TIME"),
    as_json: bool = typer.Option(False, "--json", help="For programs."),
) -> None:
    """Let a run that lives go on for longer: its limit of time, and the deadline at which its host ends itself.

    It holds for the attempt that runs now; one on another host has the time of the launch. limits.max_usd stays.
    """
    from runctl import extension, standing
    from runctl.durations import parse_duration_s

    more_s = parse_duration_s(more, "TIME")
    rundir = run_of(run)
    now, spec = standing.look(rundir), rundir.read_spec()
    launched_with_s = spec.limits.max_time_s
    if now.state != "running":
        raise ConfigError(f"{now.run_id} is {now.state}: only a run that is running can be given more time")
    if launched_with_s is None:
        raise ConfigError(f"{now.run_id} has no limit of time (limits.max_time): there is nothing to extend")
    # More than it has, by its own word: what was asked for and never heard of is not added to by asking again. Nor is
    # it taken back, for it may be heard of yet.
    beat, before = rundir.heartbeat() or {}, extension.asked(rundir, now.attempt)
    has_s = beat.get("max_time_s", launched_with_s) if beat.get("attempt") == now.attempt else launched_with_s
    max_time_s = max(has_s + more_s, 0.0 if before is None else before.max_time_s)
    deadline = _on_its_platform(rundir, spec, now.attempt, max_time_s - launched_with_s)
    extension.ask(rundir, now.attempt, max_time_s)
    answer = _heard(rundir, now.attempt, max_time_s)
    told = {
        "run_id": now.run_id, "attempt": now.attempt, "heard": answer is not None, "max_time_s": max_time_s,
        "ends_at": (answer or {}).get("ends_at"), "deadline": (answer or {}).get("deadline", deadline),
        "more_usd_at_most": _costs_at_most(rundir, now.attempt, now.price_usd_per_hour, max_time_s - has_s),
    }  # fmt: skip
    if as_json:
        table.show_json(told)
    else:
        _tell(told, spec)
    if answer is None:
        raise typer.Exit(int(ExitCode.FAILED))


def _on_its_platform(rundir: RunDir, spec: LaunchSpec, attempt: int, longer_s: float) -> float | None:
    """Have the host's platform agree; until when the host is to live, None for one's own machine.

    Raises:
        ConfigError: if that cannot be.
    """
    from pathlib import Path

    from runctl import extension
    from runctl.platforms import registry

    submitted = rundir.submission(attempt)
    if submitted is None or submitted[1] is None:
        return None
    plan, handle = submitted[0], submitted[1]
    as_rented = extension.deadline(plan, handle)
    if as_rented is None:
        return None
    if spec.environment.kind == "docker":
        raise ConfigError(
            f"{plan.run_id} trains in a container, from which its host's own shutdown cannot be put off; let it be "
            "stopped at its limit, then launch again with a longer limits.max_time: it goes on from its checkpoint"
        )
    told: list[str] = []
    platform = registry.load(plan.platform)(Path.cwd(), None, told.append)
    platform.extend(plan, handle, as_rented + longer_s)
    for line in told:
        typer.echo(f"runctl: {line}", err=True)
    return as_rented + longer_s


def _heard(rundir: RunDir, attempt: int, max_time_s: float) -> dict[str, Any] | None:
    """The heartbeat that tells of the new limit; None if none comes in time."""
    give_up = time.monotonic() + _HEARD_S
    while time.monotonic() < give_up:
        beat = rundir.heartbeat() or {}
        if beat.get("attempt") == attempt and beat.get("max_time_s", 0.0) >= max_time_s:
            return beat
        time.sleep(_LOOK_S)
    return None


def _costs_at_most(rundir: RunDir, attempt: int, price_usd_per_hour: float | None, more_s: float) -> float | None:
    """What the host costs in that time, with its disks, at the price of now; None where it is not known."""
    from runctl import bills
    from runctl.cost import cost_usd

    record = rundir.read_attempt(attempt)
    if record is not None and record.market == "own":
        return 0.0
    rates = bills.kept(rundir, attempt)
    if price_usd_per_hour is None or rates is None or rates.disk_usd_per_hour is None:
        return None
    return cost_usd(price_usd_per_hour + rates.disk_usd_per_hour, more_s)


def _tell(told: dict[str, Any], spec: LaunchSpec) -> None:
    if not told["heard"]:
        typer.echo(
            f"{told['run_id']} is asked to take longer, and has not said within {_HEARD_S:g} s that it does; "
            f"runctl logs {told['run_id']} may tell why"
        )
        return
    ends = ""
    if told["deadline"] is not None:
        ends = f"; its host ends itself at {table.moment(told['deadline'])}, whatever happens"
    typer.echo(f"{told['run_id']} may go on until {table.moment(told['ends_at'])}{ends}.")
    if told["more_usd_at_most"] != 0.0:
        most = table.usd(told["more_usd_at_most"])
        limit = f", and limits.max_usd={spec.limits.max_usd:g} holds" if spec.limits.max_usd is not None else ""
        typer.echo(f"That costs at most {most} USD more{limit}.")
