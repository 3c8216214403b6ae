"""`kill -9` of a launcher: its pod trains on, ends itself, and meanwhile the same launch picks the run up."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from waiting import wait_until

from runctl.drill.runpod.cloud import RunpodCloud

LAUNCH = Path(sys.executable).with_name("runctl-launch")
WORDS = ("+platform=runpod", "platform.gpu_type=RTX A5000", "platform.keep_on_failure=0", "trainer=single")
#: The training ends once the test says so.
SCRIPT = """
import time
from pathlib import Path
print("under way", flush=True)
while not Path({flag!r}).exists():
    time.sleep(0.1)
print("trained", flush=True)
"""


@dataclass
class Home:
    """A user's machine, from which there is a way to the loopback RunPod."""

    cloud: RunpodCloud
    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.flag = self.folder / "go"
        self.project = self.folder / "project"
        self.project.mkdir()
        (self.project / "train.py").write_text(SCRIPT.format(flag=str(self.flag)))

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{len(self.started)}.said").open("wb") as said:
            launch = subprocess.Popen(
                [str(LAUNCH), *WORDS, "script=train.py", *words], cwd=self.project, stdin=subprocess.DEVNULL,
                stdout=said, stderr=said,
                env=self.cloud.environment({
                    "PATH": "/usr/bin:/bin", "XDG_CONFIG_HOME": str(self.folder), "XDG_STATE_HOME": str(self.folder),
                    "HOME": str(self.folder),
                }),
            )  # fmt: skip
        self.started.append(launch)
        return launch

    def said(self, launch: subprocess.Popen[bytes]) -> str:
        return (self.folder / f"{self.started.index(launch)}.said").read_text()

    def running(self, run_id: str) -> list[str]:
        return [one["id"] for one in self.pods(run_id) if one["state"] == "running"]

    def pods(self, run_id: str) -> list[dict[str, str]]:
        return [one for one in self.cloud.pods() if one["name"].startswith(f"runctl-{run_id}-a")]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with RunpodCloud() as cloud:
        made = Home(cloud, tmp_path)
        yield made
        for launch in made.started:
            launch.kill()
            launch.wait()


def killed_under_way(home: Home, *words: str) -> None:
    first = home.start(*words)
    wait_until(lambda: "under way" in home.said(first) or first.poll() is not None, 60, "it trains")
    assert first.poll() is None, home.said(first)
    first.kill()
    first.wait()


def test_the_same_launch_picks_the_run_up(home: Home) -> None:
    killed_under_way(home, "run.id=one")
    again = home.start("run.id=one")
    wait_until(lambda: "following it" in home.said(again) or again.poll() is not None, 60, "it follows")
    home.flag.touch()
    assert again.wait(60) == 0, home.said(again)
    said = home.said(again)
    assert "trained" in said
    assert "Traceback" not in said
    assert len(home.pods("one")) == 1
    wait_until(lambda: not home.running("one"), 10, "the pod has ended")


def test_a_pod_that_nobody_comes_for_ends_itself(home: Home) -> None:
    killed_under_way(home, "run.id=two", "platform.collect=3s")
    time.sleep(2)
    assert home.running("two"), "the run goes on"
    home.flag.touch()
    wait_until(lambda: not home.running("two"), 30, "the pod has ended")
    [pod] = home.pods("two")
    assert pod["why"] == "terminated by request"


def test_a_launch_that_leaves_has_started_the_training(home: Home) -> None:
    left = home.start("run.id=three", "detach=true", "platform.collect=60s")
    assert left.wait(60) == 0, home.said(left)
    again = home.start("run.id=three")
    home.flag.touch()
    assert again.wait(60) == 0, home.said(again)
    assert re.search(r"three runs on \w+: following it", home.said(again))
    assert "trained" in home.said(again)
    assert os.listdir(home.project / "runs" / "three" / "logs")  # noqa: PTH208
    wait_until(lambda: not home.running("three"), 10, "the pod has ended")


def test_a_stop_leaves_nothing_running(home: Home) -> None:
    launch = home.start("run.id=four")
    wait_until(lambda: "under way" in home.said(launch) or launch.poll() is not None, 60, "it trains")
    launch.send_signal(signal.SIGINT)
    assert launch.wait(60) == 130, home.said(launch)
    assert "stopped by Ctrl-C" in home.said(launch)
    assert not home.running("four")


@pytest.mark.soak  # the contract has the same of an attempt
def test_a_training_that_fails_leaves_nothing_running(home: Home) -> None:
    (home.project / "train.py").write_text("raise SystemExit(3)")
    launch = home.start("run.id=five")
    assert launch.wait(60) == 3, home.said(launch)
    assert not home.running("five")
