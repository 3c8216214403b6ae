"""Hook specifications and the plugin manager: what observes or adjusts a launch, as in pytest.

A plugin is a module or an object with functions named `runctl_…`; no decorator is needed. Sources, in order:
built-ins, the entry-point group `runctl`, and the project's own `runctl_plugins.py`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from runctl.errors import HookFailed, PluginError, RunctlError
from runctl.spec import LaunchSpec

if TYPE_CHECKING:
    from runctl.cost import Rates
    from runctl.outcome import Attempt, Outcome
    from runctl.rundir import RunDir
    from runctl.spec import Plan

PREFIX = "runctl_"
ENTRY_POINTS = "runctl"
PROJECT_FILE = "runctl_plugins.py"
BUILT_INS = {
    "provenance": "runctl.plugins.provenance",
    "cost": "runctl.plugins.cost",
    "budget": "runctl.plugins.budget",
    "registry": "runctl.plugins.registry",
    "notify": "runctl.plugins.notify",
}

hookspec = pluggy.HookspecMarker("runctl")
#: Options for a hook function, as in pytest: `@runctl.hookimpl(tryfirst=True)`. Not needed otherwise.
hookimpl = pluggy.HookimplMarker("runctl")

_log = logging.getLogger(__name__)


class LauncherHooks:
    """Called in the launcher, in this order."""

    @hookspec
    def runctl_modify_spec(self, spec: LaunchSpec, platform: str) -> LaunchSpec | None:
        """Return a changed spec (`dataclasses.replace`), or None to leave it."""

    @hookspec
    def runctl_before_submit(self, spec: LaunchSpec, plan: Plan) -> None:
        """The last look before anything is started. Raise `runctl.Vetoed` to stop the launch."""

    @hookspec
    def runctl_attempt_started(self, spec: LaunchSpec, attempt: Attempt, rundir: RunDir) -> None:
        """An attempt was submitted."""

    @hookspec
    def runctl_attempt_ended(
        self, spec: LaunchSpec, attempt: Attempt, price_usd_per_hour: float | None, rates: Rates | None
    ) -> None:
        """An attempt ended; `attempt` may be filled in further (the cost book does)."""

    @hookspec
    def runctl_run_ended(self, spec: LaunchSpec, outcome: Outcome, rundir: RunDir) -> None:
        """The run ended, whatever its outcome."""


class HostHooks:
    """Called in the agent, on the host."""

    @hookspec
    def runctl_before_train(self, spec: LaunchSpec, attempt: int, rundir: RunDir) -> None:
        """The attempt is about to start its ranks."""

    @hookspec
    def runctl_notice(self, spec: LaunchSpec, attempt: int, kind: str, at: float) -> None:
        """This host is about to be taken away (`kind` is `interruption`), or likelier to be (`rebalance`).

        `at` is when (seconds since the epoch); of a `rebalance`, when it was said. The stop for an interruption has
        begun already; this is called in a thread beside it.
        """

    @hookspec
    def runctl_milestone(
        self, spec: LaunchSpec, attempt: int, kind: str, about: dict[str, Any], secrets: dict[str, str]
    ) -> None:
        """Something that people want to know of: `kind` is one of `runctl.milestones.KINDS`.

        `about` tells of it (`step`, `host`, `reason`, …), `secrets` has the values of what `notify` names. Called in a
        thread beside the training, one after the other; at the attempt's end it is waited for ten seconds at most.
        """


class WorkerHooks:
    """Called in each rank's process."""

    @hookspec
    def runctl_worker_started(self, rank: int, world_size: int) -> None:
        """The rank is about to become the script."""


_SPECS = (LauncherHooks, HostHooks, WorkerHooks)


@dataclass(frozen=True)
class PluginInfo:
    """A row of `plugins.list=true`."""

    name: str
    source: str
    hooks: tuple[str, ...]


