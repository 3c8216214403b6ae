"""What becomes of a rented host after an attempt: who ends it, and when it is left alone."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runctl.encoding import dumps
from runctl.errors import ConfigError
from runctl.platforms.base import Berth
from runctl.platforms.hosts import Host, note
from runctl.platforms.parcel import completed
from runctl.platforms.renting import RentingPlatform
from runctl.rundir import RunDir
from runctl.spec import Plan, RunHandle, RunState


class Renting(RentingPlatform[Any]):
    """Renting without a cloud.

    Args:
        address: of the attempt's host.
        idle: whether no other attempt has it.
        watch: what its watch says of it.
    """

    kind = "renting"

    def __init__(self, address: dict[str, Any], *, idle: bool = True, **watch: bool) -> None:
        super().__init__(Path())
        self.handle = RunHandle("renting", "run", 1, {"instance": "i-1", **address})
        self._watches["run", 1] = SimpleNamespace(**watch)
        self.idle = idle
        self.done: list[str] = []

    def _let_go(self, handle: RunHandle) -> None:
        pass

    def _end_attempt(self, handle: RunHandle) -> bool:
        self.done.append("attempt ended")
        return self.idle

    def _terminate(self, handle: RunHandle) -> None:
        self.done.append("terminated")

    def after(self, keep_s: float) -> tuple[bool, list[str]]:
        return self.clean_up(self.handle, keep_s=keep_s), self.done


Renting.__abstractmethods__ = frozenset()  # type: ignore[attr-defined] # what is not tested here is not called


def test_a_host_stays_for_a_look_only_where_a_keeper_ends_it_in_time() -> None:
    assert Renting({}, is_started=True, is_heard=True).after(900.0) == (True, [])
    assert Renting({}, is_started=False, is_heard=False).after(900.0) == (False, ["terminated"])
    assert Renting({}, is_started=True, is_heard=True).after(0.0) == (False, ["terminated"])


def test_a_host_that_was_made_by_hand_stays_and_its_attempt_ends() -> None:
    assert Renting({"stays": True}, is_started=True, is_heard=False).after(900.0) == (False, ["attempt ended"])


@pytest.mark.parametrize("idle", [True, False])
def test_a_warm_host_that_another_run_has_taken_is_left_to_it(idle: bool) -> None:
    ended = ["attempt ended", "terminated"] if idle else ["attempt ended"]
    assert Renting({"kept": True}, idle=idle, is_started=True, is_heard=False).after(0.0) == (False, ended)
    assert Renting({"kept": True}, idle=idle, is_started=True, is_heard=True).after(0.0) == (False, ["terminated"])


class Written:
    """A shelf on which one host stands, until another launch takes it."""

    def __init__(self) -> None:
        self.waits: list[tuple[float, float]] = []
        self.taken = False

    def take(self, serves: Any) -> None:
        return None

    def put(self, host: RunHandle, free_since: float, until: float) -> None:
        self.waits.append((free_since, until))

    def drop(self, host: RunHandle, free_since: float) -> bool:
        return not self.taken


def renting_with_a_berth(*, serves: bool, lives: bool = True) -> tuple[Renting, Berth, Written]:
    shelf = Written()
    renting = Renting({"launched_at": 0.0}, is_started=True, is_heard=True)
    renting._serves = lambda handle, plan: serves  # type: ignore[method-assign]
    renting._lives = lambda handle: lives  # type: ignore[method-assign]
    renting.berth = Berth(3600.0, shelf)
    renting.berth.keep(renting.handle, time.time() - 3000)
    return renting, renting.berth, shelf


NEXT = Plan("next", 1, "renting", (), {}, 1, 1, "", "runs/next")


def test_whoever_takes_a_host_that_waited_pays_for_the_wait_and_has_all_of_its_time_before_it() -> None:
    renting, berth, _ = renting_with_a_berth(serves=True)
    handle = renting._from_berth(NEXT)
    assert handle is not None and berth.host is None
    assert handle.address["billed_from"] == pytest.approx(time.time() - 3000, abs=5)
    orders = completed({"lives_s": 1800.0, "order": {}}, RunHandle("aws", "next", 1, {
        "market": "spot", "price_usd_per_hour": 1.0, **handle.address,
    }))  # fmt: skip
    assert orders["deadline"] == pytest.approx(time.time() + 1800, abs=5), "not 20 minutes ago"
    assert orders["order"]["billed_from"] == handle.address["billed_from"]


@pytest.mark.parametrize("serves", [True, False])
def test_a_host_that_another_launch_has_taken_is_neither_used_nor_ended(serves: bool) -> None:
    renting, berth, shelf = renting_with_a_berth(serves=serves)
    shelf.taken = True
    assert renting._from_berth(NEXT) is None
    assert (berth.host, renting.done, len(shelf.waits)) == (None, [], 1)


def test_a_host_that_serves_no_more_is_ended_and_what_it_waited_is_told() -> None:
    renting, berth, shelf = renting_with_a_berth(serves=False)
    assert renting._from_berth(NEXT) is None
    assert (berth.host, renting.done) == (None, ["terminated"])
    assert shelf.waits[1][1] == pytest.approx(time.time(), abs=5)


def test_a_wait_ends_no_later_than_the_platform_ends_the_host() -> None:
    berth = Berth(3600.0, Written())
    berth.keep(RunHandle("runpod", "run", 1, {"instance": "pod", "ends_at": 1000.0}), 900.0)
    assert berth.until == 1000.0


def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: RunState, **beat: Any) -> Host:
    """A host on which a run was last."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    rundir = RunDir(str(tmp_path / "runs" / "before"))
    rundir.store.write("heartbeat.json", dumps({"at": time.time(), **beat}).encode())
    rundir.write_status(state, 1)
    plan = Plan("before", 1, "aws", (), {}, 1, 1, "", rundir.url)
    rundir.write_submission(plan, RunHandle("aws", "before", 1, {"instance": beat.get("on", "i-1")}))
    note("i-1", run_dir=rundir.url)
    return Host("aws", "i-1", "running", "host-x", 0)


def test_a_host_with_a_training_takes_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = busy(tmp_path, monkeypatch, RunState.RUNNING)
    with pytest.raises(ConfigError, match=r"host=i-1: run before trains there just now.*runctl wait before"):
        host.check_free(str(tmp_path / "runs" / "next"))
    host.check_free(str(tmp_path / "runs" / "before"))  # it goes on with itself


@pytest.mark.parametrize(
    ("state", "beat"), [(RunState.SUCCEEDED, {}), (RunState.RUNNING, {"at": 0.0}), (RunState.RUNNING, {"on": "i-2"})]
)
def test_a_training_that_has_ended_or_is_elsewhere_holds_no_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: RunState, beat: dict[str, Any]
) -> None:
    busy(tmp_path, monkeypatch, state, **beat).check_free(str(tmp_path / "runs" / "next"))
