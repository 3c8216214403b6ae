"""What is left over and what is not: hosts and other things of runs that live, ended, fell silent, or nobody knows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from made import Home

from runctl import extension
from runctl.cli import cleanup
from runctl.errors import ConfigError, PlatformError, StorageError
from runctl.leftovers import Leftovers
from runctl.platforms.holdings import Holding
from runctl.rundir import RunDir
from runctl.spec import Limits, Plan, RunHandle, RunState
from runctl.storage.local import LocalStore

HOUR = 3600.0


class Holder:
    """A platform that holds what a test says."""

    kind = "aws"

    def __init__(self, *held: Holding) -> None:
        self.held = list(held)
        self.ended: list[str] = []

    def holdings(self, roots: Sequence[str]) -> Iterable[Holding]:
        return self.held

    def release(self, holding: Holding) -> None:
        self.ended.append(holding.id)


def judge(home: Home, one: Holding) -> tuple[bool, str]:
    judged = Leftovers({}, home.registry, [home.root]).judge(one)
    return judged.left, judged.why


def host(home: Home, run_id: str, *, age_s: float = HOUR, **fields: Any) -> Holding:
    told = {"attempt": 1, "root": home.root, "created_at": time.time() - age_s, **fields}
    return Holding("aws", "instance", "i-1", "us-east-1", run_id, **told)


def on_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have run directories of this test count as those of a bucket: their hosts speak there by themselves."""
    monkeypatch.setattr(RunDir, "url", property(lambda self: "s3://made" + self.store.url))


def ended_ago(rundir: RunDir, seconds: float, state: RunState = RunState.SUCCEEDED) -> None:
    record = rundir.read_attempt(1)
    assert record is not None
    at = time.time() - seconds
    rundir.write_attempt(replace(record, state=state, started_at=at - 60, ended_at=at))
    said_at(rundir, at)


def silent_for(rundir: RunDir, seconds: float) -> None:
    record, at = rundir.read_attempt(1), time.time() - seconds
    assert record is not None
    rundir.write_attempt(replace(record, started_at=at))
    said_at(rundir, at)


def said_at(rundir: RunDir, at: float) -> None:
    for name in ("status.json", "heartbeat.json"):
        told = json.loads(rundir.store.read(name) or b"{}")
        rundir.store.write(name, json.dumps({**told, "at": at}).encode())


def submitted(rundir: RunDir, *, launched_ago_s: float = HOUR, lives_s: float = 2 * HOUR, **orders: float) -> None:
    handle = RunHandle("aws", "run-1", 1, {"instance": "i-1", "launched_at": time.time() - launched_ago_s})
    plan = Plan(
        "run-1", 1, "aws", (), {}, 1, 1, ".", rundir.url, requests=({"orders": {"lives_s": lives_s, **orders}},)
    )
    rundir.write_submission(plan, handle)


