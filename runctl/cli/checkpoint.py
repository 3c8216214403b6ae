"""`runctl checkpoint`: the checkpoints of a run, from anywhere that can read them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import typer

from runctl.cli import table
from runctl.cli.reference import RUN_HELP, complete, run_of
from runctl.errors import ConfigError, ExitCode, LeaseHeld, StorageError

if TYPE_CHECKING:
    from runctl.holdings import Holdings
    from runctl.rundir import RunDir
    from runctl.standing import Standing

app = typer.Typer(no_args_is_help=True, help="The checkpoints of a run: saved now, listed, verified, brought, pruned.")

_RUN = typer.Argument(..., help=RUN_HELP, metavar="RUN", autocompletion=complete)
_RUN_OR_PATH = typer.Argument(
    ..., metavar="RUN|PATH", autocompletion=complete,
    help=f"{RUN_HELP} Or a file or folder that a script has written.",
)  # fmt: skip
_STEP = typer.Argument(None, metavar="[STEP]", help="The newest one without it.")
_JSON = typer.Option(False, "--json", help="For programs.")
_LOCAL_LOOK_S, _REMOTE_LOOK_S = 0.3, 3.0


@app.command()
def save(
    run: str = _RUN_OR_PATH,
    timeout: str = typer.Option("10m", "--timeout", help="Wait for it so long; afterwards exit code 124."),
    no_wait: bool = typer.Option(False, "--no-wait", help="Do not wait for it."),
    as_json: bool = _JSON,
) -> None:
    """Have a running run save a checkpoint now; or seal a PATH, so that `verify` tells later whether it is whole.

    A run's ranks save at their next step; it counts once it lies where the run's checkpoints do. A file or folder that
    a script has written gets a seal, PATH.runctl.json: the hash of every file, against which `verify` holds it.
    """
    from runctl.durations import parse_duration_s

    if (path := _own_file(run)) is not None:
        _seal(path, as_json=as_json)
        return
    rundir = run_of(run)
    _save(rundir, parse_duration_s(timeout, "--timeout"), wait=not no_wait, as_json=as_json)


@app.command("list")
def list_(run: str = _RUN, as_json: bool = _JSON) -> None:
    """List a run's checkpoints: step, size, when, metrics, and whether they are whole as far as sizes tell."""
    from runctl.holdings import size

    holdings = _holdings(run_of(run))
    found = holdings.listed()
    if as_json:
        table.show_json([one.to_json() for one in found])
        return
    if not found:
        typer.echo(f"{holdings.place}: no checkpoint")
        return
    rows = [
        [str(one.step), table.ago(one.created_at), size(one), f"a{one.attempt}" if one.attempt else "",
         " ".join(f"{name}={table.number(value)}" for name, value in (one.metrics or {}).items()), one.trouble]
        for one in found
    ]  # fmt: skip
    table.show_table(["STEP", "WRITTEN", "SIZE", "BY", "METRICS", ""], rows, shrink=(5, 4), right=(0, 2))
    typer.echo(f"in {holdings.place}")


@app.command()
def show(run: str = _RUN, step: Optional[int] = _STEP, as_json: bool = _JSON) -> None:
    """Show one checkpoint: what it holds, by whom it was written, with which versions."""
    from runctl.checkpoint.transfer import readable
    from runctl.encoding import to_data

    holdings = _holdings(run_of(run))
    step = holdings.chosen(step)
    url, manifest = holdings.manifest(step)
    if as_json:
        table.show_json({"url": url, **to_data(manifest)})
        return
    told = {
        "checkpoint": url,
        "step": f"{manifest.step}, epoch {manifest.epoch}",
        "written": f"{table.moment(manifest.created_at)}, attempt {manifest.attempt} of {manifest.run_id}",
        "ranks": str(manifest.world_size),
        "metrics": " ".join(f"{name}={table.number(value)}" for name, value in manifest.metrics.items()),
        "versions": " ".join(f"{name} {value}" for name, value in manifest.versions.items()),
        "resume from": manifest.watched.resume if manifest.watched is not None else "",
        "hash": manifest.hash,
    }
    for name, value in told.items():
        if value:
            typer.echo(f"{name:<12}{value}")
    table.show_table(
        ["FILE", "SIZE", "HASH"],
        [[name, readable(one.size_bytes), one.digest] for name, one in sorted(manifest.files.items())],
        shrink=(2, 0), right=(1,),
    )  # fmt: skip


@app.command()
def verify(
    run: str = _RUN_OR_PATH,
    step: Optional[int] = typer.Argument(None, metavar="[STEP]", help="Every one without it."),
    as_json: bool = _JSON,
) -> None:
    """Look at every byte of a run's checkpoints, or of a PATH that was sealed; exit code 1 if any is not whole."""
    from runctl.checkpoint import sealed

    if (path := _own_file(run)) is not None:
        results: list[dict[str, Any]] = [{"path": str(path), "trouble": sealed.trouble(path)}]
    else:
        holdings = _holdings(run_of(run))
        steps = holdings.steps() if step is None else [holdings.chosen(step)]
        if not steps:
            raise ConfigError(f"{holdings.place}: no checkpoint to look at")
        results = [{"step": one, "trouble": holdings.trouble(one)} for one in steps]
    if as_json:
        table.show_json(results)
    else:
        for one in results:
            name = one.get("path") or f"step {one['step']}"
            typer.echo(f"{name}: {one['trouble'] or 'whole, every byte of it'}")
    if any(one["trouble"] for one in results):
        raise typer.Exit(1)


