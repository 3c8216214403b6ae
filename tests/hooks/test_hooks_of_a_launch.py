"""Plugins in whole launches: launcher, agent and ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runctl.hooks import BUILT_INS

Launch = Callable[..., "subprocess.CompletedProcess[str]"]
#: Every hook writes a line: its name, its process, and what it was told.
DIARY = """
import os
from pathlib import Path
def note(*words):
    with Path("diary").open("a") as file:
        print(*words, file=file)
def runctl_modify_spec(spec, platform): note("runctl_modify_spec", platform)
def runctl_before_submit(spec, plan): note("runctl_before_submit", plan.attempt)
def runctl_attempt_started(spec, attempt, rundir): note("runctl_attempt_started", attempt.number)
def runctl_attempt_ended(spec, attempt, price_usd_per_hour): note("runctl_attempt_ended", attempt.state.value)
def runctl_run_ended(spec, outcome, rundir): note("runctl_run_ended", outcome.state.value)
"""
ON_THE_HOST = """
def runctl_before_train(spec, attempt, rundir):
    rundir.publish("before_train.txt", f"{spec.run.id} attempt {attempt}".encode())
def runctl_worker_started(rank, world_size):
    print("plugin in rank", rank, "of", world_size, flush=True)
"""
DDP = "import os; print('rank', os.environ['RANK'], 'runs', flush=True)"


def on_path(site: Path) -> str:
    """The value of PYTHONPATH that puts a folder before what is on it already."""
    return os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    def launched(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).parent / "runctl-launch"), *words],
            cwd=tmp_path,
            env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "no-config"), **env},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    (tmp_path / "train.py").write_text("print('trained', flush=True)")
    return launched


def plugins(project: Path, text: str) -> None:
    (project / "runctl_plugins.py").write_text(text)


def test_the_launchers_hooks_are_called_in_their_order(tmp_path: Path, launch: Launch) -> None:
    plugins(tmp_path, DIARY)
    done = launch("script=train.py")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "diary").read_text().splitlines() == [
        "runctl_modify_spec local", "runctl_before_submit 1", "runctl_attempt_started 1",
        "runctl_attempt_ended succeeded", "runctl_run_ended succeeded",
    ]  # fmt: skip


def test_a_changed_spec_is_what_runs(tmp_path: Path, launch: Launch) -> None:
    plugins(tmp_path, """
import dataclasses
def runctl_modify_spec(spec):
    return dataclasses.replace(spec, env={**spec.env, "FROM_PLUGIN": "yes"}, tags={"team": "a"})
