"""Hosts that wait for the next launch cost as much as those of runs: `ps` and `cost` tell of them."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from made import Home

from runctl import warm
from runctl.platforms.base import Berth
from runctl.spec import RunHandle

HOUR = 3600.0


def host(name: str) -> RunHandle:
    return RunHandle("aws", "one", 1, {
        "instance": name, "region": "us-east-1", "zone": "us-east-1a", "machine": "g6.xlarge", "market": "spot",
        "launched_at": 0.0, "price_usd_per_hour": 3.6,
    })  # fmt: skip


def left(home: Home, name: str, free_since: float, *, comes: bool = True) -> Berth:
    """A host that is free since then and waits for ten minutes."""
    berth = Berth(600.0, warm.Waiting(home.root, "aws", "one"))
    berth.keep(host(name), free_since)
    if not comes:
        berth.give_up()
    warm.leave(home.root, berth, lambda _: None)
    return berth


def test_ps_shows_how_long_it_waits_and_what_that_has_cost(home: Home) -> None:
    left(home, "i-waits", time.time() - 100)
    left(home, "i-gone", time.time() - HOUR)
    [heading, row] = home.runctl("ps").stdout.splitlines()
    assert heading.split() == ["RUN", "STATE", "ETA", "USD", "WHERE"]
    assert row.split() == ["(the", "next", "launch)", "waiting", "8m", "0.10", "aws", "spot", "i-waits"]
    [told] = json.loads(home.runctl("ps", "--json").stdout)
    assert (told["state"], told["run_id"], told["host"]) == ("waiting", None, "i-waits")
    assert told["ends_at"] - told["began_at"] == 600 and 0.09 < told["cost_usd"] < 0.12
    assert home.runctl("ps", "--name", "train").stdout.startswith("No run goes on")


def test_whoever_takes_it_pays_for_the_wait_and_it_is_told_no_more(home: Home) -> None:
    left(home, "i-waits", time.time() - 100)
    waiting = warm.Waiting(home.root, "aws", "other")
    assert waiting.take(lambda handle: handle.address["machine"] == "p5.48xlarge") is None
    assert warm.Waiting(home.root, "runpod", "other").take(lambda _: True) is None
    taken = waiting.take(lambda _: True)
    assert taken is not None and taken[0].address["instance"] == "i-waits"
    assert waiting.take(lambda _: True) is None, "one host, one run"
    assert home.runctl("ps").stdout.startswith("No run goes on")
    assert home.runctl("cost").stdout.startswith("No run is known")


def test_what_waited_for_nobody_stays_in_the_sum(home: Home) -> None:
    left(home, "i-waits", time.time() - 100)
    left(home, "i-left", time.time() - HOUR)
    given_up = left(home, "i-given-up", time.time() - 300, comes=False)
    assert given_up.host is None
    told = json.loads(home.runctl("cost", "--json").stdout)
    [group] = told["groups"]
    # 100 s that go on, the whole ten minutes, and 300 s, at 3.6 USD an hour.
    assert group["of"] == "waiting hosts" and group["usd"] == pytest.approx(1.0, abs=0.01)
    assert told["total"]["usd"] == group["usd"]
    assert "waiting hosts" in home.runctl("cost").stdout
    assert json.loads(home.runctl("cost", "--by", "platform", "--json").stdout)["groups"][0]["of"] == "aws"
    assert json.loads(home.runctl("cost", "--since", "10m", "--json").stdout)["total"]["usd"] < 0.5


def test_a_sweeps_host_waits_for_that_sweep_alone_and_for_whoever_gives_the_command_again(home: Home) -> None:
    at_work = warm.Waiting(home.root, "aws", "sweep-a")
    berth = Berth(600.0, at_work)
    berth.keep(host("i-idle"), time.time() - 10)
    row = home.runctl("ps").stdout.splitlines()[1]
    assert row.split()[:2] == ["(sweep-a)", "waiting"]
    assert warm.Waiting(home.root, "aws", "sweep-b").take(lambda _: True) is None
    assert at_work.take(lambda _: True) is None, "it waits in a place of this launcher"
    again = warm.Waiting(home.root, "aws", "sweep-a").take(lambda _: True)
    assert again is not None and again[0].address["instance"] == "i-idle"
    assert berth.take(lambda _: True) is None, "whose it was has lost it"


def test_what_another_launch_has_taken_is_given_up_by_nobody_else_nor_offered_again(home: Home) -> None:
    for lets_go in (Berth.give_up, lambda berth: warm.leave(home.root, berth, lambda _: None)):
        berth = Berth(600.0, warm.Waiting(home.root, "aws", "sweep-a"))
        berth.keep(host("i-idle"), time.time() - 10)
        assert warm.Waiting(home.root, "aws", "sweep-a").take(lambda _: True) is not None
        assert not lets_go(berth)
        assert not warm.waits(home.root, 0.0)


def test_a_host_whose_next_job_has_come_waits_no_more(home: Home) -> None:
    berth = Berth(600.0, warm.Waiting(home.root, "aws", "sweep-a"))
    berth.keep(host("i-busy"), time.time() - 10)
    assert berth.take(lambda _: False) is None and berth.host is not None
    assert berth.take(lambda _: True) is not None and berth.host is None
    assert not warm.waits(home.root, 0.0)


def test_a_root_that_takes_nothing_keeps_no_host_from_its_next_job(home: Home) -> None:
    (home.folder / "file").write_text("")
    berth = Berth(600.0, warm.Waiting(f"{home.folder}/file/runs", "aws", "sweep-a"))
    berth.keep(host("i-kept"), time.time())
    assert berth.take(lambda _: True) is not None


def test_another_users_host_is_left_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as somebody:
        somebody.setattr("getpass.getuser", lambda: "somebody")
        left(home, "i-theirs", time.time())
    assert warm.Waiting(home.root, "aws", "other").take(lambda _: True) is None
    assert not warm.waits(home.root, 0.0)


def test_of_many_launches_at_once_one_gets_it(home: Home) -> None:
    left(home, "i-waits", time.time())
    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(lambda _: warm.Waiting(home.root, "aws", "other").take(lambda _: True), range(32)))
    assert sum(one is not None for one in taken) == 1


def test_what_another_version_wrote_is_passed_over(home: Home) -> None:
    left(home, "i-waits", time.time())
    (home.folder / "runs" / ".warm" / "a.json").write_text('{"handle": 1}')
    assert warm.Waiting(home.root, "aws", "other").take(lambda _: True) is not None


def test_a_root_that_cannot_be_read_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    left(home, "i-waits", time.time())
    (file,) = (home.folder / "runs" / ".warm").iterdir()
    file.write_text("{")
    result = home.runctl("ps")
    assert "hosts may wait (platform.keep_warm)" in result.stderr
    assert "cannot be read" in result.stderr
