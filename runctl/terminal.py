"""What a launch shows its user: lines, the plan, the table of arguments, the outcome."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from runctl.encoding import to_data
from runctl.hooks import PluginInfo
from runctl.outcome import Attempt, Outcome
from runctl.rundir import RunDir, log_name
from runctl.scaling import Argument
from runctl.spec import SCHEMA, LaunchSpec, Offer, Plan, RunState

T = TypeVar("T")

_TAIL_LINES = 15


def tell(line: str) -> None:
    """One line of ours, on standard error, so that standard output is the script's own."""
    # The agent may have drawn a bar on the rest of the line.
    lead = "\x1b[K" if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb" else ""
    with contextlib.suppress(OSError):  # a terminal that was closed shows nothing, and ends nothing
        sys.stderr.write(f"{lead}runctl: {line}\n")
        sys.stderr.flush()


def show_json(data: Mapping[str, Any]) -> None:
    """One JSON object on the last line of standard output."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def plan_json(plan: Plan, args: Mapping[str, Argument]) -> dict[str, Any]:
    """The versioned form of a plan."""
    data = to_data(plan)
    keys = (
        "argv",
        "env",
        "platform",
        "nproc_per_node",
        "nnodes",
        "offers",
        "requests",
        "estimate_usd_per_hour",
        "estimate_usd",
        "notes",
    )
    shown = ("base", "multiplier", "effective", "source")
    return {
        "schema": SCHEMA,
        "plan": {key: data[key] for key in keys},
        "args": {name: {key: to_data(arg)[key] for key in shown} for name, arg in args.items()},
    }


def show_plan(plan: Plan) -> None:
    """The plan for people."""
    price, total = plan.estimate_usd_per_hour, plan.estimate_usd
    ranks = "as many as GPUs" if plan.nproc_per_node is None else str(plan.nproc_per_node)
    at_most = "" if total is None else f", at most {total:.2f} USD for an attempt that takes all its time"
    rows = [
        ("platform", plan.platform),
        ("host", plan.host or "not known before it is rented"),
        ("processes", f"{ranks} on {plan.nnodes} host"),
        ("price", "not known" if price is None else f"{price:.2f} USD an hour{at_most}"),
        *(("offers" if first else "", _offer(offer)) for first, offer in _with_first(_shown(plan))),
        ("run directory", plan.run_dir),
        ("working directory", plan.workdir),
        ("command", shlex.join(plan.argv)),
        *(("environment" if first else "", f"{key}={shlex.quote(value)}")
          for first, (key, value) in _with_first(list(plan.env.items()))),
        *(("note" if first else "", note) for first, note in _with_first(plan.notes)),
    ]  # fmt: skip
    sys.stdout.write("".join(f"{name:<18} {value}\n" for name, value in rows))
    sys.stdout.write("Nothing was started: dry_run=true.\n")


def _shown(plan: Plan) -> list[Offer]:
    """The offers of what is rented; one's own machine is none."""
    return [offer for offer in plan.offers if offer.market != "own"]


def _offer(offer: Offer) -> str:
    price = "price unknown" if offer.price_usd_per_hour is None else f"{offer.price_usd_per_hour:.4f} USD an hour"
    return f"{offer.machine:<14} {offer.market.replace('_', ' '):<10} {offer.zone or offer.region or '':<12} {price}"


