"""`runctl wait`, `stop` and `rm`: what one does to a run from anywhere that can read its run directory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Optional

import typer

from runctl.cli import table
from runctl.cli.reference import RUN_HELP, complete, entry_of, run_of
from runctl.errors import ConfigError, ExitCode, LeaseHeld, StorageError

if TYPE_CHECKING:
    from runctl.rundir import RunDir
    from runctl.standing import Standing
    from runctl.storage import Store

_RUN = typer.Argument(..., help=RUN_HELP, metavar="RUN", autocompletion=complete)
_JSON = typer.Option(False, "--json", help="For programs.")
_LOCAL_LOOK_S, _REMOTE_LOOK_S = 0.3, 3.0


def wait(
    run: str = _RUN,
    timeout: Optional[str] = typer.Option(None, "--timeout", help="Give up after so long, with exit code 124."),
    as_json: bool = _JSON,
) -> None:
    """Wait for a run's end, over interruptions; exits with the run's own exit code."""
    from runctl.durations import parse_duration_s

    rundir = run_of(run)
    now, over = _wait(rundir, None if timeout is None else parse_duration_s(timeout, "--timeout"))
    if as_json:
        table.show_json(now.to_json())
    else:
        typer.echo(f"{now.run_id} {now.state}" + (f": {now.reason}" if now.reason else ""))
    if not over:
        raise typer.Exit(int(ExitCode.LIMIT))
    raise typer.Exit(now.exit_code if now.exit_code is not None else int(ExitCode.HOST_LOST))


def stop(
    run: str = _RUN,
    at_once: bool = typer.Option(False, "--now", help="Leave its ranks no time for a checkpoint."),
    no_wait: bool = typer.Option(False, "--no-wait", help="Do not wait for its end."),
    as_json: bool = _JSON,
) -> None:
    """Stop a run: its ranks save a checkpoint and end, and so does a rented host. The same launch goes on."""
    from runctl import standing

    rundir = run_of(run)
    now = standing.look(rundir)
    if not standing.may_go_on(rundir, now):
        if as_json:
            table.show_json(now.to_json())
        else:
            typer.echo(f"{now.run_id} has ended already: {now.state}" + (f", {now.reason}" if now.reason else ""))
        return
    # After an interruption the launcher may be about to rent another host, which then hears of it at once.
    rundir.ask_to_stop(now.attempt + (now.state == "interrupted"), "asked", now=at_once)
    if not as_json:
        typer.echo(f"{now.run_id} is asked to stop" + (" at once" if at_once else ""))
    if not no_wait:
        now, _ = _wait(rundir, None)
    if as_json:
        table.show_json(now.to_json())
    elif not no_wait:
        saved = f"; step {now.checkpoints[-1]} is saved" if now.checkpoints else ""
        typer.echo(f"{now.run_id} {now.state}: {now.reason}{saved}")


def rm(
    runs: list[str] = typer.Argument(..., help=RUN_HELP, metavar="RUN…", autocompletion=complete),
    force: bool = typer.Option(False, "--force", "-f", "--yes", "-y", help="Ask no question."),
    keep_files: bool = typer.Option(False, "--keep-files", help="Only leave it out of the index."),
    as_json: bool = _JSON,
) -> None:
    """Remove runs that have ended: their logs, metrics and checkpoints, also those that checkpoint.url had carried."""
    from runctl import standing
    from runctl.checkpoint.transfer import readable
    from runctl.registry import Registry

    if as_json and not (force or keep_files):
        raise ConfigError("--json asks no question: add -y to remove them for good")
    registry = Registry()
    for word in runs:
        entry = entry_of(word, registry)
        rundir = run_of(entry.url) if not keep_files else None
        removed: dict[str, object] = {"run_id": entry.id, "url": entry.url, "files": 0, "size_bytes": 0, "places": []}
        if rundir is not None:
            now = standing.look(rundir)
            if standing.may_go_on(rundir, now) or rundir.lease.is_held():
                raise LeaseHeld(f"{now.run_id} goes on ({now.state}); runctl stop {now.run_id} stops it first")
            files = [(store, store.sizes("")) for store in _stores(rundir)]
            count, size_bytes = sum(len(one) for _, one in files), sum(sum(one.values()) for _, one in files)
            places = ", ".join(store.url for store, _ in files)
            told = f"{now.run_id} ({count} files, {readable(size_bytes)}, {places})"
            if not force and not typer.confirm(f"Remove {told} for good?"):
                raise typer.Exit(1)
            for store, sizes in files:
                # The spec goes last: until then it is a run, and can be removed once more.
                for name in sorted(sizes, key=lambda name: name == "spec.json"):
                    store.delete(name)
                store.remove_folder()
            removed |= {"files": count, "size_bytes": size_bytes, "places": [store.url for store, _ in files]}
            if not as_json:
                typer.echo(f"removed {told}")
        registry.forget(entry.url)
        if as_json:  # a line for each at once, for the next one may not be removable
            table.show_json(removed)


def _stores(rundir: RunDir) -> list[Store]:
    """Where a run has files: its checkpoints that were carried elsewhere, and its run directory, which comes last."""
    from runctl.checkpoint.remote import FOLDER
    from runctl.holdings import carried_to
    from runctl.storage import open_store

    carried = carried_to(rundir.read_spec())
    if carried is None or carried.url == rundir.url:
        return [rundir.store]
    # Besides them another run of that id may lie there.
    return [open_store(f"{carried.url}/{FOLDER}", "checkpoint.url=…"), rundir.store]


def _wait(rundir: RunDir, timeout_s: float | None) -> tuple[Standing, bool]:
    """Until the run is over, or for so long; returns where it stands then, and whether it is over."""
    from runctl import standing

    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    pause_s = _REMOTE_LOOK_S if "://" in rundir.url else _LOCAL_LOOK_S
    told = 0
    while True:
        try:
            now = standing.look(rundir)
            if not standing.may_go_on(rundir, now):
                return now, True
        except StorageError as error:
            if deadline is None:
                typer.echo(f"runctl: {error}; looking again", err=True)
            now = None
        if now is not None and now.ended and told != now.attempt:
            told = now.attempt
            typer.echo(f"runctl: attempt {told} is {now.state}; another may come", err=True)
        if deadline is not None and time.monotonic() >= deadline:
            if now is None:
                raise ConfigError(f"{rundir.url} could not be read before --timeout was over")
            return now, False
        time.sleep(pause_s)
