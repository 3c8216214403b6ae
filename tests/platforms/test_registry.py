"""Platforms by kind: ours, those of installed plugins, and none that a configuration could name by class."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runctl.errors import ConfigError
from runctl.platforms import registry

PLUGIN = """
from runctl.platforms.local import LocalPlatform
class Tin(LocalPlatform):
    kind = "tin"
    def _plan(self, spec, quote, attempt):
        import dataclasses
        plan = super()._plan(spec, quote, attempt)
        return dataclasses.replace(plan, host="the tin host")
class Thing: pass
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with an installed plugin that brings the platform `tin`."""
    site = tmp_path / "site"
    info = site / "tin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tin\nVersion: 1.0\n")
    (site / "tin_platform.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "tin_platform", raising=False)
    declare(site, "tin = tin_platform:Tin")
    return site


def declare(site: Path, *entries: str) -> None:
    lines = ["[runctl.platforms]", *entries]
    (site / "tin-1.0.dist-info" / "entry_points.txt").write_text("\n".join(lines) + "\n")


def on_path(site: Path) -> str:
    """The value of PYTHONPATH that puts a folder before what is on it already."""
    return os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    project = tmp_path / "project"
    project.mkdir()
    (project / "train.py").write_text("print('trained')")

    def launched(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).parent / "runctl-launch"), "script=train.py", *words],
            cwd=project,
            env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "no-config"), **env},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    return launched


def test_ours_come_first_and_plugins_after_them(site: Path) -> None:
    assert registry.kinds() == ["local", "aws", "runpod", "tin"]
    assert registry.others() == ["tin"]
    assert registry.load("tin").kind == "tin"


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"platform\.kind=azure: no such platform; there are local, aws, runpod"):
        registry.load("azure")


def test_a_plugin_cannot_stand_in_for_one_of_ours(site: Path) -> None:
    declare(site, "local = tin_platform:Tin")
    assert registry.others() == []
    assert registry.load("local").__module__ == "runctl.platforms.local"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("tin = tin_platform:Thing", "is no Platform"),
        ("tin = tin_platform:Gone", "cannot be loaded: AttributeError"),
        ("tin = no_such_module:Tin", "cannot be loaded: ModuleNotFoundError"),
        ("can = tin_platform:Tin", r"Tin\.kind is 'tin'; it must be 'can'"),
    ],
)
def test_a_plugin_that_does_not_fit_is_named(site: Path, entry: str, said: str) -> None:
    declare(site, entry)
    with pytest.raises(ConfigError, match=said):
        registry.load(entry.split(maxsplit=1)[0])


def test_a_plugin_that_breaks_when_imported_is_named(site: Path) -> None:
    (site / "tin_platform.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match=r"platform tin \(tin_platform:Tin\) cannot be loaded: ZeroDivisionError"):
        registry.load("tin")


@pytest.mark.slow
def test_a_plugins_platform_is_chosen_by_its_name_alone(site: Path, launch: Callable) -> None:
    for word in ("platform=tin", "+platform=tin"):
        done = launch(word, "dry_run=true", PYTHONPATH=on_path(site))
        assert done.returncode == 0, done.stderr
        assert "the tin host" in done.stdout
    done = launch("platform=tin", PYTHONPATH=on_path(site))
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr


def test_a_project_may_set_a_plugins_platform_up(site: Path, launch: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "project/conf/runctl/platform"
    folder.mkdir(parents=True)
    (folder / "tin.yaml").write_text("kind: tin\nargs: {epochs: 50}\n")
    done = launch("platform=tin", "dry_run=true", PYTHONPATH=on_path(site))
    assert done.returncode == 0, done.stderr
    assert "--epochs=50" in done.stdout


def test_an_unknown_platform_on_the_command_line_names_the_known_ones(launch: Callable) -> None:
    done = launch("platform=awz")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "aws" in line and "local" in line and "runpod" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("aws", "platform=aws: there are no AWS credentials here"),
        ("runpod", "platform=runpod: there is no RunPod API key here"),
    ],
)
def test_what_cannot_be_launched_plans_and_explains_and_leaves_nothing(
    kind: str, why: str, launch: Callable, tmp_path: Path
) -> None:
    for words in (["dry_run=true"], ["explain=true"], ["dry_run=true", "output=json"]):
        done = launch(f"platform={kind}", "args.learning_rate=0.1", *words)
        assert done.returncode == 0, done.stderr
        assert "learning_rate" in done.stdout
    done = launch(f"platform={kind}")
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr.splitlines()[-1]
    assert sorted(path.name for path in (tmp_path / "project").iterdir()) == ["train.py"], "no run directory"
