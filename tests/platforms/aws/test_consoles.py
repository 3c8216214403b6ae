"""A host that never spoke leaves what its console shows in the run directory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from rehearsal import ROOT, Launch, Rehearsal, rehearsal

from runctl.drill.faults import Fault
from runctl.platforms import aws as platform
from runctl.rundir import RunDir, run_url
from runctl.spec import RunState


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    with rehearsal(tmp_path_factory.mktemp("consoles")) as made:
        yield made


def console(launch: Launch, attempt: int = 1) -> str:
    data = RunDir(run_url(ROOT, launch.run_id)).store.read(f"logs/a{attempt}/console.txt")
    return data.decode() if data is not None else ""


def said_where(launch: Launch, attempt: int = 1) -> bool:
    where = f"{run_url(ROOT, launch.run_id)}/logs/a{attempt}/console.txt"
    return [line for line in launch.told if where in line] == [
        f"what {launch.instances[attempt - 1]['id']} printed on its console lies in {where}"
    ]


@pytest.mark.slow
def test_of_a_host_that_could_not_be_prepared(aws: Rehearsal) -> None:
    launch = aws.run(setup=["echo no space; exit 3"])
    assert launch.outcome is not None, launch.error
    assert launch.outcome.state is RunState.FAILED
    assert "setup line 1 ended with code 3" in launch.outcome.reason
    text = console(launch)
    assert "shutdown -P" in text, "the user data's own words come first"
    assert "no space" in text
    assert "bring-up failed: setup line 1 ended with code 3" in text
    assert said_where(launch), launch.told
    launch.check_that_nothing_is_left()


def test_of_a_host_on_which_the_keeper_cannot_start(aws: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> None:
    script = platform.script
    monkeypatch.setattr(platform, "script", lambda *words: script(*words).replace("python3", "no-such-python"))
    launch = aws.run()
    assert launch.outcome is not None, launch.error
    assert launch.outcome.state is RunState.FAILED
    assert "no-such-python" in launch.outcome.reason
    assert "shutdown -P" in console(launch)
    assert said_where(launch), launch.told
    launch.check_that_nothing_is_left()


@pytest.mark.soak
def test_of_a_host_that_is_gone_before_its_first_word(aws: Rehearsal) -> None:
    begun, ended = len(aws.cloud.calls()), threading.Event()

    def take_it() -> None:
        while not ended.wait(0.02):
            living = [one["id"] for one in aws.cloud.instances() if one["state"] == "running"]
            if living and any(one["action"] == "RunInstances" for one in aws.cloud.calls()[begun:]):
                time.sleep(0.2)
                aws.cloud.kill(living[0])
                return

    thread = threading.Thread(target=take_it)
    thread.start()
    try:
        launch = aws.run()
    finally:
        ended.set()
        thread.join()
    assert launch.outcome is not None, launch.error
    assert launch.outcome.state is RunState.SUCCEEDED, launch.told
    assert "shutdown -P" in console(launch)
    assert console(launch, 2) == "", "whoever speaks needs no console"
    assert said_where(launch), launch.told


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("UnauthorizedOperation", "its console could not be kept: ec2:GetConsoleOutput of i-"),
        ("UnsupportedOperation", ""),
    ],
)
def test_a_console_that_may_not_be_read_or_not_yet_is_no_reason_for_anything(
    aws: Rehearsal, code: str, said: str
) -> None:
    launch = aws.run(Fault("GetConsoleOutput", code, 400), setup=["exit 3"])
    assert launch.outcome is not None, launch.error
    assert "setup line 1 ended with code 3" in launch.outcome.reason
    assert any(said in line for line in launch.told) if said else "bring-up failed" in console(launch), launch.told
    launch.check_that_nothing_is_left()


@pytest.mark.soak
def test_it_is_not_asked_for_where_the_agent_spoke(aws: Rehearsal) -> None:
    launch = aws.run()
    assert launch.outcome is not None, launch.error
    assert launch.count("GetConsoleOutput") == 0