def show_arguments(args: Mapping[str, Argument]) -> None:
    """The table of `explain=true`: argument, base, multiplier, effective, where each came from."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    if not args:
        sys.stdout.write("No arguments are configured (args.KEY=VALUE, or args: in conf/runctl.yaml).\n")
        return
    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in ("argument", "base", "multiplier", "effective", "source"):
        table.add_column(heading, overflow="fold")
    for name, arg in args.items():
        factor = f"× {arg.multiplier:g}" if arg.multiplier is not None else "–"
        source = f"{arg.source}; not scaled: {arg.note}" if arg.note else arg.source
        table.add_row(name, str(arg.base), factor, str(arg.effective), source)
    Console(file=sys.stdout).print(table)


def show_plugins(plugins: list[PluginInfo], *, as_json: bool) -> None:
    """What `plugins.list=true` shows."""
    if as_json:
        show_json({"schema": SCHEMA, "plugins": [to_data(plugin) for plugin in plugins]})
        return
    width = max((len(plugin.name) for plugin in plugins), default=0)
    place = max((len(plugin.source) for plugin in plugins), default=0)
    for plugin in plugins:
        hooks = ", ".join(plugin.hooks) or "no hooks"
        sys.stdout.write(f"{plugin.name:<{width}}  {plugin.source:<{place}}  {hooks}\n")


def show_start(spec: LaunchSpec, plan: Plan, tell: Callable[[str], None] = tell) -> None:
    """What begins, where, and where it leaves what."""
    count = plan.nproc_per_node or 1
    where = plan.run_dir if "://" in plan.run_dir else os.path.relpath(plan.run_dir)
    attempt = f" · attempt {plan.attempt}" if plan.attempt > 1 else ""
    tell(f"{spec.run.id} · {count} process{'es' if count > 1 else ''} on {plan.platform}{attempt} · {where}")


_ENDS = "; it ends itself, and its host, when it is done"


def show_left(spec: LaunchSpec, platform: str, tell: Callable[[str], None] = tell, *, stays: bool = False) -> None:
    """That a run goes on without its launcher, and the way back to it.

    Args:
        spec: of the run.
        platform: its kind.
        tell: takes lines for the user.
        stays: whether its host does, afterwards.
    """
    run_id = spec.run.id
    rented = platform != "local"
    ends = "" if not rented else "; it ends itself when it is done" if stays else _ENDS
    tell(f"{run_id} goes on without this launcher{ends}")
    tell(f"runctl logs -f {run_id} follows it, runctl stop {run_id} stops it")
    if rented:
        tell(f"the same launch with run.id={run_id} follows it again, and rents another host if this one is lost")


def show_outcome(outcome: Outcome, rundir: RunDir, tell: Callable[[str], None] = tell) -> None:
    """How the run ended; a failing rank's traceback last and once.

    Args:
        outcome: of the launch.
        rundir: of its run.
        tell: takes lines, and texts of several.
    """
    attempt = outcome.attempts[-1]
    took = duration((attempt.ended_at or attempt.started_at) - attempt.started_at)
    if outcome.state is RunState.FAILED:
        for text in _failure(attempt, rundir):
            tell(text)
        tell(f"failed with exit code {outcome.exit_code} after {took} · {outcome.run_dir}")
    else:
        tell(_end(outcome, took))
    if outcome.checkpoints and outcome.state is not RunState.SUCCEEDED:
        tell(f"{outcome.checkpoints[-1]} is saved; the same launch with run.id={outcome.run_id} goes on from there")


def _end(outcome: Outcome, took: str) -> str:
    parts = [f"{outcome.reason} after {took}"]
    if outcome.step is not None:
        parts.append(f"step {outcome.step}")
    parts += [f"{name}={short(value)}" for name, value in outcome.metrics.items()]
    return " · ".join([*parts, outcome.run_dir])


def _failure(attempt: Attempt, rundir: RunDir) -> list[str]:
    """What is to be said of a failure: in each text the first line is ours, the others are the training's."""
    failure = attempt.failure
    if failure is None:
        return [attempt.end_reason]
    who = "torchrun" if failure.rank is None else f"rank {failure.rank}"
    if failure.traceback is not None:
        return [f"{who} on {failure.host} failed:\n" + failure.traceback.rstrip("\n")]
    source = "torchrun" if failure.rank is None else f"r{failure.rank}"
    tail = b"".join(rundir.read_log(attempt.number, 0, source)).decode(errors="replace").splitlines()[-_TAIL_LINES:]
    shown = [f"the end of {log_name(attempt.number, 0, source)}:" + "".join(f"\n    {line}" for line in tail)]
    return [*(shown if tail else []), f"{who} on {failure.host} failed: {failure.message}"]


def _with_first(items: Sequence[T]) -> list[tuple[bool, T]]:
    return [(number == 0, item) for number, item in enumerate(items)]


def short(value: object) -> str:
    """A value in at most six digits, if it is a fraction."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
