"""`runctl-launch`: from a command line to the outcome of a run.

The first thing a local launch does is to start its agent, which begins to import torchrun; Hydra is imported and
the configuration composed meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runctl.config.argv import CommandLine, parse
from runctl.config.files import ConfigFiles
from runctl.errors import ConfigError, ExitCode, NotBuiltYet, RunctlError

if TYPE_CHECKING:
    from runctl.config.schemas import LaunchConfig
    from runctl.config.sources import Source
    from runctl.hooks import Hooks
    from runctl.platforms.base import Platform
    from runctl.platforms.local import LocalAgent
    from runctl.rundir import RunDir
    from runctl.spec import LaunchSpec, Plan, RunHandle


def main() -> None:
    """The console script: launches, and exits with the launch's code."""
    try:
        code = launch(sys.argv[1:])
    except RunctlError as error:
        sys.stderr.write(f"runctl-launch: {error}\n")
        code = int(error.exit_code)
    except KeyboardInterrupt:
        code = int(ExitCode.USER_INTERRUPT)
    sys.stdout.flush()
    sys.exit(code)


def launch(argv: list[str]) -> int:
    """Carry out a command line.

    Returns:
        The exit code: 0, the training's own, or one of `ExitCode`; of several runs, the first that is not 0.

    Raises:
        RunctlError: for whatever the user should know and mend.
    """
    line = parse(argv)
    if line.wants_version:
        from runctl import __version__

        sys.stdout.write(f"runctl {__version__}\n")
        return 0
    workdir = Path.cwd()
    files = ConfigFiles.around(workdir)
    standby = _standby(line, files)
    try:
        return _Launch(line, workdir, files, standby).run()
    finally:
        if standby is not None:
            standby.dismiss()


def _standby(line: CommandLine, files: ConfigFiles) -> LocalAgent | None:
    """An agent that starts up while the configuration is composed, if this will launch here."""
    if not line.launches_here():
        return None
    from runctl.platforms.local import LocalAgent

    return LocalAgent(warm_torchrun=line.needs_torchrun([path for _, path, _ in files.labelled()]))


