"""`runctl shell`: a shell where a run is."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import typer

from runctl.cli import table
from runctl.cli.reference import RUN_HELP, complete, entry_of, run_of
from runctl.errors import ConfigError


def shell(
    run: str = typer.Argument(
        ..., metavar="RUN|ID", autocompletion=complete, help=f"{RUN_HELP} Or the id of a host that `create` made."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the command that would be started; start nothing."),
    as_json: bool = typer.Option(False, "--json", help="For programs: that command as words; start nothing."),
) -> None:
    """Open a shell where a run is: through SSM, over SSH, or here in its working directory with its variables."""
    from runctl.platforms.hosts import noted

    host = noted(run)
    if "platform" in host:  # of one that is not ours only the run may be known that was sent there
        words = _hosts(str(host["platform"])).shell(run, "")
        env: dict[str, str] = {}
        folder = None
    else:
        words, env, folder = _of_run(run)
    if as_json:
        table.show_json({"argv": words, "env": env, "folder": str(folder) if folder is not None else None})
        return
    if dry_run:
        typer.echo(shlex.join(words))
        return
    if folder is not None:
        os.chdir(folder)
    os.execvpe(words[0], words, {**os.environ, **env})


def _of_run(run: str) -> tuple[list[str], dict[str, str], Path | None]:
    from runctl import standing

    entry = entry_of(run)
    rundir = run_of(entry.url)
    spec = rundir.read_spec()
    now = standing.look(rundir, spec)
    if now.platform == "local":
        if entry.project is None:
            raise ConfigError(f"{spec.run.id} was not launched on this machine, and runs on {now.host or 'another'}")
        folder = Path(entry.project)
        env = {
            "RUNCTL_RUN_ID": spec.run.id, "RUNCTL_RUN_NAME": spec.run.name, "RUNCTL_RUN_DIR": rundir.url,
            **spec.script_env(),
        }  # fmt: skip
        return [os.environ.get("SHELL") or "sh"], env, folder if folder.is_dir() else None
    submitted = rundir.submission(now.attempt)
    address = submitted[1].address if submitted is not None and submitted[1] is not None else {}
    if "instance" not in address:
        raise ConfigError(f"{spec.run.id} has no host yet ({now.state}); runctl logs -f {spec.run.id} follows it")
    region = address.get("region") if now.platform == "aws" else None
    hosts = _hosts(now.platform, region)
    return hosts.shell(str(address["instance"]), f"{spec.run.id}/a{now.attempt}/project"), {}, None


def _hosts(platform: str, region: str | None = None) -> Any:
    from runctl import terminal
    from runctl.platforms import registry

    kind = registry.load(platform)
    config = kind.options(kind=platform)
    if region is not None:
        config.region = region  # type: ignore[attr-defined]
    made: Any = kind(Path.cwd(), config, terminal.tell)
    return made.hosts()
