"""`runctl show` and `runctl diff`: what a run was launched with, and what became of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from runctl.cli import table
from runctl.cli.reference import RUN_HELP, complete, run_of
from runctl.errors import ConfigError

if TYPE_CHECKING:
    from runctl.outcome import Attempt
    from runctl.rundir import RunDir
    from runctl.spec import LaunchSpec
    from runctl.standing import Standing

_RUN = typer.Argument(..., help=RUN_HELP, metavar="RUN", autocompletion=complete)
_JSON = typer.Option(False, "--json", help="For programs.")
_WIDTH = 12


def show(
    run: str = _RUN,
    config: bool = typer.Option(False, "--config", help="Only the effective configuration, as YAML."),
    patch: bool = typer.Option(False, "--patch", help="Only what the project had changed since its git commit."),
    as_json: bool = _JSON,
) -> None:
    """Show a run: its spec, its attempts and why each ended, the code it ran, what it cost."""
    from runctl import standing
    from runctl.encoding import to_data

    rundir = run_of(run)
    if config or patch:
        typer.echo(_configuration(rundir) if config else _patch(rundir), nl=False)
        return
    spec, now = rundir.read_spec(), standing.look(rundir)
    attempts, git = rundir.attempts(), _git(rundir)
    if as_json:
        told = {
            "run": now.to_json(), "spec": to_data(spec), "attempts": [to_data(one) for one in attempts], "git": git,
            "versions": _provenance(rundir, "versions.json"), "config": _configuration(rundir),
        }  # fmt: skip
        table.show_json(told)
        return
    _line("run", f"{now.run_id} · {now.name}" if now.name != now.run_id else now.run_id)
    _line("state", table.coloured(now.state, table.COLOURS.get(now.state)) + _how(now))
    words = " ".join(spec.script_words())
    _line("script", " ".join(filter(None, [now.script, words])))
    _line("trainer", spec.trainer.kind + ("" if spec.trainer.kind == "single" else f", {_ranks(spec)} on a host"))
    _line("progress", _progress(now))
    _line("metrics", " ".join(f"{name}={table.number(value)}" for name, value in now.metrics.items()))
    _line("checkpoints", ", ".join(f"step {step}" for step in now.checkpoints))
    _line("cost", f"{table.usd(now.cost_usd)} USD" if now.platform != "local" else "")
    _line("tags", " ".join(f"{name}={value}" for name, value in spec.tags.items()))
    _line("git", _commit(git))
    _line("run dir", rundir.url)
    typer.echo("")
    rows = [_attempt_row(one, now) for one in attempts]
    table.show_table(
        ("#", "STATE", "STEPS", "TIME", "USD", "WHERE", "WHY IT ENDED"), rows, shrink=(6, 5), spare=(5, 3), states=1
    )


def diff(
    one: str = typer.Argument(..., help=RUN_HELP, metavar="RUN", autocompletion=complete),
    other: str = typer.Argument(..., help="The run to compare it with.", metavar="RUN", autocompletion=complete),
    as_json: bool = _JSON,
) -> None:
    """Show where the effective configurations of two runs differ; exits with 1 if they do."""
    import yaml

    first, second = run_of(one), run_of(other)
    before, after = _flat(yaml.safe_load(_configuration(first))), _flat(yaml.safe_load(_configuration(second)))
    keys = [key for key in dict.fromkeys([*before, *after]) if before.get(key) != after.get(key)]
    differing = {key: [before.get(key), after.get(key)] for key in keys}
    if as_json:
        table.show_json(differing)
    elif differing:
        rows = [[key, _value(before, key), _value(after, key)] for key in differing]
        table.show_table(("KEY", _id(first), _id(second)), rows, shrink=(2, 1))
    else:
        typer.echo("Their effective configurations are the same.")
    if differing:
        raise typer.Exit(1)


def _ranks(spec: LaunchSpec) -> str:
    ranks = spec.trainer.nproc_per_node
    return f"{ranks} ranks" if isinstance(ranks, int) else f"as many ranks as it takes ({ranks})"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    parts = [_flat(one, f"{prefix}.{name}".lstrip(".")) for name, one in value.items()]
    return {key: leaf for part in parts for key, leaf in part.items()}


def _value(values: dict[str, Any], key: str) -> str:
    return json.dumps(values[key], ensure_ascii=False) if key in values else "–"


def _id(rundir: RunDir) -> str:
    return rundir.url.rsplit("/", 1)[-1]


def _configuration(rundir: RunDir) -> str:
    data = rundir.store.read("config.yaml")
    if data is None:
        raise ConfigError(f"{rundir.url} holds no config.yaml")
    return data.decode()


def _patch(rundir: RunDir) -> str:
    return (rundir.store.read("provenance/git.diff") or b"").decode(errors="replace")


def _provenance(rundir: RunDir, name: str) -> dict[str, Any]:
    data = rundir.store.read(f"provenance/{name}")
    told: dict[str, Any] = {} if data is None else json.loads(data)
    return told


def _git(rundir: RunDir) -> dict[str, Any]:
    return _provenance(rundir, "git.json")


def _commit(git: dict[str, Any]) -> str:
    if not git:
        return ""
    dirty = len(git.get("dirty_files", ()))
    changed = f", {dirty} file(s) changed since (runctl show --patch)" if dirty else ""
    return f"{git['commit'][:12]} on {git['branch']}{changed}"


def _how(now: Standing) -> str:
    if now.reason:
        return f": {now.reason}"
    if now.state == "lost":
        return f": nothing has been heard of it for {table.duration(now.looked_at - (now.heard_at or now.looked_at))}"
    return f" on {now.host}, heard {table.ago(now.heard_at, now.looked_at)}" if now.heard_at else ""


def _progress(now: Standing) -> str:
    if now.step is None:
        return ""
    parts = [f"step {now.step}" + (f" of {now.total_steps}" if now.total_steps else "")]
    if not now.ended and now.steps_per_s:
        parts.append(f"{table.number(now.steps_per_s)} steps/s")
    if now.eta_s is not None:
        parts.append(f"{table.duration(now.eta_s)} to go")
    return ", ".join(parts)


def _attempt_row(one: Attempt, now: Standing) -> list[str]:
    from runctl.standing import attempt_cost_usd, place_of

    begin = one.resumed_from_step or 0
    place = place_of(one.platform, one.market, one.host)
    return [
        str(one.number), one.state.value, "" if one.step is None else f"{begin}–{one.step}",
        table.duration((one.ended_at or now.billed_until) - one.started_at),
        table.usd(attempt_cost_usd(one, now.billed_until)) if one.market != "own" else "", place,
        (one.end_reason.splitlines() or [""])[0],
    ]  # fmt: skip


def _line(name: str, value: str) -> None:
    if value:
        typer.echo(f"{name:<{_WIDTH}} {value}")
