"""`runctl cost`: what runs cost, attempt by attempt or together."""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING, Optional

import typer

from runctl.cli import table
from runctl.cli.looking import at_once
from runctl.cli.reference import RUN_HELP, complete, entry_of
from runctl.errors import ConfigError, RunctlError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runctl import bills
    from runctl.cost import Bill
    from runctl.registry import Entry, Registry

#: How long run directories and platforms may take altogether.
_LOOK_S = 30.0
#: Of runs that cannot be read, so many are named.
_TOLD = 5
#: What stands for hosts that waited between two launches.
_WAITS = "waiting hosts"


class By(str, Enum):
    """Of what together."""

    run = "run"
    name = "name"
    platform = "platform"
    tag = "tag"


def cost(
    run: Optional[str] = typer.Argument(None, help=RUN_HELP, metavar="[RUN]", autocompletion=complete),
    since: str = typer.Option("30d", "--since", help="Runs launched in this time.", metavar="30d"),
    by: By = typer.Option(By.run, "--by", help="What to add up: runs of one name, platform or tag."),
    as_json: bool = typer.Option(False, "--json", help="For programs."),
) -> None:
    """Show what a run cost, attempt by attempt; or without RUN, what all of them did.

    Price × billed seconds, with disks, and on spot with every change of the price. ? is what is not known, and every
    sum of it. Runs that have ended need neither their platform nor their run directory, once they have been looked at.
    """
    import gc

    from runctl.durations import parse_duration_s
    from runctl.registry import Registry

    gc.disable()  # as in ps: of ten thousand runs nothing goes before the command ends

    registry = Registry()
    if run is not None:
        if by is not By.run:
            raise ConfigError(f"--by {by.value} adds up several runs; leave out {run}, or --by")
        _show_run(registry, entry_of(run, registry), as_json=as_json)
        return
    began = time.time() - parse_duration_s(since, "--since")
    entries = registry.entries(since=began)
    found, silent = bills_of(registry, entries)
    told = [(one, found[one.url]) for one in entries if one.url in found]
    groups = _groups(told, by)
    waits, not_read = _waits(registry, began)
    silent |= not_read
    for one in waits:
        groups.setdefault(one.platform if by is By.platform else _WAITS, []).append(("", [one]))
    sums = {name: _summed([one for _, bills in of_group for one in bills], {url for url, _ in of_group if url})
            for name, of_group in groups.items()}  # fmt: skip
    # What cannot be read may have cost something: nothing of it is in a sum, and so the sum is not known.
    total = _summed([*(one for _, bills in told for one in bills), *waits], set(found))
    if silent:
        total = {**total, "usd": None}
    if as_json:
        table.show_json({
            "since": since, "by": by.value, "total": total, "unread": silent,
            "groups": [{"of": name, **one} for name, one in sums.items()],
            "runs": [{"run_id": one.id, "name": one.name, "url": one.url, "state": one.state, "tags": one.tags,
                      "attempts": _json(bills)} for one, bills in told],
        })  # fmt: skip
        return
    if not entries and not waits:
        typer.echo(f"No run is known of the last {since}.")
        return
    rows = [_sum_row(name, one) for name, one in sums.items()]
    table.show_table(_SUM_HEADINGS, [*rows, _sum_row("together", total)], shrink=(0,), right=(1, 2, 3, 4, 5, 6))
    if by is By.tag and len(rows) > 1:
        typer.echo("A run of several tags stands in several lines, and is in the sum once.")
    unknown = [one.id for one, bills in told if any(bill.usd is None for bill in bills)]
    if unknown:
        typer.echo(f"runctl: {table.usd(total['known_usd'])} USD are known; not known is the cost of "
                   f"{', '.join(unknown[:5])}{' …' * (len(unknown) > 5)}", err=True)  # fmt: skip
    for url, why in list(silent.items())[:_TOLD]:
        typer.echo(f"runctl: {url.rsplit('/', 1)[-1]}: {why}", err=True)
    if len(silent) > _TOLD:
        typer.echo(f"runctl: and {len(silent) - _TOLD} more runs that could not be read", err=True)


_SUM_HEADINGS = ("OF", "RUNS", "TIME", "USD", "AT MOST", "SAVED", "LOST")
_HEADINGS = ("#", "WHERE", "TIME", "USD/H", "DISK", "USD", "AT MOST", "SAVED", "LOST")


_LEGEND = """
USD of host and disks; AT MOST, by its plan, if it takes all its time;
SAVED against on demand; LOST to interruptions, for steps that were done again."""
_ROUGH = """
~ at the price at which it was rented: nobody has told how it changed."""


