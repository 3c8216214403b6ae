"""`runctl offers`: what there is to rent, and for how much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

import typer

from runctl.cli import table
from runctl.errors import ConfigError, RunctlError

if TYPE_CHECKING:
    from runctl.config.schemas import LaunchConfig
    from runctl.spec import Offer, Quote

_HEADINGS = ("USD/H", "GPUS", "MACHINE", "MARKET", "PLATFORM", "WHERE")


def offers(
    words: Optional[list[str]] = typer.Argument(
        None, help="As for runctl-launch: resources.gpu=L4 resources.gpus=1.", metavar="[WORD]…"
    ),
    platform: Optional[list[str]] = typer.Option(None, "--platform", help="Only there; several times for several."),
    region: Optional[list[str]] = typer.Option(
        None, "--region", help="Of AWS; several times for several. Without it, that of your settings.", metavar="REGION"
    ),
    limit: int = typer.Option(30, "--limit", "-n", help="So many of the cheapest.", min=1),
    as_json: bool = typer.Option(False, "--json", help="For programs."),
) -> None:
    """Show what there is to rent that has what a launch asks for, on every platform, the cheapest first.

    Prices are those of this moment, of the whole host without its disks; ? is one that is not known.
    """
    from runctl.platforms import registry

    for word in words or ():
        if "=" not in word:
            raise ConfigError(f"{word}: write KEY=VALUE, such as resources.gpu=L4")
    found: list[tuple[Offer, str]] = []
    missing: dict[str, str] = {}
    asked: dict[str, LaunchConfig] = {}
    for kind in platform or [one for one in registry.kinds() if one != "local"]:
        try:
            asked[kind] = _composed([*_more(kind, region or []), *(words or [])])
        except ConfigError as error:  # another platform may have that key
            missing[kind] = str(error)
    if not asked:
        raise ConfigError(next(iter(missing.values())))
    for kind, cfg in asked.items():
        try:
            quote, gpus = _quoted(kind, cfg)
        except RunctlError as error:
            missing[kind] = str(error)
            continue
        found += [(one, gpus(one)) for one in quote.offers if one.machine != "auto"]
        if quote.unknown:
            missing[kind] = "; ".join(quote.unknown)
    found.sort(key=lambda one: (one[0].price_usd_per_hour is None, one[0].price_usd_per_hour or 0.0))
    if as_json:
        from runctl.encoding import to_data

        table.show_json({"offers": [{**to_data(one), "gpus": gpus} for one, gpus in found], "missing": missing})
        return
    if found:
        rows = [_row(one, gpus) for one, gpus in found[:limit]]
        table.show_table(_HEADINGS, rows, shrink=(2, 5), right=(0,))
        if len(found) > limit:
            typer.echo(f"and {len(found) - limit} more: -n {len(found)} shows them")
    else:
        typer.echo("Nothing is offered.")
    for kind, why in missing.items():
        typer.echo(f"{kind}: {why}", err=True)


def _more(kind: str, regions: list[str]) -> list[str]:
    """Words that have a platform show all that it has."""
    words = [f"platform={kind}"]
    if kind == "aws" and regions:
        words.append(f"platform.region=[{','.join(regions)}]")
    if kind == "runpod":
        words.append("platform.cloud_type=any")
    return words


def _composed(words: list[str]) -> LaunchConfig:
    from pathlib import Path

    from runctl.config.composing import composed
    from runctl.platforms import registry

    return composed(words, Path.cwd(), registry.others(), registry.options)


def _quoted(kind: str, cfg: LaunchConfig) -> tuple[Quote, Any]:
    """What a platform offers, and what says which GPUs one of its offers has."""
    import tempfile
    from pathlib import Path

    from runctl.config import hosts
    from runctl.platforms import registry
    from runctl.spec import LaunchSpec, Program, RunIdentity

    # Quotes come with the project packed, and this is none's: an empty one.
    with tempfile.TemporaryDirectory(prefix="runctl-offers-") as empty:
        platform = registry.load(kind)(Path(empty), cfg.platform, lambda line: typer.echo(f"runctl: {line}", err=True))
        spec = LaunchSpec(
            RunIdentity("offers", "offers", "runs"), Program("train.py", None), resources=hosts.resources(cfg)
        )
        return platform.quote(spec), platform.gpus


def _row(one: Offer, gpus: str) -> list[str]:
    price = "?" if one.price_usd_per_hour is None else f"{one.price_usd_per_hour:.4f}"
    where = one.zone or one.region or ""
    if one.platform == "runpod":
        where = " ".join(filter(None, [f"{one.region} cloud", one.zone]))
    return [price, gpus, one.machine, one.market.replace("_", " "), one.platform, where]
