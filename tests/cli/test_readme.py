"""Every command of the README, run as it stands there; in an account on loopback where it wants one."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from runctl.drill.cloud import Cloud
from runctl.drill.runpod.cloud import RunpodCloud

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent
COMMANDS = [line[2:].split("  #")[0].strip() for line in README.splitlines() if line.startswith("$ ")]
TIMEOUT_S = 280
#: Those that belong together, and their tests below.
NIGHT = [one for one in COMMANDS if "night" in one or one == "runctl ps"]
BASE = [one for one in COMMANDS if "run.name=base" in one]
DRILLS = [one for one in COMMANDS if "drill=" in one]
ON_AWS = [one for one in COMMANDS if ("+platform=aws" in one or one.startswith("runctl aws")) and one not in DRILLS]
ON_RUNPOD = [one for one in COMMANDS if "+platform=runpod" in one and one not in DRILLS]
INSTALL = [one for one in COMMANDS if one.startswith("pip ")]
ELSEWHERE = {*NIGHT, *BASE, *DRILLS, *ON_AWS, *ON_RUNPOD, *INSTALL}
PLAIN = [one for one in dict.fromkeys(COMMANDS) if one not in ELSEWHERE]


class Project:
    """A user's project with the script of the examples, and an empty home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "train.py").write_bytes((ROOT / "examples" / "digits_resume.py").read_bytes())
        home = folder.with_name("home")
        home.mkdir()
        own = {"HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "XDG_CONFIG_HOME": str(home / "config")}
        self.env = {**os.environ, **own}

    def start(self, line: str) -> subprocess.Popen[str]:
        program, *words = shlex.split(line)
        return subprocess.Popen(
            [str(BIN / program), *words], cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, line: str) -> tuple[str, str]:
        process = self.start(line)
        out, err = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, (line, out[-2000:], err[-4000:])
        return out, err

    def wait_for_metrics(self) -> None:
        deadline = time.monotonic() + 90
        while not any(path.stat().st_size for path in (self.folder / "runs").glob("*/metrics.jsonl")):
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "proj")


def test_every_command_has_a_test_here() -> None:
    assert len(NIGHT) == 4 and len(BASE) == 2 and len(DRILLS) == 2 and len(ON_AWS) == 4 and len(ON_RUNPOD) == 1
    assert INSTALL == ["pip install '.[all]'"]
    assert len(PLAIN) >= 4 and all(one.startswith("runctl-launch ") for one in PLAIN)


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", README)
    assert links and [one for one in links if not (ROOT / one).exists()] == []


def test_its_yaml_is_yaml() -> None:
    for block in re.findall(r"```yaml\n(.*?)```", README, re.S):
        yaml.safe_load(block)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        pytest.param(one, marks=[] if "dry_run" in one or one.endswith("args.epochs=3") else pytest.mark.soak)
        for one in PLAIN
    ],
)
def test_on_this_machine(project: Project, line: str) -> None:
    out, err = project.run(line)
    if "dry_run=true" in line:
        assert "Nothing was started" in out and not (project.folder / "runs").exists()
    elif line.startswith("runctl-launch -m"):
        assert "sweep.csv" in err and "learning_rate=0.1" in out + err
    else:
        assert re.search(r"^weights \w+", out, re.M) and "succeeded after" in err


@pytest.mark.slow
def test_a_run_for_the_night(project: Project) -> None:
    launch, *looks = NIGHT
    project.run(f"{launch} args.epochs=2000")
    listing, follow, stop = looks
    assert "running" in project.run(listing)[0]
    follower = project.start(follow)
    assert follower.stdout is not None
    project.wait_for_metrics()
    assert "stopped by runctl stop" in project.run(stop)[0]
    assert follower.wait(30) == 0


@pytest.mark.soak
def test_a_run_that_is_stopped_goes_on(project: Project) -> None:
    first, again = BASE
    launch = project.start(f"{first} args.epochs=60")
    assert launch.stdout is not None
    project.wait_for_metrics()
    launch.send_signal(signal.SIGINT)
    _, said = launch.communicate(timeout=60)
    assert launch.returncode == 130 and "is saved; the same launch" in said
    out, _ = project.run(f"{again} args.epochs=60")
    assert re.search(r"^weights \w+", out, re.M)


@pytest.mark.soak
@pytest.mark.timeout(TIMEOUT_S + 20)
@pytest.mark.parametrize("line", DRILLS)
def test_in_the_drill(project: Project, line: str) -> None:
    _, err = project.run(line)
    assert "Nothing is left running." in err


@pytest.fixture
def account(project: Project) -> Iterator[Cloud]:
    with Cloud() as cloud:
        project.env = cloud.environment(project.env)
        yield cloud


@pytest.mark.soak
@pytest.mark.timeout(4 * TIMEOUT_S)
def test_on_an_account_of_aws(project: Project, account: Cloud) -> None:
    setup, *launches = ON_AWS
    assert "Ready:" in project.run(setup)[0]
    for line in launches:
        out, err = project.run(line)
        if "dry_run" not in line:
            assert "smoke: the same launch" in err if "smoke" in line else "succeeded after" in err, (out, err)
    assert [one["state"] for one in account.instances() if one["state"] == "running"] == []


@pytest.mark.soak
@pytest.mark.timeout(TIMEOUT_S + 20)
def test_on_an_account_of_runpod(project: Project) -> None:
    with RunpodCloud() as pods:
        project.env = pods.environment(project.env)
        (line,) = ON_RUNPOD
        _, err = project.run(line)
        assert "succeeded after" in err
        assert [one for one in pods.pods() if one["state"] == "running"] == []


def test_what_ps_tells_programs_is_json(project: Project) -> None:
    assert json.loads(project.run("runctl ps --json")[0]) == []
