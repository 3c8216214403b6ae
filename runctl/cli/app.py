"""The command `runctl`: its groups, and what becomes of errors."""

from __future__ import annotations

import sys

import typer

from runctl.cli import aws
from runctl.errors import ExitCode, RunctlError

app = typer.Typer(
    name="runctl",
    help="Look after launches and what they need. `runctl-launch` launches.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.add_typer(aws.app, name="aws")


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        from runctl import __version__

        typer.echo(f"runctl {__version__}")
        raise typer.Exit


def main() -> None:
    """The console script: runs a command, and exits with its code."""
    try:
        app()
    except RunctlError as error:
        sys.stderr.write(f"runctl: {error}\n")
        sys.exit(int(error.exit_code))
    except KeyboardInterrupt:
        sys.exit(int(ExitCode.USER_INTERRUPT))
