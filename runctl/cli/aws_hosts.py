"""`runctl aws create`, `list`, `train`, `monitor`, `exec`, `terminate`, `cleanup`: instances by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Optional

import typer

from runctl.cli import by_hand
from runctl.cli.aws import app

if TYPE_CHECKING:
    from runctl.platforms.aws.hosts import AwsHosts

__all__ = ["app"]

_REGION = typer.Option(None, "--region", help="Instead of the one of your AWS settings.", metavar="REGION")


@app.command()
def create(
    spot: bool = by_hand.SPOT,
    gpu: Optional[str] = by_hand.GPU,
    gpus: Optional[int] = by_hand.GPUS,
    instance_type: Optional[str] = typer.Option(None, "--type", help="Of the instance, such as g6.xlarge."),
    max_time: str = by_hand.MAX_TIME,
    no_fallback: bool = by_hand.NO_FALLBACK,
    region: Optional[str] = _REGION,
    as_json: bool = by_hand.JSON,
) -> None:
    """Rent an instance that belongs to no run; prints its id alone. It ends itself after --max-time."""
    from runctl.spec import Resources

    hosts = _hosts(region, instance_type, by_hand.market(spot=spot, no_fallback=no_fallback))
    by_hand.create(hosts, Resources(gpus=gpus, gpu=gpu), max_time, as_json=as_json)


@app.command("list")
def list_(region: Optional[str] = _REGION, as_json: bool = by_hand.JSON) -> None:
    """List the instances that runctl made and that live: price, age, time left, run."""
    by_hand.show(_hosts(region).living(), as_json=as_json)


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
    region: Optional[str] = _REGION,
) -> None:
    """Train on an instance that `create` made, with staging, checkpoints and resume; it stays afterwards.

    If AWS takes it back, the run goes on on one that is rented for it, and ends with it.
    """
    by_hand.train(
        _hosts(region), host, script, words or [], data=data_s3, output=output_s3, ddp=ddp, background=background,
        name=name, more=more or [],
    )  # fmt: skip


@app.command()
def monitor(
    host: str = by_hand.ID,
    follow: bool = typer.Option(False, "--follow", "-f", help="Go on until the run ends."),
    region: Optional[str] = _REGION,
    as_json: bool = by_hand.JSON,
) -> None:
    """Watch the training that is on an instance, or was last; as `runctl monitor` does."""
    from runctl.cli.monitor import monitor as watch

    watch(by_hand.last_run(_hosts(region), host), follow=follow, log=None, as_json=as_json)


@app.command("exec")
def exec_(
    host: str = by_hand.ID,
    command: list[str] = by_hand.COMMAND,
    timeout: str = by_hand.TIMEOUT,
    region: Optional[str] = _REGION,
) -> None:
    """Run a command on an instance through SSM: its output, as much as SSM keeps of it, and its exit code."""
    by_hand.execute(_hosts(region), host, command, timeout)


@app.command()
def terminate(
    hosts: list[str] = typer.Argument(..., metavar="ID…", help="Of instances that runctl made; others are refused."),
    region: Optional[str] = _REGION,
    as_json: bool = by_hand.JSON,
) -> None:
    """End instances, with their disks."""
    by_hand.terminate(_hosts(region), hosts, as_json=as_json)


@app.command()
def cleanup(
    dry_run: bool = typer.Option(False, "--dry-run", help="Only show what is left over; end nothing."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Ask no question."),
    region: Optional[str] = _REGION,
    as_json: bool = by_hand.JSON,
) -> None:
    """`runctl cleanup` of this platform alone: end what runs without a run that lives."""
    from runctl.cli.cleanup import cleanup as clean

    clean(dry_run=dry_run, yes=yes, platform=["aws"], region=[region] if region else None, as_json=as_json)


def _hosts(region: str | None, instance_type: str | None = None, market: str | None = None) -> AwsHosts:
    from runctl import terminal
    from runctl.platforms.aws import AwsPlatform
    from runctl.platforms.aws.options import AwsConfig
    from runctl.platforms.rented import Market

    config = AwsConfig(region=region, instance_type=instance_type, market=Market(market or "spot_then_on_demand"))
    return AwsPlatform(Path.cwd(), config, terminal.tell).hosts()
