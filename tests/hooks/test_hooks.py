"""Plugins: where they are found, in which order they act, and what becomes of their mistakes."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from runctl import hooks
from runctl.errors import HookFailed, PluginError, Vetoed
from runctl.hooks import BUILT_INS, Hooks
from runctl.outcome import Attempt
from runctl.spec import LaunchSpec, Program, RunIdentity

SPEC = LaunchSpec(RunIdentity("one", "one", "runs"), Program("train.py", None))
EVERY_HOOK = [
    "runctl_modify_spec", "runctl_before_submit", "runctl_attempt_started", "runctl_attempt_ended",
    "runctl_run_ended", "runctl_before_train", "runctl_notice",
    "runctl_milestone", "runctl_worker_started",
]  # fmt: skip


@pytest.fixture
def plug(tmp_path: Path) -> Callable[..., Hooks]:
    """Load a project whose runctl_plugins.py holds this text."""

    def load(text: str, *disabled: str) -> Hooks:
        (tmp_path / "runctl_plugins.py").write_text(text)
        return Hooks.load(tmp_path, disabled)

    return load


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """Install a distribution with one entry point of the group `runctl`."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def installed(name: str, module: str, text: str) -> None:
        (site / f"{module}.py").write_text(text)
        info = site / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[runctl]\n{name} = {module}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return installed


@pytest.fixture(autouse=True)
def installed_anew() -> Iterator[None]:
    """What is installed is looked up once in a process; a test that installs something is a process of its own."""
    hooks.installed.cache_clear()
    yield
    hooks.installed.cache_clear()


def names(hooks: Hooks) -> list[str]:
    return [plugin.name for plugin in hooks.plugins()]


def test_the_built_ins_go_through_the_same_manager(tmp_path: Path) -> None:
    found = {plugin.name: (plugin.source, plugin.hooks) for plugin in Hooks.load(tmp_path).plugins()}
    assert found["cost"] == ("built-in", ("runctl_attempt_ended",))
    assert found["provenance"] == ("built-in", ("runctl_attempt_started", "runctl_before_submit"))


def test_sources_come_in_order_built_in_entry_point_project(tmp_path: Path, install: Callable, plug: Callable) -> None:
    install("tracker", "my_tracker", "def runctl_run_ended(outcome): pass")
    hooks = plug("def runctl_run_ended(outcome): pass")
    assert names(hooks) == [*BUILT_INS, "tracker", "project"]
    assert [plugin.source for plugin in hooks.plugins()][len(BUILT_INS) :] == [
        "entry point my_tracker",
        "runctl_plugins.py",
    ]


def test_the_projects_plugins_beside_its_configuration_come_before_those_at_its_top(
    tmp_path: Path, plug: Callable
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "runctl_plugins.py").write_text("def runctl_run_ended(outcome): pass")
    (project,) = [p for p in plug("raise RuntimeError('not read')").plugins() if p.name == "project"]
    assert project.source == "conf/runctl_plugins.py"


def test_a_disabled_plugin_is_not_even_imported(plug: Callable) -> None:
    assert names(plug("raise RuntimeError", "project", "cost")) == [name for name in BUILT_INS if name != "cost"]


def test_disabling_a_plugin_that_is_not_there_names_those_that_are(plug: Callable) -> None:
    with pytest.raises(PluginError, match=f"no plugin costs; there are {', '.join(BUILT_INS)}, project"):
        plug("", "costs")


