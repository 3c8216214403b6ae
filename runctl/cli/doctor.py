"""`runctl doctor`: what launches need, looked at, with what to do where something is missing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from runctl.errors import ExitCode

if TYPE_CHECKING:
    from runctl.platforms.aws.doctor import Finding


def doctor(as_json: bool = typer.Option(False, "--json", help="For programs.")) -> None:
    """Look at everything that launches need: here, and in the accounts whose credentials are here.

    Python, torch, GPUs, disks, clock, identity, quotas, rights, S3. Each with what to do; 1 if something is missing.
    """
    import itertools

    from runctl import checkup
    from runctl.cli.aws import line
    from runctl.encoding import to_data
    from runctl.platforms.aws.doctor import Health

    found: list[Finding] = []
    for one in itertools.chain(checkup.machine(), checkup.places()):
        found.append(one)
        if not as_json:
            line(one.health.value, one.what, one.said)
    missing = [one.what for one in found if one.health is Health.MISSING]
    if as_json:
        typer.echo(json.dumps([to_data(one) for one in found], ensure_ascii=False))
    elif missing:
        typer.echo(f"\nMissing: {', '.join(missing)}.")
    else:
        typer.echo("\nNothing is missing.")
    if missing:
        raise typer.Exit(int(ExitCode.FAILED))
