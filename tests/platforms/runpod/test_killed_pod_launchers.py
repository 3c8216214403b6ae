"""`kill -9` of a launcher: its pod trains on, ends itself, and meanwhile the same launch picks the run up."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pod_launches import Home
from waiting import wait_until

from runctl.drill.runpod.cloud import RunpodCloud

#: The training ends once the test says so.
SCRIPT = """
import time
from pathlib import Path
print("under way", flush=True)
while not Path({flag!r}).exists():
    time.sleep(0.1)
print("trained", flush=True)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with RunpodCloud() as cloud:
        made = Home(cloud, tmp_path)
        (made.project / "train.py").write_text(SCRIPT.format(flag=str(tmp_path / "go")))
        yield made
        made.close()


def killed_under_way(home: Home, *words: str) -> None:
    first = home.start(*words)
    wait_until(lambda: "under way" in home.said(first) or first.poll() is not None, 60, "it trains")
    assert first.poll() is None, home.said(first)
    first.kill()
    first.wait()


@pytest.mark.slow
def test_the_same_launch_picks_the_run_up(home: Home) -> None:
    killed_under_way(home, "run.id=one")
    again = home.start("run.id=one")
    wait_until(lambda: "following it" in home.said(again) or again.poll() is not None, 60, "it follows")
    (home.folder / "go").touch()
    assert again.wait(60) == 0, home.said(again)
    said = home.said(again)
    assert "trained" in said
    assert "Traceback" not in said
    assert len(home.pods("one")) == 1
    wait_until(lambda: not home.running("one"), 10, "the pod has ended")


@pytest.mark.slow
def test_a_pod_that_nobody_comes_for_ends_itself(home: Home) -> None:
    killed_under_way(home, "run.id=two", "platform.collect=3s")
    time.sleep(2)
    assert home.running("two"), "the run goes on"
    (home.folder / "go").touch()
    wait_until(lambda: not home.running("two"), 30, "the pod has ended")
    [pod] = home.pods("two")
    assert pod["why"] == "terminated by request"


@pytest.mark.slow
def test_a_launch_that_leaves_has_started_the_training(home: Home) -> None:
    left = home.start("run.id=three", "detach=true", "platform.collect=60s")
    assert left.wait(60) == 0, home.said(left)
    again = home.start("run.id=three")
    (home.folder / "go").touch()
    assert again.wait(60) == 0, home.said(again)
    assert re.search(r"three runs on \w+: following it", home.said(again))
    assert "trained" in home.said(again)
    assert os.listdir(home.project / "runs" / "three" / "logs")  # noqa: PTH208
    wait_until(lambda: not home.running("three"), 10, "the pod has ended")


@pytest.mark.slow
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