def test_a_host_of_a_run_that_lives_stays(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    rundir = home.run("run-1", state=RunState.RUNNING)
    on_s3(monkeypatch)
    left, why = judge(home, host(home, "run-1"))
    assert not left and why.startswith("it was heard of"), why
    silent_for(rundir, 600)
    assert not judge(home, host(home, "run-1"))[0], "launchers give up after 3 minutes, and clocks differ"
    silent_for(rundir, 2 * HOUR)
    left, why = judge(home, host(home, "run-1"))
    assert left and why.startswith("it was heard of last"), why


def test_a_host_whose_attempt_ended_has_a_while_to_end_itself(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    rundir = home.run("run-1")
    submitted(rundir, keep_on_failure_s=1800.0)
    on_s3(monkeypatch)
    ended_ago(rundir, 60)
    assert not judge(home, host(home, "run-1"))[0]
    ended_ago(rundir, 1000)
    assert judge(home, host(home, "run-1"))[0]
    ended_ago(rundir, 1000, RunState.FAILED)
    assert not judge(home, host(home, "run-1"))[0], "somebody may look at it (keep_on_failure)"
    ended_ago(rundir, 3000, RunState.FAILED)
    assert judge(home, host(home, "run-1"))[0]


def test_a_host_that_comes_up_stays_for_as_long_as_that_may_take(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    rundir = home.run("run-1", attempts=0)
    submitted(rundir, bring_up_s=900.0)
    on_s3(monkeypatch)
    assert judge(home, host(home, "run-1", age_s=1000)) == (False, "it is coming up")
    assert judge(home, host(home, "run-1", age_s=2000)) == (True, "its agent never spoke")


def test_a_run_that_is_not_known_is_somebody_elses_until_the_hosts_own_deadline(home: Home) -> None:
    now = time.time()
    assert judge(home, host(home, "theirs", ends_at=now + 60)) == (False, "its run is not known here")
    assert judge(home, host(home, "theirs")) == (False, "its run is not known here")
    assert not judge(home, host(home, "theirs", ends_at=now - 60))[0]
    assert judge(home, host(home, "theirs", ends_at=now - HOUR))[0]


def test_a_run_of_the_same_id_below_another_root_says_nothing(home: Home) -> None:
    ended_ago(home.run("run-1"), 2 * HOUR)
    assert not judge(home, replace(host(home, "run-1"), root=str(home.folder / "other")))[0]


def test_a_host_that_takes_one_job_of_a_sweep_after_the_other_is_its_last_ones(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = home.run("run-1")
    submitted(first, keep_warm_s=300.0)
    second = home.run("run-2", state=RunState.RUNNING)
    submitted(second, keep_warm_s=300.0)
    on_s3(monkeypatch)
    ended_ago(first, 2 * HOUR)
    assert judge(home, host(home, "run-1")) == (False, "run run-2 has it now")
    assert judge(home, host(home, "gone", ends_at=time.time() - HOUR)) == (False, "run run-2 has it now")
    assert judge(home, replace(host(home, "run-1"), id="i-2"))[0], "another host"
    by_hand = replace(host(home, "host-1", ends_at=time.time() - HOUR), root=None, attempt=0)
    assert judge(home, by_hand) == (False, "run run-2 has it now"), "its tag may tell of an earlier deadline"
    ended_ago(second, 2 * HOUR)
    assert judge(home, host(home, "run-1"))[0]


def test_a_host_that_a_run_may_have_which_cannot_be_read_stays(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made by hand, so that its user may lie below any root; and its tag may tell of an earlier deadline."""
    home.run("run-1")
    broken = home.run("run-2", state=RunState.RUNNING)
    broken.store.write("attempts/1.submit.json", b'{"plan": {"of": "a newer runctl"}, "handle": null}')
    by_hand = replace(host(home, "host-1", ends_at=time.time() - HOUR), root=None, attempt=0)
    left, why = judge(home, by_hand)
    assert not left and "attempts/1.submit.json cannot be read" in why
    broken.store.delete("attempts/1.submit.json")
    assert judge(home, by_hand)[0]
    names = LocalStore.names

    def expired(self: LocalStore, folder: str) -> list[str]:
        if self.url == home.root and not folder:
            raise StorageError("the token has expired")
        return names(self, folder)

    monkeypatch.setattr(LocalStore, "names", expired)
    assert judge(home, by_hand) == (False, "its run cannot be looked at: the token has expired")


def test_a_pod_that_keeps_its_run_directory_itself_is_not_judged_by_its_silence(home: Home) -> None:
    rundir = home.run("run-1", state=RunState.RUNNING)
    submitted(rundir)
    silent_for(rundir, 5 * HOUR)
    pod = replace(host(home, "run-1"), kind="pod", platform="runpod", root=None)
    assert judge(home, pod) == (False, "it may live: its run directory lies on it")
    submitted(rundir, launched_ago_s=3 * HOUR)
    assert judge(home, pod)[0], "its deadline is over"
    rundir.write_spec(replace(rundir.read_spec(), limits=Limits(HOUR)))
    extension.ask(rundir, 1, 4 * HOUR)
    assert not judge(home, pod)[0], "which was put off by three hours"
    ended_ago(rundir, 1800)
    submitted(rundir, collect_s=3600.0)
    assert not judge(home, pod)[0], "what lies there may yet be brought here"


@pytest.mark.parametrize("kind", ["volume", "parameter", "upload", "security group"])
def test_other_things_of_a_run_stay_while_it_lives_or_they_are_young(home: Home, kind: str) -> None:
    lives, over = home.run("lives", state=RunState.RUNNING), home.run("over")
    ended_ago(over, 2 * HOUR)
    old, young = time.time() - 2 * HOUR, time.time() - 60
    one = Holding("aws", kind, "x", "us-east-1", "over", 1, home.root, old)
    assert judge(home, one)[0]
    assert not judge(home, replace(one, created_at=young))[0]
    assert not judge(home, replace(one, run_id="lives"))[0]
    assert not judge(home, replace(one, run_id="nobody"))[0]
    assert judge(home, replace(one, in_use=True)) == (False, "in use")
    assert lives.exists()


def test_an_upload_of_no_run_is_left_over_after_a_day(home: Home) -> None:
    one = Holding("aws", "upload", "s3://b/runs/.parcels/x#1", root="s3://b/runs", created_at=time.time() - 2 * HOUR)
    assert not judge(home, one)[0]
    assert judge(home, replace(one, created_at=time.time() - 25 * HOUR))[0]


# --- the command ---


@pytest.fixture
def held(home: Home, monkeypatch: pytest.MonkeyPatch) -> Holder:
    """One thing that is left over, and one that is not."""
    ended_ago(home.run("over"), 2 * HOUR)
    home.run("lives", state=RunState.RUNNING)
    old = time.time() - 2 * HOUR
    holder = Holder(
        Holding("aws", "volume", "vol-1", "us-east-1", "over", 1, home.root, old, price_usd_per_hour=0.01),
        Holding("aws", "volume", "vol-2", "us-east-1", "lives", 1, home.root, old, price_usd_per_hour=0.01),
    )

    def around(kinds: Any, regions: Any = None) -> tuple[Leftovers, dict[str, str]]:
        return Leftovers({"aws": holder}, home.registry, []), {"runpod": "no key here"}

    monkeypatch.setattr(cleanup, "around", around)
    return holder


def test_a_dry_run_shows_and_ends_nothing(home: Home, held: Holder) -> None:
    shown = home.runctl("cleanup", "--dry-run").stdout
    assert "vol-1" in shown.split("kept:")[0] and "vol-2" not in shown.split("kept:")[0]
    assert "not looked at: runpod: no key here" in shown
    assert max(map(len, shown.splitlines()[:2])) <= 80
    told = json.loads(home.runctl("cleanup", "--dry-run", "--json").stdout)
    assert [one["holding"]["id"] for one in told["left"]] == ["vol-1"]
    assert held.ended == []


def test_an_account_that_could_not_be_looked_at_is_no_clean_one(
    home: Home, held: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(error: Exception) -> None:
        def holdings(self: Holder, roots: Sequence[str]) -> Iterable[Holding]:
            raise error

        monkeypatch.setattr(Holder, "holdings", holdings)

    silent(PlatformError("EC2 does not answer"))
    told = json.loads(home.runctl("cleanup", "--dry-run", "--json", expect=1).stdout)
    assert told["not_looked_at"] == {"runpod": "no key here", "aws": "EC2 does not answer"}
    assert "not looked at: aws: EC2 does not answer" in home.runctl("cleanup", "--dry-run", expect=1).stdout
    silent(ConfigError("no credentials here"))
    assert "not looked at: aws: no credentials here" in home.runctl("cleanup", "--dry-run").stdout


def test_what_a_platform_told_before_it_failed_is_judged_all_the_same(
    home: Home, held: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def holdings(self: Holder, roots: Sequence[str]) -> Iterable[Holding]:
        yield from self.held
        raise PlatformError("1 of 2 looks failed")

    monkeypatch.setattr(Holder, "holdings", holdings)
    told = json.loads(home.runctl("cleanup", "-y", "--json", expect=1).stdout)
    assert told["not_looked_at"]["aws"] == "1 of 2 looks failed"
    assert [one["holding"]["id"] for one in told["left"]] == held.ended == ["vol-1"]


def test_nothing_is_ended_without_a_yes(home: Home, held: Holder) -> None:
    assert "nobody is there to be asked" in home.runctl("cleanup", expect=2).stderr
    assert "--json asks no question" in home.runctl("cleanup", "--json", expect=2).stderr
    assert held.ended == []
    told = json.loads(home.runctl("cleanup", "-y", "--json").stdout)
    assert told["ended"] == [{"id": "vol-1", "ended": True, "error": ""}]
    assert held.ended == ["vol-1"]


def test_what_came_to_life_meanwhile_stays(home: Home, held: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    leftovers = cleanup.around(None)[0]
    [left] = [one for one in leftovers.look() if one.left]
    home.run("over", state=RunState.RUNNING)
    assert not leftovers.end(left.holding).left
    assert held.ended == []


def test_what_cannot_be_ended_is_told_and_the_others_end(
    home: Home, held: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.held.append(replace(held.held[0], id="vol-3"))

    def release(self: Holder, one: Holding) -> None:
        if one.id == "vol-1":
            raise PlatformError("no such luck")
        self.ended.append(one.id)

    monkeypatch.setattr(Holder, "release", release)
    shown = home.runctl("cleanup", "-y", expect=1).stdout
    assert "volume vol-1: no such luck" in shown
    assert held.ended == ["vol-3"]


def test_a_platform_that_does_not_exist_is_named(home: Home) -> None:
    with pytest.raises(ConfigError, match="no such platform"):
        cleanup.around(["azure"])
