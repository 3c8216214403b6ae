"""`runctl extend`: who is given more time, who is not, and that nobody is told so before the agent has said it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from made import Home

from runctl import extension
from runctl.cli import extend
from runctl.cost import Rates
from runctl.encoding import dumps
from runctl.environment import Environment
from runctl.platforms.aws import AwsPlatform
from runctl.rundir import RunDir
from runctl.spec import Limits, Plan, RunHandle, RunState


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(extend, "_HEARD_S", 3.0)
    monkeypatch.setattr(extend, "_LOOK_S", 0.05)
    monkeypatch.setattr(AwsPlatform, "_extend", lambda self, plan, handle, until: self._tell(f"until {until:.0f}"))
    yield


def living(home: Home, *, platform: str = "aws", max_time_s: float | None = 3600.0, **of_spec: Any) -> RunDir:
    rundir = home.run("run-1", state=RunState.RUNNING)
    rundir.write_spec(replace(rundir.read_spec(), limits=Limits(max_time_s), **of_spec))
    handle = RunHandle(platform, "run-1", 1, {"instance": "i-1", "launched_at": 1000.0})
    plan = Plan("run-1", 1, platform, (), {}, 1, 1, ".", rundir.url, requests=({"orders": {"lives_s": 5000.0}},))
    rundir.write_submission(plan, handle)
    rundir.store.write("attempts/1.rates.json", dumps(Rates(disk_usd_per_hour=0.04)).encode())
    return rundir


def answers(rundir: RunDir) -> None:
    """An agent that hears of it and says so."""
    while (asked := extension.asked(rundir, 1)) is None:
        time.sleep(0.02)
    now = time.time()
    rundir.store.write("heartbeat.json", json.dumps({
        "at": now, "attempt": 1, "max_time_s": asked.max_time_s, "ends_at": now + 60, "deadline": now + 120,
    }).encode())  # fmt: skip


def test_it_says_until_when_and_what_that_costs_at_most_once_the_agent_has_said_so(home: Home) -> None:
    rundir = living(home)
    agent = threading.Thread(target=answers, args=(rundir,))
    agent.start()
    result = home.runctl("extend", "run-1", "12h", "--json")
    agent.join()
    told = json.loads(result.stdout)
    assert (told["max_time_s"], told["heard"]) == (13 * 3600.0, True)
    assert told["more_usd_at_most"] == pytest.approx(12 * (0.36 + 0.04))
    assert "until 49200" in result.stderr, "12 hours after the deadline of the launch"
    shown = home.runctl("extend", "run-1", "1h", expect=1).stdout
    assert "has not said within 3 s that it does" in shown
    asked = extension.asked(rundir, 1)
    assert asked is not None and asked.max_time_s == 14 * 3600.0, "more is more than was asked for before"


def test_what_was_never_heard_of_is_not_added_to_by_asking_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extend, "_HEARD_S", 0.0)
    rundir = living(home)

    def asked_for(more: str) -> tuple[float, float]:
        told = json.loads(home.runctl("extend", "run-1", more, "--json", expect=1).stdout)
        asked = extension.asked(rundir, 1)
        assert asked is not None and asked.max_time_s == told["max_time_s"] and not told["heard"]
        return asked.max_time_s / 3600, told["more_usd_at_most"]

    assert [asked_for("12h") for _ in range(3)] == [(13.0, pytest.approx(12 * 0.4))] * 3
    assert asked_for("1h") == (13.0, pytest.approx(12 * 0.4)), "nor taken back: it may be heard of yet"
    rundir.store.write("heartbeat.json", json.dumps({"at": time.time(), "attempt": 1, "max_time_s": 7200.0}).encode())
    assert asked_for("12h") == (14.0, pytest.approx(12 * 0.4)), "more than it has by its own word"


def test_who_has_ended_or_no_limit_gets_none(home: Home) -> None:
    home.run("over")
    assert "over is succeeded" in home.runctl("extend", "over", "1h", expect=2).stderr
    living(home, max_time_s=None)
    assert "has no limit of time" in home.runctl("extend", "run-1", "1h", expect=2).stderr
    assert "write a duration" in home.runctl("extend", "run-1", "soon", expect=2).stderr


def test_a_container_cannot_put_off_its_hosts_shutdown_and_runpod_ends_a_pod_when_it_said(home: Home) -> None:
    rundir = living(home, environment=Environment(kind="docker"))
    assert "trains in a container" in home.runctl("extend", "run-1", "1h", expect=2).stderr
    living(home, platform="runpod", environment=Environment())
    assert "RunPod itself ends this pod at 01:40:00 UTC on 1970-01-01" in home.runctl(
        "extend", "run-1", "1h", expect=2
    ).stderr.replace("\n", " ")
    assert extension.asked(rundir, 1) is None, "nothing was asked for"