@app.command()
def pull(
    run: str = _RUN,
    step: Optional[int] = _STEP,
    to: Path = typer.Option(Path("checkpoints"), "--to", help="A folder of this machine, into which it goes."),
    as_json: bool = _JSON,
) -> None:
    """Bring a checkpoint to this machine, verified; files that an earlier try has brought whole stay."""
    holdings = _holdings(run_of(run))
    step = holdings.chosen(step)
    path = holdings.pull(step, to)
    if as_json:
        table.show_json({"step": step, "path": str(path)})
    else:
        typer.echo(f"step {step} is in {path}")


@app.command()
def prune(
    run: str = _RUN,
    keep_last: Optional[int] = typer.Option(None, "--keep-last", help="Of the newest; at least 2."),
    keep_every: Optional[int] = typer.Option(None, "--keep-every", help="Those whose step it divides."),
    keep_best: Optional[str] = typer.Option(None, "--keep-best", help="The lowest of a metric; -acc: the highest."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say which would go; remove nothing."),
    as_json: bool = _JSON,
) -> None:
    """Remove the checkpoints that a retention does not keep; by default the run's own. The two newest always stay."""
    from runctl import standing
    from runctl.spec import Retention

    rundir = run_of(run)
    now = standing.look(rundir)
    if not dry_run and (standing.may_go_on(rundir, now) or rundir.lease.is_held()):
        raise LeaseHeld(f"{now.run_id} goes on ({now.state}), and prunes by itself; runctl stop {now.run_id} stops it")
    holdings = _holdings(rundir)
    own = holdings.retention
    wanted = Retention(
        own.keep_last if keep_last is None else keep_last, keep_every or own.keep_every, keep_best or own.keep_best
    )
    removed, freed = holdings.prune(wanted, dry_run=dry_run)
    if as_json:
        table.show_json({"removed": removed, "freed_bytes": freed, "kept": holdings.steps(), "dry_run": dry_run})
        return
    from runctl.checkpoint.transfer import readable

    steps = ", ".join(map(str, removed)) or "none"
    typer.echo(f"{'would be removed' if dry_run else 'removed'}: {steps}" + f" ({readable(freed)})" * bool(removed))


@app.command()
def resume(
    run: str = _RUN,
    step: Optional[int] = typer.Option(None, "--step", help="Of the checkpoint; the newest one without it."),
    words: Optional[list[str]] = typer.Argument(None, metavar="[KEY=VALUE…]", help="As `runctl resume` takes them."),
    here: bool = typer.Option(False, "--here", help="With the project in which you stand."),
    as_json: bool = _JSON,
) -> None:
    """Go on with a run from its newest checkpoint, or from that of --step, after which later ones count no more."""
    from runctl.cli.launching import resume as go_on

    chosen = [] if step is None else [f"checkpoint.resume={step}"]
    go_on(run, [*chosen, *(words or [])], here=here, as_json=as_json)


def _save(rundir: RunDir, timeout_s: float, *, wait: bool, as_json: bool) -> None:
    from runctl import saves, standing

    now = standing.look(rundir)
    if now.ended:
        last = f"; its newest checkpoint is of step {now.checkpoints[-1]}" if now.checkpoints else ""
        raise ConfigError(f"{now.run_id} does not run ({now.state}), so there is nothing new to save{last}")
    before = set(now.checkpoints)
    request = saves.ask(rundir, now.attempt)
    if not wait:
        if as_json:
            table.show_json({"run_id": now.run_id, "step": None})
        else:
            typer.echo(f"{now.run_id} is asked for a checkpoint")
        return
    deadline, waiting = time.monotonic() + timeout_s, ""
    while True:
        time.sleep(_REMOTE_LOOK_S if "://" in rundir.url else _LOCAL_LOOK_S)
        try:
            said, now = saves.answered(rundir, request), standing.look(rundir)
        except StorageError as error:
            typer.echo(f"runctl: {error}; looking again", err=True)
            said = None
        if said is not None and said.step is not None:
            break
        if said is not None and said.waiting not in ("", waiting):
            waiting = said.waiting
            typer.echo(f"runctl: {waiting}", err=True)
        if now.ended:
            _say_ended(now, before)
        if time.monotonic() > deadline:
            typer.echo(f"runctl: no checkpoint within --timeout={timeout_s:g} s; it is still asked for", err=True)
            raise typer.Exit(int(ExitCode.LIMIT))
    if as_json:
        table.show_json({"run_id": now.run_id, "step": said.step})
    else:
        typer.echo(f"{now.run_id}: step {said.step} is saved")


def _say_ended(now: Standing, before: set[int]) -> None:
    """A run that came to its end first: well, if it saved once more by itself, or had nothing left to save."""
    last = f"; its newest checkpoint is of step {now.checkpoints[-1]}" if now.checkpoints else ""
    typer.echo(f"runctl: {now.run_id} has ended meanwhile ({now.state}){last}", err=True)
    saved = bool(set(now.checkpoints) - before) or now.step in now.checkpoints
    raise typer.Exit(0 if saved else int(ExitCode.FAILED))


def _seal(path: Path, *, as_json: bool) -> None:
    from runctl.checkpoint import sealed
    from runctl.checkpoint.transfer import readable

    made, place = sealed.seal(path), sealed.place(path)
    if as_json:
        table.show_json(
            {"path": str(path), "seal": str(place), "files": len(made.files), "size_bytes": made.size_bytes}
        )
    else:
        files = f"{len(made.files)} file{'s' * (len(made.files) != 1)}"
        typer.echo(f"{path}: {files}, {readable(made.size_bytes)}, sealed in {place}")


def _own_file(word: str) -> Path | None:
    """A file or folder of this machine that is no run directory; None for anything else."""
    path = Path(word)
    if word == "latest" or "://" in word or not path.exists() or (path / "spec.json").exists():
        return None
    return path


def _holdings(rundir: RunDir) -> Holdings:
    from runctl.holdings import Holdings

    return Holdings.of(rundir)
