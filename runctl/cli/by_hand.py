"""What `runctl aws` and `runctl runpod` have in common: hosts made by hand, and trainings on them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import typer

from runctl.cli import table
from runctl.cli.launching import quoted
from runctl.errors import ConfigError, RunctlError

if TYPE_CHECKING:
    from runctl.platforms.hosts import Host, Hosts
    from runctl.spec import Resources

ID = typer.Argument(..., metavar="ID", help="Of a host, as `create` printed it and `list` shows it.")
JSON = typer.Option(False, "--json", help="For programs.")
GPU = typer.Option(None, "--gpu", help="A GPU's name, such as L4 or 'RTX 4090'; by default the cheapest of 24 GB.")
GPUS = typer.Option(None, "--gpus", help="How many; 0 for none.", min=0)
MAX_TIME = typer.Option("4h", "--max-time", help="It ends itself after so long, whatever happens to everybody else.")
SPOT = typer.Option(False, "--spot", help="On spot, and on demand where there is none.")
NO_FALLBACK = typer.Option(False, "--no-fallback", help="With --spot: or not at all.")
TIMEOUT = typer.Option("10m", "--timeout", help="How long the command may take.")
COMMAND = typer.Argument(..., metavar="-- COMMAND…", help="One word is a line for its shell, several are words.")
SCRIPT = typer.Argument(..., metavar="SCRIPT", help="A Python file of this project.")
WORDS = typer.Argument(None, metavar="[-- ARGS…]", help="The script's own.")
DATA = typer.Option(None, "--data-s3", metavar="URL", help="Brought to ./data on the host before the training.")
OUTPUT = typer.Option(
    None, "--output-s3", metavar="URL", help="Where ./output goes after it, and ./checkpoints to URL/checkpoints."
)
DDP = typer.Option(False, "--ddp", help="Under torchrun, one process for each GPU.")
BACKGROUND = typer.Option(False, "--background", help="Return as soon as it is submitted; `monitor` follows it.")
SET = typer.Option(None, "--set", metavar="KEY=VALUE", help="As runctl-launch takes it: --set checkpoint.every=5m.")
NAME = typer.Option(None, "--name", help="Of the run: the same one goes on with it. By default the script's.")


def create(hosts: Hosts, resources: Resources, max_time: str, *, as_json: bool) -> None:
    """Rent a host; its id alone goes to standard output, so that `ID=$(…)` takes it."""
    from runctl.durations import parse_duration_s

    host = hosts.create(resources, parse_duration_s(max_time, "--max-time"))
    ends = time.strftime("%H:%M:%S", time.localtime(host.ends_at))
    typer.echo(
        f"runctl: it ends itself at {ends} (--max-time); runctl {host.platform} terminate {host.id} ends it before",
        err=True,
    )
    if as_json:
        table.show_json(host.to_json())
    else:
        typer.echo(host.id)


def market(*, spot: bool, no_fallback: bool) -> str:
    """`platform.market` of what was typed."""
    if no_fallback and not spot:
        raise ConfigError("--no-fallback goes with --spot")
    return ("spot" if no_fallback else "spot_then_on_demand") if spot else "on_demand"


def show(found: Sequence[Host], *, as_json: bool) -> None:
    """Print hosts as a table."""
    if as_json:
        table.show_json([one.to_json() for one in found])
        return
    if not found:
        typer.echo("no host of ours")
        return
    now = time.time()
    rows = [
        [one.id, one.machine, one.market.replace("_", " "), one.zone or one.region, table.usd(one.price_usd_per_hour),
         table.duration(now - one.launched_at),
         table.duration(max(0.0, one.ends_at - now)) if one.ends_at is not None else "",
         "by hand" if one.by_hand else one.run, one.owner]
        for one in found
    ]  # fmt: skip
    headings = ["ID", "TYPE", "MARKET", "WHERE", "$/H", "AGE", "LEFT", "RUN", "OWNER"]
    table.show_table(headings, rows, shrink=(7, 1, 8, 3), right=(4, 5, 6))
    known = [one.price_usd_per_hour for one in found if one.price_usd_per_hour is not None]
    unknown = len(found) - len(known)
    typer.echo(f"{sum(known):.2f} USD an hour together" + f", and {unknown} at an unknown price" * bool(unknown))


def terminate(hosts: Hosts, ids: Sequence[str], *, as_json: bool) -> None:
    """End hosts of ours, one after the other; one that cannot be ended keeps none of the others."""
    failed: RunctlError | None = None
    ended = []
    for one in ids:
        try:
            ended.append(hosts.terminate(one))
            if not as_json:
                typer.echo(f"{one} is ended")
        except RunctlError as error:
            typer.echo(f"runctl: {error}", err=True)
            failed = error
    if as_json:
        table.show_json([one.to_json() for one in ended])
    if failed is not None:
        raise typer.Exit(int(failed.exit_code))


def execute(hosts: Hosts, host_id: str, words: Sequence[str], timeout: str) -> None:
    """Run a command on a host; its output and its exit code are ours."""
    import shlex

    from runctl.durations import parse_duration_s

    command = words[0] if len(words) == 1 else shlex.join(words)
    done = hosts.run(host_id, command, parse_duration_s(timeout, "--timeout"))
    sys.stdout.write(done.stdout)
    sys.stdout.flush()
    sys.stderr.write(done.stderr)
    raise typer.Exit(done.exit_code)


def train(
    hosts: Hosts, host_id: str, script: str, words: Sequence[str], *, data: Optional[str], output: Optional[str],
    ddp: bool, background: bool, name: Optional[str], more: Sequence[str],
) -> None:  # fmt: skip
    """Launch a training on a host that is there: the same spec as everywhere, on this one host."""
    from runctl.launch import launch

    host = hosts.get(host_id)
    chosen = [f"+platform={host.platform}", f"platform.host={quoted(host.id)}"]
    if host.platform == "aws":
        chosen.append(f"platform.region={host.region}")
    chosen.append(f"run.name={quoted(name or Path(script).stem)}")
    if ddp:
        chosen.append("trainer=ddp")
    if data is not None:
        chosen.append(f"data.inputs=[{{from: {quoted(_folder(data))}, to: data}}]")
    if output is not None:
        to = _folder(output)
        copies = quoted(f"{to}/checkpoints")
        chosen.append(f"data.outputs=[{{from: output, to: {quoted(to)}}}, {{from: checkpoints, to: {copies}}}]")
    if background:
        chosen.append("detach=true")
    if words:
        raise typer.Exit(launch([*chosen, *more, "--", script, *words]))
    raise typer.Exit(launch([*chosen, *more, f"script={quoted(script)}"]))


def last_run(hosts: Hosts, host_id: str) -> str:
    """The run directory of the training that was on a host last, as this machine knows, or else the host.

    Raises:
        ConfigError: if there was none.
        RunctlError: if the host had to be asked, and could not be.
    """
    from runctl.platforms.hosts import noted

    known = noted(host_id).get("run_dir")
    if isinstance(known, str):
        return known
    host = hosts.get(host_id)
    found = hosts.run(host.id, _NEWEST, 60.0).stdout.strip()
    if not found:
        raise ConfigError(f"{host.id}: there was no training on it yet; runctl {host.platform} train starts one")
    return found


def _folder(url: str) -> str:
    return url.rstrip("/")


_NEWEST = (
    'cd "${RUNCTL_HOST_ROOT:-/var/lib/runctl}" 2> /dev/null || exit 0; '
    'newest=$(ls -td */a*/host.json 2> /dev/null | head -n 1); test -n "$newest" || exit 0; '
    'python3 -c \'import json, sys; print(json.load(open(sys.argv[1]))["order"]["run_dir"])\' "$newest"'
)
