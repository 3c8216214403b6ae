"""The command `runctl`: its commands, and what becomes of errors.

A command's own module imports what it works with late, so that help and completion are there at once.
"""

from __future__ import annotations

import sys

import typer

from runctl import streams
from runctl.cli import (
    aws_hosts,
    checkpoint,
    cleanup,
    cost,
    doctor,
    extend,
    init,
    launching,
    logs,
    monitor,
    offers,
    ps,
    report,
    runpod,
    s3,
    shell,
    show,
    steer,
)

_RUNS, _MONEY, _ACCOUNTS = "Runs", "Money", "Places to run"

app = typer.Typer(
    name="runctl",
    help="See runs, steer them, pay for them and clean up after them. `runctl-launch` launches.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
for command in (
    ps.ps,
    show.show,
    logs.logs,
    monitor.monitor,
    report.report,
    steer.wait,
    steer.stop,
    extend.extend,
    show.diff,
    steer.rm,
    ps.reindex,
):
    app.command(rich_help_panel=_RUNS)(command)
app.command(rich_help_panel=_RUNS, cls=launching.Verbatim)(launching.launch)
app.command(rich_help_panel=_RUNS)(launching.local)
app.command(rich_help_panel=_RUNS)(launching.resume)
app.command(rich_help_panel=_RUNS)(shell.shell)
app.add_typer(checkpoint.app, name="checkpoint", rich_help_panel=_RUNS)
app.add_typer(s3.app, name="s3", rich_help_panel=_ACCOUNTS)
app.command(rich_help_panel=_MONEY)(cost.cost)
app.command(rich_help_panel=_MONEY)(cleanup.cleanup)
app.command(rich_help_panel=_MONEY)(offers.offers)
app.command(rich_help_panel=_ACCOUNTS)(doctor.doctor)
app.command(rich_help_panel=_ACCOUNTS)(init.init)
app.add_typer(aws_hosts.app, name="aws", rich_help_panel=_ACCOUNTS)
app.add_typer(runpod.app, name="runpod", rich_help_panel=_ACCOUNTS)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        from runctl import __version__

        typer.echo(f"runctl {__version__}")
        raise typer.Exit


def main() -> None:
    """The console script: runs a command, and exits with its code."""
    sys.exit(streams.run("runctl", app))
