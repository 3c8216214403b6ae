"""`runctl launch`, `local` and `resume`: a run begun, or gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import typer
from typer.core import TyperCommand

from runctl.cli.reference import RUN_HELP, complete, entry_of, run_of
from runctl.errors import ConfigError


class Verbatim(TyperCommand):
    """A command that takes every word as it stands, also `--` and `--help`: they are another command's."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.args = args
        return args


def launch(ctx: typer.Context) -> None:
    """Launch a training: `runctl-launch` with the same words; runctl launch --help lists them."""
    from runctl.launch import launch as carry_out

    raise typer.Exit(carry_out(ctx.args))


def local(
    script: str = typer.Argument(..., metavar="SCRIPT", help="A Python file."),
    words: Optional[list[str]] = typer.Argument(None, metavar="[-- ARGS…]", help="The script's own."),
    ddp: bool = typer.Option(False, "--ddp", help="Under torchrun, one process for each GPU; rank 0 alone saves."),
    auto_upload_s3: bool = typer.Option(
        False, "--auto-upload-s3", help="Carry each checkpoint to the bucket that `runctl aws setup` made."
    ),
    as_json: bool = typer.Option(False, "--json", help="For programs: the outcome on the last line of stdout."),
) -> None:
    """Run a script on this machine: runctl-launch script=SCRIPT, with its checkpoints, logs and metrics."""
    from runctl.launch import launch as carry_out

    chosen = [*(["trainer=ddp"] if ddp else []), *(_uploaded() if auto_upload_s3 else [])]
    chosen += ["output=json"] if as_json else []
    if words:
        raise typer.Exit(carry_out([*chosen, "--", script, *words]))
    raise typer.Exit(carry_out([*chosen, f"script={quoted(script)}"]))


def resume(
    run: str = typer.Argument(..., help=RUN_HELP, metavar="RUN", autocompletion=complete),
    words: Optional[list[str]] = typer.Argument(
        None, metavar="[KEY=VALUE…]", help="What is otherwise than before, such as limits.max_time=2h or detach=true."
    ),
    here: bool = typer.Option(False, "--here", help="With the project in which you stand."),
    as_json: bool = typer.Option(False, "--json", help="For programs: the outcome on the last line of stdout."),
) -> None:
    """Go on with a run that was stopped, interrupted or failed, on this machine or as it was launched.

    Its launch again: the spec and the platform's options of its run directory, from its newest checkpoint, with the
    project from which it was launched; on another machine, with the one that its first launch sent to a rented host.
    """
    from runctl.resuming import resume as go_on

    entry = entry_of(run)
    known = Path(entry.project) if entry.project is not None else None
    project = Path.cwd() if here else known if known is not None and known.is_dir() else None
    more = ["output=json"] if as_json else []
    raise typer.Exit(go_on(run_of(entry.url), [*(words or []), *more], project=project))


def quoted(value: str) -> str:
    """A value as Hydra's grammar takes it, whatever is in it."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _uploaded() -> list[str]:
    from runctl.platforms import registry

    root = registry.load("aws").default_root()
    if "://" not in root:
        raise ConfigError(
            "--auto-upload-s3: no bucket is known here; `runctl aws setup` makes one, or name it yourself: "
            "runctl-launch script=… checkpoint.url=s3://my-bucket/runs"
        )
    return [f"checkpoint.url={quoted(root)}"]