class _Manager(pluggy.PluginManager):
    """A plugin manager for which a name that begins with `runctl_` is a hook, marked or not."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        opts = super().parse_hookimpl_opts(plugin, name)
        if opts is not None or not name.startswith(PREFIX):
            return opts
        if not inspect.isroutine(getattr(plugin, name, None)):
            return None
        return {
            "wrapper": False, "hookwrapper": False, "optionalhook": False,
            "tryfirst": False, "trylast": False, "specname": None,
        }  # fmt: skip


class Hooks:
    """The active plugins of one launch, and the two ways to call them."""

    def __init__(self, manager: pluggy.PluginManager, sources: dict[str, str]) -> None:
        self._manager = manager
        self._sources = sources

    @classmethod
    def load(cls, project_dir: Path, disabled: Sequence[str] = ()) -> Hooks:
        """Find, import and check the plugins.

        Args:
            project_dir: where the project's own `runctl_plugins.py` is looked for: in its `conf` folder
                beside `runctl.yaml`, or at its top.
            disabled: names of plugins to leave out.

        Raises:
            PluginError: for a plugin that cannot be imported, an unknown name among `disabled`, two plugins
                of one name, or a hook that does not exist.
        """
        manager = _Manager("runctl")
        for spec in _SPECS:
            manager.add_hookspecs(spec)
        found: dict[str, tuple[str, Callable[[], object]]] = {}
        for name, source, load in _candidates(project_dir):
            if name in found:
                raise PluginError(
                    f"two plugins are called {name}: {found[name][0]} and {source}; uninstall one of them"
                )
            found[name] = source, load
        unknown = sorted(set(disabled) - set(found))
        if unknown:
            raise PluginError(f"plugins.disable: no plugin {', '.join(unknown)}; there are {', '.join(found)}")
        for name, (source, load) in found.items():
            if name in disabled:
                continue
            try:
                plugin = load()
            except Exception as error:
                raise PluginError(
                    f"plugin {name} ({source}) cannot be loaded: {type(error).__name__}: {error}; "
                    f"mend it, or turn it off with -p no:{name}"
                ) from error
            _registered(manager, plugin, name, source)
        return cls(manager, {name: source for name, (source, _) in found.items()})

    def plugins(self) -> list[PluginInfo]:
        """The active plugins, in the order in which they were found."""
        return [
            PluginInfo(name, self._sources[name], tuple(sorted(_hook_names(plugin))))
            for name, plugin in self._manager.list_name_plugin()
            if plugin is not None
        ]

    def implemented(self, hook: str) -> bool:
        """Whether any active plugin implements the hook."""
        return bool(getattr(self._manager.hook, hook).get_hookimpls())

    def require(self, hook: str, **kwargs: Any) -> None:
        """Call a hook before anything is submitted: an exception ends the launch.

        Raises:
            HookFailed: naming hook and plugin; a `RunctlError`, such as a veto, passes unchanged.
        """
        for impl in self._impls(hook):
            self._require_one(impl, hook, kwargs)

    def modify_spec(self, spec: LaunchSpec, platform: str) -> LaunchSpec:
        """The spec after every plugin's `runctl_modify_spec`, each seeing what the one before made of it."""
        hook = "runctl_modify_spec"
        for impl in self._impls(hook):
            changed = self._require_one(impl, hook, {"spec": spec, "platform": platform})
            if changed is not None and not isinstance(changed, LaunchSpec):
                raise self._failed(impl, hook, f"returned {changed!r}, which is no LaunchSpec")
            spec = changed or spec
        return spec

    def notify(self, hook: str, **kwargs: Any) -> None:
        """Call a hook once something runs: a plugin that raises is logged and turned off, the run goes on."""
        for impl in self._impls(hook):
            try:
                _call(impl, kwargs)
            except (Exception, SystemExit):  # noqa: BLE001 (a notification must not kill a run)
                _log.exception("plugin %s failed in %s and is off for the rest of this run", impl.plugin_name, hook)
                self._manager.unregister(name=impl.plugin_name)

    def _impls(self, hook: str) -> list[pluggy.HookImpl]:
        # pluggy keeps them in reverse order of calling.
        return list(reversed(getattr(self._manager.hook, hook).get_hookimpls()))

    def _require_one(self, impl: pluggy.HookImpl, hook: str, kwargs: dict[str, Any]) -> Any:
        try:
            return _call(impl, kwargs)
        except RunctlError:
            raise
        except (Exception, SystemExit) as error:
            raise self._failed(impl, hook, f"raised {type(error).__name__}: {error}") from error

    def _failed(self, impl: pluggy.HookImpl, hook: str, what: str) -> HookFailed:
        name = impl.plugin_name
        return HookFailed(
            f"{hook} of plugin {name} ({self._sources[name]}) {what}; nothing was started. "
            f"Mend it, or turn the plugin off with -p no:{name}"
        )


def _call(impl: pluggy.HookImpl, kwargs: dict[str, Any]) -> Any:
    return impl.function(**{name: kwargs[name] for name in impl.argnames})


def _registered(manager: pluggy.PluginManager, plugin: object, name: str, source: str) -> None:
    """Register a plugin whose every `runctl_…` function is a known hook with known arguments."""
    known = {
        hook: [argument for argument in inspect.signature(function).parameters if argument != "self"]
        for spec in _SPECS
        for hook, function in vars(spec).items()
        if hook.startswith(PREFIX)
    }
    for hook in _hook_names(plugin):
        if hook not in known:
            raise PluginError(f"plugin {name} ({source}): no hook is called {hook}; there are {', '.join(known)}")
        wrong = [
            parameter.name
            for parameter in inspect.signature(getattr(plugin, hook)).parameters.values()
            # pluggy hands over neither what has a default nor **kwargs.
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            and parameter.default is parameter.empty
            and parameter.name not in known[hook]
        ]
        if wrong:
            raise PluginError(
                f"plugin {name} ({source}): {hook} cannot take {', '.join(wrong)}; it may take any of "
                f"{', '.join(known[hook])}"
            )
    try:
        manager.register(plugin, name)
        manager.check_pending()  # a function marked as a hook under a name of its own
    except pluggy.PluginValidationError as error:
        reason = str(error).splitlines()[-1]
        raise PluginError(f"plugin {name} ({source}): {reason}") from error
    for caller in manager.get_hookcallers(plugin) or ():
        for impl in caller.get_hookimpls():
            if impl.plugin is plugin and (impl.wrapper or impl.hookwrapper):
                raise PluginError(f"plugin {name} ({source}): {caller.name} is a hook wrapper; runctl has none")


def _hook_names(plugin: object) -> list[str]:
    return [name for name in dir(plugin) if name.startswith(PREFIX) and inspect.isroutine(getattr(plugin, name))]


def _candidates(project_dir: Path) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """Name, source and loader of every plugin there is, built-ins first."""
    for name, module in BUILT_INS.items():
        yield name, "built-in", functools.partial(importlib.import_module, module)
    for entry in installed():
        yield entry.name, f"entry point {entry.value}", entry.load
    for file in (project_dir / "conf" / PROJECT_FILE, project_dir / PROJECT_FILE):
        if file.is_file():
            yield "project", str(file.relative_to(project_dir)), functools.partial(_module_from, file)
            return


@functools.cache
def installed() -> importlib.metadata.EntryPoints:
    """The entry points of installed plugins, looked up once: every launch of a sweep asks, and looking takes 20 ms."""
    return importlib.metadata.entry_points(group=ENTRY_POINTS)


def _module_from(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("runctl_plugins", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["runctl_plugins"] = module
    spec.loader.exec_module(module)
    return module