def _show_run(registry: Registry, entry: Entry, *, as_json: bool) -> None:
    found, silent = bills_of(registry, [entry])
    if entry.url in silent:
        raise ConfigError(f"{entry.id}: {silent[entry.url]}")
    bills = found[entry.url]
    total = _summed(bills, {entry.url})
    if as_json:
        table.show_json({"run_id": entry.id, "name": entry.name, "url": entry.url, "state": entry.state,
                         "tags": entry.tags, "attempts": _json(bills), "total": total})  # fmt: skip
        return
    if not bills:
        typer.echo(f"{entry.id} has had no host yet.")
        return
    rows = [_row(one) for one in bills]
    together = [
        "", "together", table.duration(total["billed_s"]), "",
        _usd(total["disk_usd"]), _usd(total["usd"]), "", _usd(total["saved_usd"]), _usd(total["lost_usd"]),
    ]  # fmt: skip
    right = tuple(range(2, 9))
    table.show_table(_HEADINGS, [*rows, together] if len(rows) > 1 else rows, shrink=(1,), right=right)
    typer.echo(_LEGEND + _ROUGH * any(map(_is_rough, bills)))


def _waits(registry: Registry, since: float) -> tuple[list[Bill], dict[str, str]]:
    """What hosts cost that wait for the next launch, or waited for none; those that a run took are in its bill.

    Returns:
        Bills, and of the roots that did not answer, why.
    """
    if not (roots := registry.waited_below(since)):
        return [], {}
    from runctl import warm

    now = time.time()
    found, silent = at_once(roots, lambda root: warm.waits(root, since), _LOOK_S)
    return [one.bill(now) for several in found.values() for one in several], silent


def bills_of(registry: Registry, entries: list[Entry]) -> tuple[dict[str, list[Bill]], dict[str, str]]:
    """What runs cost: from what the registry keeps of those that have ended, and else from their run directories.

    Returns:
        Bills by run directory, and of those that did not answer in time or at all, why.
    """
    from runctl import bills
    from runctl.standing import has_ended

    known = registry.bills()
    found = {
        one.url: known[one.url] for one in entries if has_ended(one.state) and one.is_billed_by(known.get(one.url, ()))
    }
    fresh, silent = at_once([one.url for one in entries if one.url not in found], _looked_at, _LOOK_S)
    settled = {url: one for url, one in fresh.items() if bills.are_settled(one)}
    if settled:
        registry.keep_bills(settled)
    return {**found, **fresh}, silent


def _looked_at(url: str) -> list[Bill]:
    """A run's bills; a platform is asked for what it has not told yet."""
    from runctl import bills
    from runctl.rundir import RunDir

    return bills.of_run(RunDir(url), platform_of=_platform)


def _platform(kind: str) -> bills.TellsRates | None:
    """A platform to be asked, or None if it cannot be."""
    from pathlib import Path

    from runctl.platforms import registry

    try:
        return registry.load(kind)(Path.cwd())
    except RunctlError:
        return None


def _groups(told: list[tuple[Entry, list[Bill]]], by: By) -> dict[str, list[tuple[str, list[Bill]]]]:
    """Bills by what is to be added up, each with its run directory; a run that has had no host yet has none."""
    groups: dict[str, list[tuple[str, list[Bill]]]] = {}
    for entry, bills in told:
        platforms = dict.fromkeys(one.platform for one in bills) or [entry.platform]
        words = {
            By.run: [entry.id], By.name: [entry.name], By.platform: platforms,
            By.tag: [f"{key}={value}" for key, value in entry.tags.items()] or ["no tag"],
        }  # fmt: skip
        for word in words[by]:
            counted = [one for one in bills if by is not By.platform or one.platform == word]
            groups.setdefault(word, []).append((entry.url, counted))
    return groups


def _summed(bills: list[Bill], urls: Iterable[str]) -> dict[str, float | int | None]:
    from runctl.cost import total_usd

    return {
        "runs": len(set(urls)),
        "billed_s": round(sum(one.billed_s for one in bills), 3),
        "usd": total_usd([one.usd for one in bills]),
        "known_usd": total_usd([one.usd for one in bills if one.usd is not None]),
        "disk_usd": total_usd([one.disk_usd for one in bills]),
        "estimate_usd": total_usd([one.estimate_usd for one in bills]),
        "saved_usd": total_usd([one.saved_usd for one in bills]),
        "lost_usd": total_usd([one.lost_usd for one in bills]),
    }


def _sum_row(name: str, one: dict[str, float | int | None]) -> list[str]:
    return [
        name, str(one["runs"]), table.duration(one["billed_s"]),
        *(_usd(one[key]) for key in ("usd", "estimate_usd", "saved_usd", "lost_usd")),
    ]  # fmt: skip


def _row(one: Bill) -> list[str]:
    market = one.market.replace("_", " ") if one.market != "own" else ""
    where = " ".join(filter(None, [market, one.machine])) or one.platform
    price = "" if one.market == "own" else table.usd(one.price_usd_per_hour)
    return [
        str(one.attempt), where, table.duration(one.billed_s), price, _usd(one.disk_usd),
        "~" * _is_rough(one) + _usd(one.usd), _usd(one.estimate_usd), _usd(one.saved_usd), _usd(one.lost_usd),
    ]  # fmt: skip


def _is_rough(one: Bill) -> bool:
    """Whether the price may have changed without anybody having told."""
    return one.platform == "aws" and one.market == "spot" and one.usd is not None and not one.followed


def _usd(value: float | None) -> str:
    return table.usd(value)


def _json(bills: list[Bill]) -> list[dict[str, object]]:
    from runctl.encoding import to_data

    return [to_data(one) for one in bills]
