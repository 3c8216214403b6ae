"""`runctl init`: the files with which a project begins to use runctl."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import typer

from runctl.cli import table
from runctl.errors import ConfigError


def init(
    script: Optional[str] = typer.Argument(None, help="The training; without it, it is guessed.", metavar="[SCRIPT]"),
    as_json: bool = typer.Option(False, "--json", help="For programs."),
) -> None:
    """Write conf/runctl.yaml and runctl_plugins.py into this project, from what its scripts say.

    What is there already stays as it is.
    """
    from runctl import beginnings

    project = Path.cwd()
    if script is not None and not (project / script).is_file():
        raise ConfigError(f"{script}: there is no such file in {project}")
    about = beginnings.guess(project) if script is None else beginnings.of_script(project, script)
    if about.script is None:
        raise ConfigError(
            f"no training was found in {project}: name it, as in `runctl init train.py`, or go to the project's folder"
        )
    made: list[str] = []
    there: list[str] = []
    for name, text in (
        ("conf/runctl.yaml", beginnings.configuration(about)),
        ("runctl_plugins.py", beginnings.PLUGINS),
    ):
        (made if _is_new(project / name, text) else there).append(name)
    if as_json:
        table.show_json({"script": about.script, "others": list(about.others), "trainer": about.trainer,
                         "made": made, "there_already": there})  # fmt: skip
        return
    _tell(about.script, about.others, about.trainer, about.why, named=script is not None)
    for name in made:
        typer.echo(f"wrote {name}")
    for name in there:
        typer.echo(f"{name} is there already, and stays as it is")
    typer.echo("\nNext: runctl-launch dry_run=true shows what would be launched; runctl-launch launches it here.")


def _is_new(path: Path, text: str) -> bool:
    """Write a file; False for one that is there, which stays as it is."""
    try:
        if path.exists():
            return False
        if not path.parent.is_dir():
            path.parent.mkdir()
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.filename}: {error.strerror}") from error
    return True


def _tell(script: str, others: tuple[str, ...], trainer: str, why: str, *, named: bool) -> None:
    guessed = "" if named else " (a guess"
    if others and not named:
        guessed += f"; it might be {', '.join(others)}"
    typer.echo(f"script: {script}{guessed}{')' * (not named)}")
    typer.echo(f"trainer: {trainer} ({why})")
