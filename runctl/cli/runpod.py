"""`runctl runpod`: pods by hand, files to them and from them, trainings on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Optional

import typer

from runctl.cli import by_hand, table
from runctl.errors import ConfigError

if TYPE_CHECKING:
    from runctl.platforms.runpod.hosts import RunpodHosts

app = typer.Typer(no_args_is_help=True, help="RunPod: pods made by hand, files to them, trainings on them.")

_GPU = typer.Option(None, "--gpu", "--type", help="A GPU's name, such as 'RTX 4090'; by default one of 24 GB.")


@app.command()
def create(
    spot: bool = by_hand.SPOT,
    gpu: Optional[str] = _GPU,
    gpus: Optional[int] = by_hand.GPUS,
    max_time: str = by_hand.MAX_TIME,
    no_fallback: bool = by_hand.NO_FALLBACK,
    image: Optional[str] = typer.Option(None, "--image", help="With Python and sshd; by default RunPod's own."),
    as_json: bool = by_hand.JSON,
) -> None:
    """Rent a pod that belongs to no run; prints its id alone. It ends itself after --max-time."""
    from runctl.spec import Resources

    hosts = _hosts(by_hand.market(spot=spot, no_fallback=no_fallback), image)
    by_hand.create(hosts, Resources(gpus=gpus, gpu=gpu), max_time, as_json=as_json)


@app.command("list")
def list_(as_json: bool = by_hand.JSON) -> None:
    """List the pods that runctl made and that live: price, age, time left, run."""
    by_hand.show(_hosts().living(), as_json=as_json)


@app.command()
def upload(
    host: str = by_hand.ID,
    path: Path = typer.Argument(..., metavar="PATH", help="A file or folder here."),
    target: str = typer.Argument(".", metavar="[TARGET]", help="There; relative to where a session begins."),
    as_json: bool = by_hand.JSON,
) -> None:
    """Send a file or a folder to a pod, verified."""
    there = f"{target.rstrip('/')}/{path.absolute().name}" if target in (".", "./") else target
    _moved("sent", path, there, _hosts().upload(host, path, there), as_json=as_json)


@app.command()
def download(
    host: str = by_hand.ID,
    source: str = typer.Argument(..., metavar="SOURCE", help="A file or folder there."),
    path: Optional[Path] = typer.Argument(None, metavar="[PATH]", help="Here; by default under its own name."),
    as_json: bool = by_hand.JSON,
) -> None:
    """Bring a file or a folder from a pod, verified; what broke off goes on where it did."""
    here = path or Path(source.rstrip("/")).name
    _moved("brought", source, here, _hosts().download(host, source, Path(here)), as_json=as_json)


@app.command()
def train(
    host: str = by_hand.ID,
    script: str = by_hand.SCRIPT,
    words: Optional[list[str]] = by_hand.WORDS,
    data_s3: Optional[str] = by_hand.DATA,
    output_s3: Optional[str] = by_hand.OUTPUT,
    ddp: bool = by_hand.DDP,
    background: bool = by_hand.BACKGROUND,
    name: Optional[str] = by_hand.NAME,
    more: Optional[list[str]] = by_hand.SET,
) -> None:
    """Train on a pod that `create` made, with staging, checkpoints and resume; it stays afterwards.

    If RunPod takes it back, the run goes on on one that is rented for it, and ends with it.
    """
    by_hand.train(
        _hosts(), host, script, words or [], data=data_s3, output=output_s3, ddp=ddp, background=background,
        name=name, more=more or [],
    )  # fmt: skip


@app.command()
def monitor(
    host: str = by_hand.ID,
    follow: bool = typer.Option(False, "--follow", "-f", help="Go on until the run ends."),
    as_json: bool = by_hand.JSON,
) -> None:
    """Watch the training that is on a pod, or was last; one in the background is brought here as long as it runs."""
    from runctl.cli.monitor import monitor as watch
    from runctl.platforms.hosts import noted
    from runctl.resuming import rejoin
    from runctl.rundir import RunDir

    run = noted(host).get("run_dir")
    if not isinstance(run, str):
        raise ConfigError(f"{host}: no training was started on it from this machine; runctl runpod train starts one")
    if follow and "://" not in run and (code := rejoin(RunDir(run))) is not None:
        raise typer.Exit(code)
    watch(run, follow=follow, log=None, as_json=as_json)


@app.command("exec")
def exec_(host: str = by_hand.ID, command: list[str] = by_hand.COMMAND, timeout: str = by_hand.TIMEOUT) -> None:
    """Run a command on a pod over SSH: its output and its exit code."""
    by_hand.execute(_hosts(), host, command, timeout)


@app.command()
def terminate(
    hosts: list[str] = typer.Argument(..., metavar="ID…", help="Of pods that runctl made; others are refused."),
    as_json: bool = by_hand.JSON,
) -> None:
    """End pods, with their disks."""
    by_hand.terminate(_hosts(), hosts, as_json=as_json)


@app.command()
def cleanup(
    dry_run: bool = typer.Option(False, "--dry-run", help="Only show what is left over; end nothing."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Ask no question."),
    as_json: bool = by_hand.JSON,
) -> None:
    """`runctl cleanup` of this platform alone: end what runs without a run that lives."""
    from runctl.cli.cleanup import cleanup as clean

    clean(dry_run=dry_run, yes=yes, platform=["runpod"], region=None, as_json=as_json)


def _moved(verb: str, source: object, target: object, files: int, *, as_json: bool) -> None:
    if as_json:
        table.show_json({"source": str(source), "target": str(target), "files": files})
    else:
        typer.echo(f"{verb} {source} to {target}: {files} file{'s' * (files != 1)}")


def _hosts(market: str | None = None, image: str | None = None) -> RunpodHosts:
    from runctl import terminal
    from runctl.platforms.rented import Market
    from runctl.platforms.runpod import RunpodPlatform
    from runctl.platforms.runpod.options import IMAGE, RunpodConfig

    config = RunpodConfig(image=image or IMAGE, market=Market(market or "spot_then_on_demand"))
    return RunpodPlatform(Path.cwd(), config, terminal.tell).hosts()