def test_two_plugins_of_one_name_are_an_error_that_names_both(tmp_path: Path, install: Callable) -> None:
    install("cost", "my_costs", "")
    with pytest.raises(PluginError, match="two plugins are called cost: built-in and entry point my_costs"):
        Hooks.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def x(:", "SyntaxError: .*line 1"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_named_with_the_way_out(plug: Callable, text: str, said: str) -> None:
    with pytest.raises(PluginError, match=rf"plugin project \(runctl_plugins\.py\).*{said}.*-p no:project"):
        plug(text)


def test_an_entry_point_that_cannot_be_loaded_is_named(tmp_path: Path, install: Callable) -> None:
    install("tracker", "broken_tracker", "raise RuntimeError('no key')")
    with pytest.raises(PluginError, match=r"plugin tracker \(entry point broken_tracker\).*no key.*-p no:tracker"):
        Hooks.load(tmp_path)


def test_a_mistyped_hook_names_the_known_ones(plug: Callable) -> None:
    with pytest.raises(PluginError, match=f"no hook is called runctl_run_end; there are {', '.join(EVERY_HOOK)}"):
        plug("def runctl_run_end(outcome): pass")


def test_a_function_marked_as_a_hook_under_another_name_is_an_error(plug: Callable) -> None:
    with pytest.raises(PluginError, match="unknown hook 'on_end'"):
        plug("import runctl\n@runctl.hookimpl\ndef on_end(outcome): pass")


def test_a_wrong_argument_names_those_that_there_are(plug: Callable) -> None:
    with pytest.raises(PluginError, match="cannot take outcom; it may take any of spec, outcome, rundir"):
        plug("def runctl_run_ended(spec, outcom): pass")


def test_any_part_of_the_arguments_will_do(plug: Callable) -> None:
    hooks = plug("def runctl_run_ended(outcome, extra=1): outcome.append(extra)")
    told: list[int] = []
    hooks.notify("runctl_run_ended", spec=SPEC, outcome=told, rundir=None)
    assert told == [1]


@pytest.mark.parametrize("option", ["wrapper", "hookwrapper"])
def test_hook_wrappers_are_refused(plug: Callable, option: str) -> None:
    with pytest.raises(PluginError, match="runctl_run_ended is a hook wrapper"):
        plug(f"import runctl\n@runctl.hookimpl({option}=True)\ndef runctl_run_ended(outcome): yield")


def test_each_plugin_sees_the_spec_as_the_one_before_left_it(plug: Callable, install: Callable) -> None:
    body = """
import dataclasses, runctl
{mark}
def runctl_modify_spec(spec, platform):
    return dataclasses.replace(spec, tags={{**spec.tags, "{name}": platform + str(len(spec.tags))}})
"""
    install("late", "late_plugin", body.format(mark="@runctl.hookimpl(trylast=True)", name="late"))
    install("middle", "middle_plugin", body.format(mark="", name="middle"))
    hooks = plug(body.format(mark="@runctl.hookimpl(tryfirst=True)", name="project"))
    assert hooks.modify_spec(SPEC, "p").tags == {"project": "p0", "middle": "p1", "late": "p2"}
    assert SPEC.tags == {}


def test_a_spec_that_is_none_is_left_as_it_is(plug: Callable) -> None:
    assert plug("def runctl_modify_spec(spec): pass").modify_spec(SPEC, "local") is SPEC


def test_something_else_than_a_spec_is_an_error_that_names_the_plugin(plug: Callable) -> None:
    with pytest.raises(HookFailed, match=r"runctl_modify_spec of plugin project.*returned {}, which is no LaunchSpec"):
        plug("def runctl_modify_spec(spec): return {}").modify_spec(SPEC, "local")


@pytest.mark.parametrize("act", ["1 / 0", "raise SystemExit(3)"])
def test_before_anything_is_submitted_an_exception_ends_the_launch(plug: Callable, act: str) -> None:
    hooks = plug(f"def runctl_before_submit(plan): {act}")
    with pytest.raises(HookFailed, match=r"runctl_before_submit of plugin project.*nothing was started.*no:project"):
        hooks.require("runctl_before_submit", spec=SPEC, plan=None)


def test_a_veto_passes_as_it_is(plug: Callable) -> None:
    with pytest.raises(Vetoed, match="too dear"):
        plug("import runctl\ndef runctl_before_submit(plan): raise runctl.Vetoed('too dear')").require(
            "runctl_before_submit", spec=SPEC, plan=None
        )


@pytest.mark.parametrize("act", ["1 / 0", "raise SystemExit(3)", "raise runctl.Vetoed('late')"])
def test_afterwards_a_failing_plugin_is_logged_once_and_off(
    plug: Callable, caplog: pytest.LogCaptureFixture, act: str
) -> None:
    text = f"import runctl\ndef runctl_attempt_ended(attempt): {act}\ndef runctl_run_ended(outcome): {act}"
    hooks = plug(text, "registry")  # which would have to look at a run
    attempt = Attempt(1, "local", "h", started_at=0.0, ended_at=3600.0)
    for _ in range(2):
        hooks.notify("runctl_attempt_ended", spec=SPEC, attempt=attempt, price_usd_per_hour=2.0, rates=None)
        hooks.notify("runctl_run_ended", spec=SPEC, outcome=None, rundir=None)
    (record,) = caplog.records
    assert record.getMessage().startswith("plugin project failed in runctl_attempt_ended and is off")
    assert attempt.cost_usd == 2.0, "the others go on"
    assert "project" not in names(hooks)


def test_plugins_can_be_objects(tmp_path: Path, install: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tracker:
        def runctl_modify_spec(self, spec: LaunchSpec) -> LaunchSpec:
            return dataclasses.replace(spec, tags={"tracker": "on"})

    install("tracker", "object_tracker", "")
    module = ModuleType("object_tracker")
    monkeypatch.setitem(sys.modules, "object_tracker", module)
    for entry in tmp_path.glob("site/*.dist-info/entry_points.txt"):
        entry.write_text("[runctl]\ntracker = object_tracker:instance\n")
    module.instance = Tracker()  # type: ignore[attr-defined]
    assert Hooks.load(tmp_path).modify_spec(SPEC, "local").tags == {"tracker": "on"}