class _Launch:
    """One command line: one run, or under `-m` one after the other."""

    def __init__(self, line: CommandLine, workdir: Path, files: ConfigFiles, standby: LocalAgent | None) -> None:
        self._line = line
        self._workdir = workdir
        self._files = files
        self._standby = standby
        self._sources: list[Source] = []
        self._codes: list[int] = []
        self._error: Exception | None = None

    def run(self) -> int:
        """Have Hydra compose, and call `_job` once for each run."""
        import hydra

        from runctl.config import complaints, schemas, sources
        from runctl.platforms import registry

        schemas.register(registry.others())
        self._sources = sources.load(self._files)
        words = list(self._line.words)
        if self._line.wants_help:
            from runctl import usage

            sys.stdout.write(usage.text(self._files, registry.kinds()))
            words = [*(word for word in words if word not in ("-h", "--help")), "--cfg", "job"]
        scratch = tempfile.mkdtemp(prefix="runctl-sweep-") if {"-m", "--multirun"} & set(words) else None
        if scratch is not None and self._line.value_of("hydra.sweep.dir") is None:
            words.append(f"hydra.sweep.dir={scratch}")
        before, sys.argv = sys.argv, ["runctl-launch", *words]
        try:
            with _environment(HYDRA_FULL_ERROR="1"):  # Hydra raises instead of printing and exiting with 1
                hydra.main(config_path="pkg://runctl.conf", config_name="runctl", version_base="1.3")(self._job)()
        except complaints.ERRORS as error:
            raise complaints.translate(error) from error
        finally:
            sys.argv = before
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)
        if self._error is not None:
            raise self._error
        return next((code for code in self._codes if code != 0), 0)

    def _job(self, cfg: Any) -> None:
        """One composed configuration. An error is kept for after Hydra, which would add words of its own."""
        if self._error is None:
            with _environment(HYDRA_FULL_ERROR=None):
                try:
                    self._codes.append(self._launch_one(cfg))
                except Exception as error:  # noqa: BLE001 (raised again when Hydra is done)
                    self._error = error

    def _launch_one(self, cfg: Any) -> int:
        """Freeze and plan one configuration, and unless only the plan was asked for, carry it out."""
        from omegaconf import OmegaConf

        from runctl import terminal
        from runctl.config import compose
        from runctl.hooks import Hooks
        from runctl.platforms import registry

        drill = str(cfg.drill.name)
        if drill != "none" and cfg.platform.kind == "local":
            raise ConfigError(f"drill={drill}: a drill is for a platform that rents hosts, such as +platform=aws")
        checked = compose.checked(cfg, registry.options)
        hooks = Hooks.load(self._workdir, (*checked.plugins.disable, *self._line.disabled))
        if checked.plugins.list:
            terminal.show_plugins(hooks.plugins())
            return 0
        # A rehearsed launch goes to a bucket of the drill's, and knows nothing of the user's.
        if checked.run.root is None:
            checked.run.root = registry.load(checked.platform.kind).default_root() if drill == "none" else "runs"
        spec = compose.to_spec(checked, self._typed(), self._sources, self._workdir)
        if drill != "none" and not self._is_rehearsed():
            return self._rehearse(checked, spec)  # before anything looks for an account
        platform = self._platform(checked)
        spec = hooks.modify_spec(platform.completed(spec), platform.kind)
        return self._carry_out(checked, spec, platform, hooks, OmegaConf.to_yaml(cfg))

    def _carry_out(
        self, cfg: LaunchConfig, spec: LaunchSpec, platform: Platform, hooks: Hooks, config_yaml: str
    ) -> int:
        from runctl import terminal
        from runctl.scaling import describe

        as_json = cfg.output.value == "json"
        scaled = describe(platform.kind, spec.args)
        if scaled is not None:
            terminal.tell(scaled)
        if self._line.tail:
            terminal.tell("what stands behind -- is handed over verbatim and never scaled")
            if cfg.args and not spec.args:
                terminal.tell("args from files are left out: the script was named behind --")
        if cfg.explain and not as_json:
            terminal.show_arguments(spec.args)
        if cfg.explain and not cfg.dry_run and not as_json:
            return 0
        if cfg.dry_run or cfg.explain:
            plan = platform.plan(spec, platform.quote(spec), 1)
            if as_json:
                terminal.show_json(terminal.plan_json(plan, spec.args))
            else:
                terminal.show_plan(plan)
            return 0

        if cfg.smoke:
            from runctl import smoke
            from runctl.config import compose

            if cfg.detach:
                raise ConfigError("smoke=true with detach=true: a smoke run resumes what it has stopped, and must stay")
            run_id = compose.run_id(None, f"smoke-{spec.run.name}")
            return smoke.run(smoke.shortened(spec, run_id), platform, hooks, as_json=as_json)
        return self._run(cfg, spec, platform, hooks, config_yaml)

    def _run(self, cfg: LaunchConfig, spec: LaunchSpec, platform: Platform, hooks: Hooks, config_yaml: str) -> int:
        """Begin the run, or go on with the one that carries its name or id, and see it to its end."""
        from runctl import identity, terminal
        from runctl.rundir import RunDir, run_url
        from runctl.storage import check_place
        from runctl.supervisor import Supervisor

        as_json = cfg.output.value == "json"
        platform.check_ready(spec)
        RunDir.check(spec.run.root)
        if spec.checkpoint.url is not None:
            check_place("checkpoint.url", spec.checkpoint.url)
        key = identity.key_of(spec, with_args=self._line.is_multirun) if cfg.run.name and not cfg.run.id else None
        known = identity.known_run(spec.run.root, key) if key else None
        if known is not None:
            spec = identity.under_id(spec, known)
        rundir = RunDir(run_url(spec.run.root, spec.run.id))
        living = self._living(platform, rundir)
        if living is None:
            rundir.lease.check()
        earlier = rundir.attempts()
        if living is None and rundir.exists() and cfg.checkpoint.resume != "never":
            accept = cfg.run.changed.value == "accept"
            spec = identity.going_on(spec, rundir, earlier, platform.kind, accept=accept)
            if identity.finished(earlier) and not spec.checkpoint.resume.isdigit():
                terminal.tell(f"{spec.run.id} has finished: {rundir.url}")
                terminal.tell("checkpoint.resume=never runs it again from step 0, another run.name begins a new run")
                if as_json:
                    terminal.show_json(rundir.read_outcome() or {})
                return 0
            if identity.script_changed(spec, rundir):
                terminal.tell(f"{spec.program.script} has changed since this run was launched last")
        supervisor = Supervisor(
            spec, platform, hooks, rundir, terminal.tell, output=sys.stderr if as_json else sys.stdout
        )
        if living is not None:
            plan, handle = living
            outcome = supervisor.run(plan, found=handle)
        else:
            plan = supervisor.first_plan(1 + (earlier[-1].number if earlier else 0))
            if not platform.terms.rented:
                rundir.lease.take(os.getpid())  # the agent inherits it; until here nothing was written
            spec = platform.staged(spec)
            rundir.write_spec(spec)
            rundir.publish("config.yaml", config_yaml.encode())
            if key is not None and known is None:
                identity.remember(spec.run.root, key, spec.run.id)
            terminal.show_start(spec, plan)
            outcome = supervisor.run(plan, detach=cfg.detach)
        if outcome is None:
            terminal.show_left(spec, platform.kind)
            if as_json:
                terminal.show_json({"run_id": spec.run.id, "run_dir": rundir.url, "state": "running"})
            return 0
        terminal.show_outcome(outcome, rundir)
        if as_json:
            terminal.show_json(outcome.to_json())
        return outcome.exit_code

    def _living(self, platform: Platform, rundir: RunDir) -> tuple[Plan, RunHandle] | None:
        """An attempt that an earlier launch submitted and whose host lives: its plan, and where it is."""
        plan = rundir.last_submission() if platform.terms.rented else None
        if plan is None or plan.platform != platform.kind:
            return None
        record = rundir.read_attempt(plan.attempt)
        handle = None if record is not None and record.state.ended else platform.find(plan)
        return None if handle is None else (plan, handle)

    def _is_rehearsed(self) -> bool:
        """Whether this launch runs in the drill already."""
        from runctl.drill import rehearsal

        return rehearsal.is_inside(os.environ)

    def _rehearse(self, cfg: LaunchConfig, spec: LaunchSpec) -> int:
        """Have the same launch run in a cloud on loopback."""
        from runctl import terminal
        from runctl.drill import report, scenario
        from runctl.drill.rehearsal import Rehearsal
        from runctl.drill.stages import AwsStage, RunpodStage
        from runctl.durations import parse_duration_s
        from runctl.storage import check_place

        stages = {"aws": AwsStage, "runpod": RunpodStage}
        if cfg.platform.kind not in stages:
            raise NotBuiltYet(
                f"drill={cfg.drill.name}: this version rehearses +platform=aws and +platform=runpod alone"
            )
        if spec.environment.kind == "docker":
            raise NotBuiltYet(
                f"drill={cfg.drill.name}: its cloud is on loopback, which no container reaches; leave out "
                "python_env=docker, and this machine's Python trains"
            )
        words = [word for word in self._typed().overrides if not re.match(r"\+*(drill=|run\.(id|root)=)", word)]
        report_to = None if cfg.drill.report is None else Path(cfg.drill.report)
        if report_to is not None:
            check_place(report.PLACE, str(report_to.parent))
        disabled = [word for name in self._line.disabled for word in ("-p", f"no:{name}")]
        return Rehearsal(
            spec.run.id,
            stages[cfg.platform.kind](spec.run.root, cfg.drill.s3.value),
            words=[*disabled, *words],
            tail=self._line.tail,
            scenario=cfg.drill.name,
            events=scenario.events(cfg.drill.events),
            notice_s=parse_duration_s(cfg.drill.notice, "drill.notice"),
            report_to=report_to,
            tell=terminal.tell,
        ).run()

    def _typed(self) -> Any:
        from hydra.core.hydra_config import HydraConfig

        from runctl.config.compose import Typed

        return Typed(self._line, tuple(HydraConfig.get().overrides.task))

    def _platform(self, cfg: LaunchConfig) -> Platform:
        from runctl import terminal
        from runctl.config.compose import project_root
        from runctl.platforms import registry
        from runctl.platforms.local import LocalPlatform

        kind = registry.load(cfg.platform.kind)
        project_dir = project_root(self._workdir)
        attached = not (cfg.detach or (self._line.is_multirun and kind is not LocalPlatform))
        if kind is LocalPlatform:
            return LocalPlatform(
                project_dir,
                cfg.platform,
                terminal.tell,
                attached=attached,
                standby=self._standby,
                output_to_stderr=cfg.output.value == "json",
            )
        return kind(project_dir, cfg.platform, terminal.tell, attached=attached)


@contextlib.contextmanager
def _environment(**variables: str | None) -> Iterator[None]:
    """Set variables, or with None unset them, for a while."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
