"""`runctl report`: a run, or several side by side, as one HTML file to look at and to send."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Optional

import typer

from runctl.cli import table
from runctl.cli.reference import RUN_HELP, complete, run_of
from runctl.errors import ConfigError, MissingExtra, StorageError


def report(
    runs: list[str] = typer.Argument(
        ..., help=f"{RUN_HELP} A sweep's name is all of its runs.", metavar="RUN…", autocompletion=complete
    ),
    output: Optional[Path] = typer.Option(
        None,
        "--output",
        "-o",
        help="Where to; without it <run id>.html, of a sweep <name>.html, of several runs report.html.",
        metavar="FILE",
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
    from runctl.rundir import RunDir

    places = list(dict.fromkeys(place for word in runs for place in _meant(word)))
    records = [record.read(RunDir(place)) for place in places]
    alone = records[0].now.run_id if len(records) == 1 else runs[0] if len(runs) == 1 else "report"
    target = output or Path(f"{Path(alone).name}.html")
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


def _meant(word: str) -> list[str]:
    """Where the runs lie that are meant: one, or those of a sweep that have begun."""
    from runctl.registry import Registry
    from runctl.rundir import RunDir
    from runctl.storage import open_store

    registry = Registry()
    if word != "latest" and len(registry.named(word)) != 1:
        places = [word] if "/" in word else [f"{root}/sweeps/{word}" for root in [*registry.roots(), "runs"]]
        for place in places:
            data = open_store(place).read("sweep.json")
            if data is not None:
                found = [one["run_dir"] for one in json.loads(data)["jobs"]]
                begun = [one for one in found if RunDir(one).exists()]
                if not begun:
                    raise ConfigError(f"sweep {word}: none of its {len(found)} runs has begun")
                return begun
    return [run_of(word).url]
