"""`runctl cleanup`: what costs money, or lies about, without a run that lives; shown, asked about, and ended."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Optional

import typer

from runctl.cli import table
from runctl.errors import ConfigError, ExitCode, RunctlError

if TYPE_CHECKING:
    from runctl.leftovers import Holder, Judged, Leftovers

_HEADINGS = ("WHAT", "ID", "WHERE", "RUN", "AGE", "USD/H", "WHY")


def cleanup(
    dry_run: bool = typer.Option(False, "--dry-run", help="Only show what is left over; end nothing."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Ask no question."),
    platform: Optional[list[str]] = typer.Option(None, "--platform", help="Only there; several times for several."),
    region: Optional[list[str]] = typer.Option(
        None, "--region", help="Of AWS: only there; without it, everywhere.", metavar="REGION"
    ),
    as_json: bool = typer.Option(False, "--json", help="For programs."),
) -> None:
    """End what runs without a run that lives: hosts, disks, secrets on their way, uploads that were never finished.

    Looked for by our tags and names in every account whose credentials are here. What belongs to a run that lives, or
    to one that is not known here, stays; and what carries no mark of ours is not even looked at.
    """
    if as_json and not (dry_run or yes):
        raise ConfigError("--json asks no question: add --dry-run, or -y to end what is left over")
    leftovers, missing = around(platform or None, region or None)
    judged = leftovers.look()
    missing |= leftovers.unseen
    left = [one for one in judged if one.left]
    results: list[dict[str, Any]] = []
    if not as_json:
        _show(judged, missing)
    if left and not dry_run:
        if not yes:
            if not sys.stdin.isatty():
                raise ConfigError("nobody is there to be asked: add -y to end what is left over, or --dry-run")
            if not typer.confirm(f"End {len(left)} of them?", default=False):
                raise typer.Exit(int(ExitCode.FAILED))
        results = [_end(leftovers, one, as_json=as_json) for one in left]
    if as_json:
        from runctl.encoding import to_data

        kept = [to_data(one) for one in judged if not one.left]
        table.show_json({"left": [to_data(one) for one in left], "kept": kept, "not_looked_at": missing,
                         "ended": results})  # fmt: skip
    if leftovers.failed or any(one["error"] for one in results):
        raise typer.Exit(int(ExitCode.FAILED))


def around(kinds: list[str] | None, regions: list[str] | None = None) -> tuple[Leftovers, dict[str, str]]:
    """What is left over on the platforms that can be asked.

    Args:
        kinds: of platforms; None for all.
        regions: of AWS; None for all.

    Returns:
        What looks for it, and of the platforms that cannot be asked, what is missing.

    Raises:
        ConfigError: for a platform that does not exist.
    """
    from pathlib import Path

    from runctl.leftovers import Leftovers
    from runctl.platforms import registry
    from runctl.registry import Registry

    platforms: dict[str, Holder] = {}
    missing: dict[str, str] = {}
    roots = ["runs"]
    for kind in kinds or [one for one in registry.kinds() if one != "local"]:
        loaded = registry.load(kind)
        config = loaded.options(kind=kind)
        if kind == "aws" and regions:
            config.region = regions  # type: ignore[attr-defined]
        try:
            roots.append(loaded.default_root())
            platforms[kind] = loaded(Path.cwd(), config, _tell)
        except RunctlError as error:
            missing[kind] = str(error)
    return Leftovers(platforms, Registry(), roots), missing


def _show(judged: list[Judged], missing: dict[str, str]) -> None:
    now = time.time()
    left = [one for one in judged if one.left]
    rows = [_row(one, now) for one in left]
    if rows:
        table.show_table(_HEADINGS, rows, shrink=(1, 6, 3), right=(4, 5))
        usd = [one.holding.price_usd_per_hour for one in left]
        known = sum(one for one in usd if one is not None)
        typer.echo(f"\nTogether {table.usd(known)} USD an hour{' and what is not known' * (None in usd)}.")
    else:
        typer.echo("Nothing is left over.")
    kept = [one for one in judged if not one.left]
    for why, several in _by_why(kept).items():
        typer.echo(f"kept: {several} ({why})")
    for kind, why in missing.items():
        typer.echo(f"not looked at: {kind}: {why}")


def _by_why(kept: list[Judged]) -> dict[str, str]:
    """What stays, told by the reason."""
    found: dict[str, list[str]] = {}
    for one in kept:
        found.setdefault(one.why, []).append(f"{one.holding.kind} {one.holding.id}")
    return {why: ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
            for why, ids in found.items()}  # fmt: skip


def _row(one: Judged, now: float) -> list[str]:
    what = one.holding
    age = "" if what.created_at is None else table.duration(now - what.created_at)
    return [what.kind, what.id, what.region or what.platform, what.run_id, age,
            table.usd(what.price_usd_per_hour), one.why]  # fmt: skip


def _end(leftovers: Leftovers, one: Judged, *, as_json: bool) -> dict[str, Any]:
    error = ""
    judged = one
    try:
        judged = leftovers.end(one.holding)
    except RunctlError as trouble:
        error = str(trouble)
    if not as_json:
        what = f"{one.holding.kind} {one.holding.id}"
        typer.echo(f"{what}: {error}" if error else f"ended {what}" if judged.left else f"kept {what}: {judged.why}")
    return {"id": one.holding.id, "ended": judged.left and not error, "error": error}


def _tell(line: str) -> None:
    typer.echo(f"runctl: {line}", err=True)
