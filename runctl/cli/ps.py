"""`runctl ps`: runs and where they stand; `runctl reindex`: the index of them made anew."""

from __future__ import annotations

import fnmatch
import gc
import os
import time
from typing import TYPE_CHECKING, Optional

import typer

from runctl.cli import table
from runctl.cli.looking import at_once
from runctl.errors import ConfigError, ExitCode, RunctlError

if TYPE_CHECKING:
    from runctl.registry import Entry, Registry
    from runctl.standing import Standing
    from runctl.warm import Wait

#: How long run directories may take to be read altogether; of what has not answered by then one sees the last news.
LOOK_S = 5.0
_AT_ONCE = 16
_ENDED_KEPT = 50
_HEADINGS = ("RUN", "STATE", "STEP", "LOSS", "STEP/S", "ETA", "USD", "WHERE", "SEEN")
#: Columns that a narrow terminal does without: speed, place, loss and so on, but not the id, by which a run is named.
_SPARE = (4, 7, 3, 8, 5, 6, 2)


def ps(
    show_all: bool = typer.Option(False, "--all", "-a", help="Those that have ended too, the newest 50."),
    limit: Optional[int] = typer.Option(None, "--limit", "-n", help="So many of the newest.", metavar="N", min=1),
    name: Optional[str] = typer.Option(None, "--name", help="Only runs of that name; * and ? stand for any letters."),
    state: Optional[str] = typer.Option(None, "--state", help="Only those in that state: running, failed, lost …"),
    tag: Optional[str] = typer.Option(None, "--tag", help="Only those with that tag.", metavar="KEY[=VALUE]"),
    as_json: bool = typer.Option(False, "--json", help="For programs."),
) -> None:
    """Show the runs that go on, with step, loss, speed, time left, cost so far and place."""
    from runctl.registry import Registry
    from runctl.spec import RunState
    from runctl.standing import LOST, Standing, has_ended

    gc.disable()  # of ten thousand runs nothing goes before the command ends, and looking for it takes its time
    states = [one.value for one in RunState] + [LOST]
    if state is not None and state not in states:
        raise ConfigError(f"--state {state}: there are {', '.join(states)}")
    registry = Registry()
    everything = show_all or limit is not None or state is not None
    at_most = limit if limit is not None or name or state or tag else _ENDED_KEPT if show_all else None
    entries = registry.entries(ended=None if everything else False, limit=None if name or state or tag else at_most)
    may_return = (RunState.INTERRUPTED.value, LOST)
    living = {one.url for one in entries if not has_ended(one.state) or one.state in may_return}
    found, silent = looked_at(registry, [one for one in entries if one.url in living])
    standings = [found.get(one.url) or Standing.seen(one) for one in entries]
    standings = [
        one for one in standings
        if (everything or not one.ended or one.state in may_return)
        and (name is None or fnmatch.fnmatchcase(one.name, name))
        and (state is None or one.state == state)
        and (tag is None or _has(one, tag))
    ]  # fmt: skip
    standings = standings[:at_most]
    now = time.time()
    waiting = [] if name or state or tag else _waiting(registry, now)
    if as_json:
        table.show_json([*(one.to_json() for one in standings), *(_waiting_json(one, now) for one in waiting)])
        return
    if not standings and not waiting:
        typer.echo("No run goes on; runctl ps --all shows those that have ended." if not everything else "No such run.")
        return
    rows = [_row(one, now, seen=one.url in silent) for one in standings]
    rows += [_waiting_row(one, now) for one in waiting]
    table.show_table(_HEADINGS, rows, shrink=(7,), spare=_SPARE, right=(2, 3, 4, 5, 6), states=1)
    for url, why in silent.items():
        typer.echo(f"runctl: {url.rsplit('/', 1)[-1]} as it was seen last: {why}", err=True)


def reindex(
    roots: Optional[list[str]] = typer.Argument(
        None, help="Folders or buckets that hold run directories; without one, all that are known.", metavar="[ROOT]…"
    ),
    as_json: bool = typer.Option(False, "--json", help="For programs."),
) -> None:
    """Make the index of runs anew from their run directories, also of those launched from another machine."""
    from runctl.platforms import registry as platforms
    from runctl.registry import Registry
    from runctl.storage import open_store

    registry = Registry()
    counts: dict[str, int] = {}
    away: dict[str, int] = {}
    known = registry.roots()
    for root in roots or [*known, "runs", platforms.load("aws").default_root()]:
        store = open_store(root)
        if store.url in counts or store.url in away:
            continue
        if not _is_there(store.url) and (roots or store.url in known):
            # A disk that is not mounted, or a slip of the pen, is no reason to forget anything.
            away[store.url] = sum(_root_of(one.url) == store.url for one in registry.entries())
            continue
        ids = [name for name in store.names("") if not name.startswith(".")]
        entries, unread = _read_all(store.url, ids)
        registry.note_all(entries)
        # What is there and could not be read just now stays: its bills and its project stand nowhere else.
        for gone in {one.url for one in registry.entries()} - {one.url for one in entries} - unread:
            if _root_of(gone) == store.url:
                registry.forget(gone)
        counts[store.url] = len(entries)
    if as_json:
        table.show_json(counts)
    for url, count in counts.items() if not as_json else ():
        typer.echo(f"{count:>6} {_runs(count)} in {url}")
    for url, count in away.items():
        kept = f"; what is known of its {count} {_runs(count)} is kept, and forgotten if the folder is empty"
        typer.echo(f"runctl: there is no folder {url}{kept if count else ''}", err=True)
    if away:
        raise typer.Exit(int(ExitCode.CONFIG if roots else ExitCode.FAILED))


