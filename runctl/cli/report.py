"""`runctl report`: a run, or several side by side, as one HTML file to look at and to send."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

import typer

from runctl.cli import table
from runctl.cli.reference import RUN_HELP, complete, run_of
from runctl.errors import ConfigError, MissingExtra, StorageError


def report(
    runs: list[str] = typer.Argument(..., help=RUN_HELP, metavar="RUN…", autocompletion=complete),
    output: Optional[Path] = typer.Option(
        None, "--output", "-o", help="Where to; without it <run id>.html, or report.html of several.", metavar="FILE"
    ),
    as_json: bool = typer.Option(False, "--json", help="Say where it lies, for programs."),
) -> None:
    """Write a run as one HTML file that opens without a network: metrics, speed, load, attempts, cost, code."""
    try:
        import plotly  # noqa: F401 (an optional part)
    except ImportError as error:
        raise MissingExtra("runctl report", "report") from error
    from runctl.report import record
    from runctl.report.page import page

    records = [record.read(run_of(word)) for word in dict.fromkeys(runs)]
    target = output or Path(f"{records[0].now.run_id}.html" if len(records) == 1 else "report.html")
    if target.is_dir():
        raise ConfigError(f"-o {target}: a folder; name a file in it")
    aside = target.with_name(f".tmp-{target.name}-{os.getpid()}")
    try:
        aside.write_text(page(records))
        aside.replace(target)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise StorageError(f"-o {target}: {error.strerror}; name another place with -o") from error
    size_bytes = target.stat().st_size
    if as_json:
        told = {"file": str(target.absolute()), "size_bytes": size_bytes, "runs": [one.now.run_id for one in records]}
        table.show_json(told)
    else:
        typer.echo(f"{target} ({size_bytes / 1e6:.1f} MB)")