""")  # fmt: skip
    (tmp_path / "train.py").write_text("import os; print('FROM_PLUGIN is', os.environ['FROM_PLUGIN'])")
    done = launch("script=train.py", "run.id=one")
    assert "FROM_PLUGIN is yes" in done.stdout, done.stderr
    assert json.loads((tmp_path / "runs/one/spec.json").read_text())["tags"] == {"team": "a"}


def test_host_and_worker_hooks_are_called_in_agent_and_ranks(tmp_path: Path, launch: Launch) -> None:
    plugins(tmp_path, ON_THE_HOST)
    (tmp_path / "train.py").write_text(DDP)
    done = launch("trainer=ddp", "trainer.nproc_per_node=2", "script=train.py", "run.id=one")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/one/before_train.txt").read_text() == "one attempt 1"
    for rank in (0, 1):
        log = (tmp_path / f"runs/one/logs/a1/n0/r{rank}.log").read_text().splitlines()
        assert log == [f"plugin in rank {rank} of 2", f"rank {rank} runs"]


def test_a_disabled_plugin_is_off_in_agent_and_ranks_too(tmp_path: Path, launch: Launch) -> None:
    plugins(tmp_path, ON_THE_HOST)
    done = launch("script=train.py", "run.id=one", "-p", "no:project")
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
    assert not (tmp_path / "runs/one/before_train.txt").exists()


def test_a_failing_host_or_worker_hook_does_not_end_the_run(tmp_path: Path, launch: Launch) -> None:
    plugins(tmp_path, "def runctl_before_train(spec): 1 / 0\ndef runctl_worker_started(rank): 1 / 0")
    done = launch("script=train.py")
    assert (done.returncode, "trained" in done.stdout) == (0, True), done.stderr
    for hook in ("runctl_before_train", "runctl_worker_started"):
        assert done.stderr.count(f"plugin project failed in {hook}") == 1, done.stderr


def test_a_veto_exits_with_77_and_starts_nothing(tmp_path: Path, launch: Launch) -> None:
    plugins(tmp_path, "import runctl\ndef runctl_before_submit(plan): raise runctl.Vetoed('not on a Friday')")
    done = launch("script=train.py")
    assert (done.returncode, done.stdout) == (77, "")
    assert "not on a Friday" in done.stderr.splitlines()[-1]
    assert not list((tmp_path).glob("runs/*/attempts"))


def test_a_hook_that_raises_before_the_submit_exits_with_70_and_starts_nothing(tmp_path: Path, launch: Launch) -> None:
    plugins(tmp_path, "def runctl_before_submit(plan): raise OSError('no reply')")
    done = launch("script=train.py")
    assert (done.returncode, done.stdout) == (70, "")
    assert "Traceback" not in done.stderr
    assert "runctl_before_submit of plugin project (runctl_plugins.py) raised OSError: no reply" in done.stderr
    assert not list((tmp_path).glob("runs/*/attempts"))


def test_a_hook_that_raises_after_the_submit_is_told_once_and_the_run_succeeds(tmp_path: Path, launch: Launch) -> None:
    plugins(tmp_path, """
def runctl_attempt_started(attempt): raise OSError('no reply')
def runctl_run_ended(outcome): print('must not be called')
""")  # fmt: skip
    done = launch("script=train.py")
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
    assert done.stderr.count("plugin project failed in runctl_attempt_started") == 1
    assert "OSError: no reply" in done.stderr


def test_a_broken_plugin_file_ends_the_launch_with_one_line(tmp_path: Path, launch: Launch) -> None:
    plugins(tmp_path, "def x(:")
    done = launch("script=train.py")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "SyntaxError" in line
    assert launch("script=train.py", "-p", "no:project").returncode == 0


def test_listing_shows_names_sources_and_hooks_and_starts_nothing(tmp_path: Path, launch: Launch) -> None:
    site = tmp_path / "site"
    info = site / "tracker-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tracker\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[runctl]\ntracker = tracker_plugin\n")
    (site / "tracker_plugin.py").write_text("def runctl_run_ended(outcome): pass")
    plugins(tmp_path, DIARY)
    done = launch("plugins.list=true", "plugins.disable=[cost]", PYTHONPATH=on_path(site))
    assert done.returncode == 0, done.stderr
    rows = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert [name for name, _ in rows] == [*(name for name in BUILT_INS if name != "cost"), "tracker", "project"]
    about = dict(rows)
    assert about["provenance"].split() == ["built-in", "runctl_attempt_started,", "runctl_before_submit"]
    assert about["tracker"].split() == ["entry", "point", "tracker_plugin", "runctl_run_ended"]
    assert about["project"].startswith("runctl_plugins.py ")
    assert "runctl_before_submit, runctl_modify_spec" in about["project"]
    assert not (tmp_path / "runs").exists()


def test_disabling_by_option_and_by_key_are_the_same(launch: Launch) -> None:
    by_option, by_key = (
        launch("plugins.list=true", "-p", "no:cost"),
        launch("plugins.list=true", "plugins.disable=[cost]"),
    )
    assert by_option.stdout == by_key.stdout
    assert "cost" not in by_key.stdout
    unknown = launch("plugins.list=true", "-p", "no:costs")
    assert unknown.returncode == 2
    assert "no plugin costs; there are provenance, cost" in unknown.stderr
