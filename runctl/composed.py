"""One composed configuration as a launch: its spec, its plugins, the platform that it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from runctl import identity, terminal
from runctl.config import compose
from runctl.config.argv import CommandLine
from runctl.config.checker import Checker
from runctl.config.platform import PlatformConfig
from runctl.config.schemas import LaunchConfig
from runctl.config.sources import Source
from runctl.durations import parse_duration_s
from runctl.errors import ConfigError, NotBuiltYet
from runctl.hooks import Hooks
from runctl.outcome import Attempt
from runctl.platforms import registry
from runctl.platforms.base import Berth, Platform
from runctl.platforms.local import LocalAgent, LocalPlatform
from runctl.signals import StopSignals
from runctl.spec import LaunchSpec

_SHORTEST_S = 60.0


@dataclass(frozen=True)
class Manner:
    """How a launch is carried out, besides what it says itself: alone before its user, or as one of several.

    Attributes:
        tell: takes lines for the user.
        output: takes what a rented host's ranks print; None for nobody.
        signals: which ask for a stop; None for those to this process.
        attended: whether whoever sits at the terminal may be asked.
        lines: takes, line by line, what an agent on this machine prints; None for our own streams.
        variables: what an agent on this machine gets besides our own environment.
        berth: where a rented host stays that several runs share; None for a host for each attempt.
        is_done: whether a run with such attempts is not to be gone on with.
    """

    tell: Callable[[str], None] = terminal.tell
    output: TextIO | None = None
    signals: StopSignals | None = None
    attended: bool = True
    lines: Callable[[str], None] | None = None
    variables: dict[str, str] = field(default_factory=dict)
    berth: Berth | None = None
    is_done: Callable[[list[Attempt]], bool] = identity.finished


@dataclass(frozen=True)
class Composed:
    """A launch, ready to be carried out.

    Attributes:
        cfg: the configuration, checked.
        spec: what it comes to.
        hooks: the active plugins.
        yaml: renders the configuration as it was composed.
        key: under which its run is found again; None for one that its id alone tells.
        swept: the words that it was composed from which differ between the jobs of a sweep, with this launch's value.
    """

    cfg: LaunchConfig
    spec: LaunchSpec
    hooks: Hooks
    yaml: Callable[[], str]
    key: str | None
    swept: tuple[str, ...]

    def as_run(self, run_id: str) -> Composed:
        """The same launch as a run of this id."""
        return replace(self, spec=identity.under_id(self.spec, run_id), key=None)


def keep_warm_s(cfg: LaunchConfig) -> float | None:
    """How long a rented host waits for the next launch; None if it does not.

    Raises:
        ConfigError: for a time that cannot be, and where nobody would be left to write down that it waits.
    """
    given = getattr(cfg.platform, "keep_warm", None)
    if given is None:
        return None
    if cfg.detach:
        raise ConfigError(
            f"platform.keep_warm={given} with detach=true: a launch that stays writes down where it waits"
        )
    seconds = parse_duration_s(given, "platform.keep_warm")
    if seconds < _SHORTEST_S:
        raise ConfigError(f"platform.keep_warm={given}: a minute or more; hosts count their own end in minutes")
    return seconds


def platform_of(cfg: LaunchConfig, project_dir: Path, manner: Manner, standby: LocalAgent | None = None) -> Platform:
    """The platform that a configuration names.

    Args:
        cfg: the configuration.
        project_dir: the root of the user's project on this machine.
        manner: how a launch is carried out on it.
        standby: an agent started ahead, or None.
    """
    kind = registry.load(cfg.platform.kind)
    if kind is LocalPlatform:
        return LocalPlatform(
            project_dir,
            cfg.platform,
            manner.tell,
            attached=not cfg.detach,
            standby=standby,
            output_to_stderr=cfg.output.value == "json",
            lines=manner.lines,
            variables=manner.variables,
        )
    platform = kind(project_dir, cfg.platform, manner.tell, attached=not cfg.detach)
    platform.berth = manner.berth
    return platform


class Composer:
    """Makes launches of configurations.

    Args:
        line: the command line.
        workdir: where the user stands.
        sources: the files that extend our configuration, the strongest first.
        standby: an agent started ahead, or None.
    """

    def __init__(self, line: CommandLine, workdir: Path, sources: list[Source], standby: LocalAgent | None) -> None:
        self._line = line
        self._workdir = workdir
        self._sources = sources
        self._standby = standby
        self._checker = Checker(registry.options)
        self._planner: tuple[PlatformConfig, Platform] | None = None

    def checked(self, cfg: Any) -> LaunchConfig:
        """The configuration as objects of the schema, with the place of runs that the platform has by default.

        Raises:
            ConfigError: for what cannot be.
        """
        checked = self._checker.checked(cfg)
        if checked.run.root is None:
            # A rehearsed launch goes to a bucket of the drill's, and knows nothing of the user's.
            rehearsed = checked.drill.name != "none"
            checked.run.root = "runs" if rehearsed else registry.load(checked.platform.kind).default_root()
        return checked

    def spec(self, cfg: LaunchConfig) -> LaunchSpec:
        """What a configuration comes to, before its platform and plugins have seen it.

        Raises:
            ConfigError: for the first thing that cannot be.
        """
        return compose.to_spec(cfg, self._typed(), self._sources, self._workdir)

    def hooks(self, cfg: LaunchConfig) -> Hooks:
        """The active plugins."""
        return Hooks.load(self._workdir, (*cfg.plugins.disable, *self._line.disabled))

    def launch(self, cfg: LaunchConfig, spec: LaunchSpec, hooks: Hooks, yaml: Callable[[], str]) -> Composed:
        """A launch, with what its platform and the plugins make of its spec.

        Raises:
            RunctlError: what they raise.
        """
        typed = self._typed()
        spec = hooks.modify_spec(self.planner(cfg).completed(spec), cfg.platform.kind)
        key = identity.key_of(spec) if cfg.run.name and not cfg.run.id else None
        swept = typed.swept() if self._line.is_multirun else ()
        return Composed(cfg, spec, hooks, yaml, key, swept)

    def planner(self, cfg: LaunchConfig) -> Platform:
        """A platform to plan with; launches that have the same one share it."""
        if self._planner is None or self._planner[0] != cfg.platform:
            self._planner = cfg.platform, self.platform(cfg, Manner())
        return self._planner[1]

    def platform(self, cfg: LaunchConfig, manner: Manner) -> Platform:
        """A platform to carry one launch out on.

        Args:
            cfg: the configuration.
            manner: how it is carried out.
        """
        if keep_warm_s(cfg) and not registry.load(cfg.platform.kind).has_berths:
            raise NotBuiltYet(
                f"platform.keep_warm={getattr(cfg.platform, 'keep_warm', None)}: on platform={cfg.platform.kind} this "
                "version keeps no host"
            )
        return platform_of(cfg, self.project_dir, manner, self._standby)

    @property
    def project_dir(self) -> Path:
        return compose.project_root(self._workdir)

    def _typed(self) -> compose.Typed:
        from hydra.core.hydra_config import HydraConfig

        return compose.Typed(self._line, tuple(HydraConfig.get().overrides.task))
