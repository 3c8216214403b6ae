"""`runctl-launch`: from a command line to the outcome of a run, or under `-m` of many.

The first thing a local launch does is to start its agent, which begins to import torchrun; Hydra is imported and
the configuration composed meanwhile.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runctl import streams
from runctl.config.argv import CommandLine, parse
from runctl.config.files import ConfigFiles
from runctl.errors import ConfigError, NotBuiltYet, StorageError
from runctl.variables import changed

if TYPE_CHECKING:
    from runctl.composed import Composed, Composer
    from runctl.config.schemas import LaunchConfig
    from runctl.platforms.base import Platform
    from runctl.platforms.local import LocalAgent
    from runctl.spec import LaunchSpec
    from runctl.sweeps.sweep import Sweep


def main() -> None:
    """The console script: launches, and exits with the launch's code."""
    sys.exit(streams.run("runctl-launch", lambda: launch(sys.argv[1:])))


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
    """One command line: one run, or under `-m` a sweep of them."""

    def __init__(self, line: CommandLine, workdir: Path, files: ConfigFiles, standby: LocalAgent | None) -> None:
        self._line = line
        self._workdir = workdir
        self._files = files
        self._standby = standby
        self._composer: Composer
        self._sweep: Sweep | None = None
        self._told_of: set[str] = set()
        self._plans: list[dict[str, Any]] = []
        self._code = 0
        self._error: Exception | None = None

    def run(self) -> int:
        """Have Hydra compose, and call `_job` once for each run."""
        import hydra

        from runctl.composed import Composer
        from runctl.config import complaints, schemas, sources
        from runctl.platforms import registry

        schemas.register(registry.others())
        self._composer = Composer(self._line, self._workdir, sources.load(self._files), self._standby)
        words = list(self._line.words)
        if self._line.wants_help:
            from runctl import usage

            sys.stdout.write(usage.text(self._files, registry.kinds()))
            words = [*(word for word in words if word not in ("-h", "--help")), "--cfg", "job"]
        scratch = None
        if self._line.is_multirun:
            from runctl.sweeps import launcher
            from runctl.sweeps.notes import Notes
            from runctl.sweeps.sweep import Sweep

            scratch = tempfile.mkdtemp(prefix="runctl-sweep-")
            self._sweep = Sweep(self._composer, self._ready, Notes(Path(scratch)))
            launcher.register(self._sweep)
            if self._line.value_of("hydra.sweep.dir") is None:
                words.append(f"hydra.sweep.dir={scratch}")
        before, sys.argv = sys.argv, ["runctl-launch", *words]
        try:
            with changed(HYDRA_FULL_ERROR="1"):  # Hydra raises instead of printing and exiting with 1
                hydra.main(config_path="pkg://runctl.conf", config_name="runctl", version_base="1.3")(self._job)()
            if self._error is not None:
                raise self._error
            self._show_plans()
            return self._code if self._sweep is None else self._sweep.finish()
        except KeyboardInterrupt:
            if self._sweep is None:
                raise
            return self._sweep.finish()
        except complaints.ERRORS as error:
            # A sweeper complains, too, when no job left a value for it to go on with: what the jobs came to says it.
            if self._sweep is not None and ((code := self._sweep.finish()) != 0 or self._sweep.rehearsed):
                return code
            raise complaints.translate(error) from error
        finally:
            sys.argv = before
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)

    def _job(self, cfg: Any) -> Any:
        """One composed configuration: the whole launch. An error is kept for after Hydra, which would add words.

        Returns:
            Under a launcher of another's in a sweep, the value of the job.
        """
        with changed(HYDRA_FULL_ERROR=None):
            if self._sweep is not None:
                value = self._sweep.carry_out_here(cfg)
                self._show_plans()  # those of other processes would not come back
                return value
            try:
                ready = self._ready(cfg)
                self._code = ready if isinstance(ready, int) else self._carry_out(ready)
            except Exception as error:  # noqa: BLE001 (raised again when Hydra is done)
                self._error = error
        return None

    def _ready(self, cfg: Any) -> Composed | int:
        """Freeze one configuration, and do what it asks for short of a run; or else a launch to be carried out."""
        from omegaconf import OmegaConf

        from runctl import terminal

        drill = str(cfg.drill.name)
        if drill != "none" and cfg.platform.kind == "local":
            raise ConfigError(f"drill={drill}: a drill is for a platform that rents hosts, such as +platform=aws")
        composer = self._composer
        checked = composer.checked(cfg)
        hooks = composer.hooks(checked)
        if checked.plugins.list:
            terminal.show_plugins(hooks.plugins(), as_json=checked.output.value == "json")
            return 0
        spec = composer.spec(checked)
        if drill != "none" and not self._is_rehearsed():
            code = self._rehearse(checked, spec)  # before anything looks for an account
            if self._sweep is not None:
                self._sweep.rehearsed = True  # with all of its jobs
            return code
        launch = composer.launch(checked, spec, hooks, lambda: OmegaConf.to_yaml(cfg))
        told = self._told(launch)
        return launch if told is None else told

    def _told(self, launch: Composed) -> int | None:
        """Say what there is to say before a run; the exit code if nothing else is wanted."""
        from runctl import terminal
        from runctl.hosts import secrets
        from runctl.scaling import describe

        cfg, spec = launch.cfg, launch.spec
        as_json = cfg.output.value == "json"
        scaled = describe(cfg.platform.kind, spec.args)
        # Jobs of a sweep are told of once: it is the same of all that run on one platform, but for the values.
        first = cfg.platform.kind not in self._told_of
        self._told_of.add(cfg.platform.kind)
        if scaled is not None and first:
            terminal.tell(scaled)
        if self._line.tail and first:
            terminal.tell("what stands behind -- is handed over verbatim and never scaled")
            if cfg.args and not spec.args:
                terminal.tell("args from files are left out: the script was named behind --")
        try:
            secrets.check(spec.secrets, os.environ)
        except ConfigError as error:
            if not cfg.dry_run and not cfg.explain:
                raise
            if first:
                terminal.tell(f"{error}; the launch itself needs it")
        if cfg.explain and not as_json:
            terminal.show_arguments(spec.args)
        if cfg.explain and not cfg.dry_run and not as_json:
            return 0
        if cfg.dry_run or cfg.explain:
            platform = self._composer.planner(cfg)
            attempt = 1
            if self._sweep is None:  # jobs have ids of their own
                spec, attempt = self._foreseen(launch, platform)
            plan = platform.plan(spec, platform.quote(spec), attempt)
            if as_json:
                self._plans.append(terminal.plan_json(plan, spec.args))
                if self._sweep is None:
                    self._show_plans()
            else:
                terminal.show_plan(plan)
            return 0
        return self._try_out(launch) if cfg.smoke else None

    def _foreseen(self, launch: Composed, platform: Platform) -> tuple[LaunchSpec, int]:
        """What would be carried out, and the number of its attempt; of a run that exists it is told."""
        from runctl import terminal
        from runctl.carrying import foreseen

        try:
            spec, attempt, done = foreseen(launch, platform)
        except StorageError as error:  # a plan needs no storage that answers
            terminal.tell(f"whether this run exists is not known: {error}")
            return launch.spec, 1
        if done:
            terminal.tell(f"{spec.run.id} has finished: the launch would start nothing")
        elif attempt > 1:
            terminal.tell(f"{spec.run.id} exists: this would be its attempt {attempt}")
        return spec, attempt

    def _show_plans(self) -> None:
        """Those for programs, in one object: the one, or under `-m` those of all jobs."""
        from runctl import terminal

        if self._plans:
            all_of_them = {"schema": self._plans[0]["schema"], "plans": self._plans}
            terminal.show_json(self._plans[0] if self._sweep is None else all_of_them)
            self._plans = []

    def _try_out(self, launch: Composed) -> int:
        """A launch proved before it is long."""
        from runctl import smoke
        from runctl.composed import Manner
        from runctl.config import compose

        cfg, spec = launch.cfg, launch.spec
        if cfg.detach:
            raise ConfigError("smoke=true with detach=true: a smoke run resumes what it has stopped, and must stay")
        run_id = compose.run_id(None, f"smoke-{spec.run.name}")
        platform = self._composer.platform(cfg, Manner())
        return smoke.run(smoke.shortened(spec, run_id), platform, launch.hooks, as_json=cfg.output.value == "json")

    def _carry_out(self, launch: Composed) -> int:
        """The one run of this launch."""
        from runctl import terminal
        from runctl.carrying import carry_out_alone

        as_json = launch.cfg.output.value == "json"
        carried = carry_out_alone(launch, self._composer)
        if as_json:
            try:
                terminal.show_json(carried.to_json())
            except OSError:  # what the training came to is no other for that
                if carried.outcome is not None:
                    terminal.tell(f"the outcome stands in {carried.url}/outcome.json")
        return carried.exit_code

    def _is_rehearsed(self) -> bool:
        """Whether this launch runs in the drill already."""
        from runctl.drill import rehearsal

        return rehearsal.is_inside(os.environ)

    def _rehearse(self, cfg: LaunchConfig, spec: LaunchSpec) -> int:
        """Have the same launch run in a cloud on loopback."""
        from hydra.core.hydra_config import HydraConfig

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
        sweeps = self._sweep is not None
        given = self._line.words if sweeps else HydraConfig.get().overrides.task
        words = [word for word in given if not re.match(r"\+*(drill=|run\.(id|root)=|platform\.keep_warm=)", word)]
        if getattr(cfg.platform, "keep_warm", None) is not None:
            terminal.tell("platform.keep_warm is left out: no launch comes after it in the drill's cloud")
            words.append("platform.keep_warm=null")
        report_to = None if cfg.drill.report is None else Path(cfg.drill.report)
        if report_to is not None:
            check_place(report.PLACE, str(report_to.parent))
        disabled = [word for name in self._line.disabled for word in ("-p", f"no:{name}")]
        return Rehearsal(
            None if sweeps else spec.run.id,
            stages[cfg.platform.kind](spec.run.root, cfg.drill.s3.value),
            sweep=f"sweeps/{spec.run.name}",
            words=[*disabled, *words],
            tail=self._line.tail,
            scenario=cfg.drill.name,
            events=scenario.events(cfg.drill.events),
            notice_s=parse_duration_s(cfg.drill.notice, "drill.notice"),
            report_to=report_to,
            tell=terminal.tell,
        ).run()