def _is_there(url: str) -> bool:
    """Whether a root is a folder of this machine; a bucket that is not there says so when it is listed."""
    return "://" in url or os.path.isdir(url)  # noqa: PTH112 (`Path.is_dir` raises for what may not be looked at)


def _runs(count: int) -> str:
    return "run" if count == 1 else "runs"


def _root_of(url: str) -> str:
    return url.rsplit("/", 1)[0]


def looked_at(registry: Registry, entries: list[Entry]) -> tuple[dict[str, Standing], dict[str, str]]:
    """Look at runs, several at once, and note what was seen.

    Returns:
        Where they stand by run directory, and of those that did not answer in time or at all, why.
    """
    from runctl import standing
    from runctl.rundir import RunDir

    found, silent = at_once([one.url for one in entries], lambda url: standing.look(RunDir(url)), LOOK_S)
    if found:
        registry.note_all([one.entry() for one in found.values()])
    return found, silent


def _read_all(root: str, ids: list[str]) -> tuple[list[Entry], set[str]]:
    """The runs below a root, and run directories that could not be read, which is told."""
    from concurrent.futures import ThreadPoolExecutor

    from runctl import standing
    from runctl.rundir import RunDir, run_url

    unread: set[str] = set()

    def read(run_id: str) -> Entry | None:
        rundir = RunDir(run_url(root, run_id))
        try:
            return standing.look(rundir).entry() if rundir.exists() else None
        except RunctlError as error:
            typer.echo(f"runctl: {error}", err=True)
            unread.add(rundir.url)
            return None

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return [entry for entry in threads.map(read, ids) if entry is not None], unread


def _waiting(registry: Registry, now: float) -> list[Wait]:
    """Hosts that wait for the next launch, or for the next job of a sweep: they cost as much as those of runs."""
    if not (roots := registry.waited_below(now)):
        return []
    from runctl import warm

    found, silent = at_once(roots, lambda root: warm.waits(root, now), LOOK_S)
    for why in silent.values():
        typer.echo(f"runctl: hosts may wait (platform.keep_warm): {why}", err=True)
    return [one for several in found.values() for one in several]


def _waiting_row(one: Wait, now: float) -> list[str]:
    from runctl.standing import place_of

    place = place_of(one.handle.platform, one.handle.address["market"], one.host)
    left, whose = table.duration(one.until - now), f"({one.only_for or 'the next launch'})"
    return [whose, "waiting", "", "", "", left, table.usd(one.bill(now).usd), place, ""]


def _waiting_json(one: Wait, now: float) -> dict[str, object]:
    bill = one.bill(now)
    return {
        "run_id": None, "state": "waiting", "platform": one.handle.platform, "host": one.host, "market": bill.market,
        "began_at": one.free_since, "ends_at": one.until, "price_usd_per_hour": bill.price_usd_per_hour,
        "cost_usd": bill.usd,
    }  # fmt: skip


def _has(one: Standing, tag: str) -> bool:
    key, sign, value = tag.partition("=")
    return key in one.tags and (not sign or one.tags[key] == value)


def _row(one: Standing, now: float, *, seen: bool) -> list[str]:
    from runctl.standing import place_of

    step = "" if one.step is None else f"{one.step}/{one.total_steps}" if one.total_steps else str(one.step)
    loss = next((one.metrics[key] for key in ("loss", "train_loss", "val_loss") if key in one.metrics), None)
    place = place_of(one.platform, one.market, one.host)
    attempts = f" #{one.attempt}" if one.attempt > 1 else ""
    return [
        one.run_id,
        one.state + attempts,
        step,
        table.number(loss),
        "" if one.ended else table.number(one.steps_per_s),
        table.duration(one.eta_s),
        "" if one.platform == "local" else table.usd(one.cost_usd),
        place,
        table.ago(one.looked_at, now) if seen else "",
    ]
