"""`runctl cost`, of made-up runs: what is known is added up, and what is not is never a wrong sum."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made import Home

from runctl.cost import Rates
from runctl.encoding import dumps
from runctl.platforms.aws import AwsPlatform
from runctl.rundir import RunDir
from runctl.spec import Offer, Plan, RunHandle, RunState
from runctl.standing import look
from runctl.supervisor import outcome_of

HOUR = 3600.0
RATES = Rates((), 1.0, 0.01, until=1e12)


def rented(home: Home, run_id: str, *, rates: Rates | None = RATES, attempts: int = 2, **of_run: Any) -> RunDir:
    """A run on AWS that ended: each attempt an hour of spot at 0.4 USD, the later ones from step 40 on."""
    rundir = home.run(run_id, attempts=attempts, **of_run)
    begin = time.time() - 10 * HOUR
    for one in rundir.attempts():
        handle = RunHandle("aws", run_id, one.number, {
            "instance": "i-1", "region": "us-east-1", "zone": "us-east-1a", "machine": "g6.xlarge", "market": "spot",
            "launched_at": begin, "price_usd_per_hour": 0.4,
        })  # fmt: skip
        plan = Plan(run_id, one.number, "aws", (), {}, 1, 1, ".", rundir.url, estimate_usd=9.6,
                    offers=(Offer("aws", "g6.xlarge", "spot", "us-east-1", "us-east-1a", 0.4),))  # fmt: skip
        rundir.write_submission(plan, handle)
        rundir.write_attempt(replace(
            one, platform="aws", market="spot", started_at=begin + 60, billed_from=begin, ended_at=begin + HOUR,
            price_usd_per_hour=0.4, step=80,
        ))  # fmt: skip
        if rates is not None:
            rundir.store.write(f"attempts/{one.number}.rates.json", dumps(rates).encode())
        begin += HOUR
    home.registry.note(look(rundir).entry(time.time() - 10 * HOUR))
    return rundir


@pytest.fixture(autouse=True)
def silent_aws(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """AWS is asked nothing that is not noted here, and does not answer."""
    asked: list[str] = []

    def rates(self: AwsPlatform, plan: Plan, handle: RunHandle, begin: float, end: float) -> Rates:
        asked.append(f"{plan.run_id}/{plan.attempt}")
        return Rates(disk_usd_per_hour=None)

    monkeypatch.setattr(AwsPlatform, "_rates", rates)
    return asked


def told(home: Home, *words: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(home.runctl("cost", *words, "--json").stdout)
    return data


def test_attempt_by_attempt_with_disks_estimate_saved_and_lost(home: Home) -> None:
    rented(home, "run-1")
    one = told(home, "run-1")
    first, second = one["attempts"]
    assert (first["host_usd"], first["disk_usd"], first["usd"], first["estimate_usd"]) == (0.4, 0.01, 0.41, 9.6)
    assert (first["saved_usd"], second["saved_usd"]) == (0.6, 0.6)
    assert (first["steps_redone"], first["lost_usd"], second["lost_usd"]) == (40, 0.205, 0.0)
    assert one["total"]["usd"] == 0.82
    table = home.runctl("cost", "run-1").stdout
    assert max(map(len, table.splitlines())) <= 80, table
    assert "g6.xlarge" in table


def test_all_of_a_time_are_added_up_by_name_platform_or_tag(home: Home) -> None:
    rented(home, "one", name="a", tags={"team": "red", "x": "1"})
    rented(home, "two", name="a", tags={"team": "blue"})
    home.run("own", name="b")
    by_name = {one["of"]: one for one in told(home, "--by", "name")["groups"]}
    assert (by_name["a"]["usd"], by_name["a"]["runs"], by_name["b"]["usd"]) == (1.64, 2, 0.0)
    by_tag = told(home, "--by", "tag")
    assert {one["of"]: one["usd"] for one in by_tag["groups"]} == {
        "team=red": 0.82, "x=1": 0.82, "team=blue": 0.82, "no tag": 0.0,
    }  # fmt: skip
    assert by_tag["total"]["usd"] == 1.64, "a run of two tags costs what it costs, once"
    by_platform = {one["of"]: one["usd"] for one in told(home, "--by", "platform")["groups"]}
    assert by_platform == {"aws": 1.64, "local": 0.0}
    assert told(home, "--since", "1h")["groups"] == [told(home, "own")["total"] | {"of": "own"}]
    assert max(map(len, home.runctl("cost").stdout.splitlines())) <= 80


@pytest.mark.parametrize("by", ["run", "name", "platform", "tag"])
def test_a_run_that_has_had_no_host_yet_is_a_line_of_its_own_and_costs_nothing(home: Home, by: str) -> None:
    rented(home, "run-1", name="a", tags={"team": "red"})
    home.run("none", name="b", attempts=0)
    one = told(home, "--by", by)
    assert [(group["runs"], group["usd"]) for group in one["groups"]] == [(1, 0.0), (1, 0.82)]
    assert (one["total"]["runs"], one["total"]["usd"], len(one["runs"])) == (2, 0.82, 2)


def test_what_is_not_known_makes_no_sum(home: Home, silent_aws: list[str]) -> None:
    rented(home, "known")
    rented(home, "unknown", rates=None, attempts=1)
    assert told(home, "unknown")["total"]["usd"] is None
    both = told(home)
    assert (both["total"]["usd"], both["total"]["known_usd"]) == (None, 0.82)
    shown = home.runctl("cost")
    assert "?" in shown.stdout.splitlines()[-1]
    assert "0.82 USD are known; not known is the cost of unknown" in shown.stderr
    assert silent_aws and set(silent_aws) == {"unknown/1"}, "what has been told is not asked again"


def test_what_has_ended_is_known_without_its_run_directory(home: Home) -> None:
    rundir = rented(home, "run-1")
    before = told(home, "run-1")
    shutil.rmtree(rundir.url)
    assert told(home, "run-1") == before
    assert told(home)["total"]["usd"] == 0.82


def test_what_a_run_cost_after_it_was_gone_on_with_is_in_its_bill(home: Home) -> None:
    rented(home, "run-1", attempts=1)
    assert told(home, "run-1")["total"]["usd"] == 0.41, "and it is kept"
    rented(home, "run-1", attempts=2)
    assert len(told(home, "run-1")["attempts"]) == 2
    assert told(home, "run-1")["total"]["usd"] == told(home)["total"]["usd"] == 0.82


def three_attempts(home: Home) -> RunDir:
    """Done to step 1000; lost while it came up; gone on from step 990."""
    rundir = rented(home, "run-1", attempts=3)
    first, second, third = rundir.attempts()
    rundir.write_attempt(replace(first, step=1000))
    rundir.write_attempt(replace(second, step=None, resumed_from_step=None))
    rundir.write_attempt(replace(third, step=1200, resumed_from_step=990))
    home.registry.note(look(rundir).entry())
    return rundir


def test_an_attempt_that_never_began_did_nothing_again(home: Home) -> None:
    rundir = three_attempts(home)
    first = told(home, "run-1")["attempts"][0]
    assert (first["steps_redone"], first["lost_usd"]) == (10, 0.0041)
    outcome = outcome_of(rundir.read_spec(), rundir, rundir.attempts())
    assert outcome.steps_lost == 10
    assert outcome_of(rundir.read_spec(), rundir, rundir.attempts()[:2]).steps_lost is None


def test_a_run_that_goes_on_costs_what_it_has_cost_until_now(home: Home) -> None:
    home.run("lives", state=RunState.RUNNING)
    one = told(home, "lives")["attempts"][0]
    assert one["ended_at"] is None
    assert one["host_usd"] == pytest.approx(0.36 / 60, abs=1e-3)


def test_a_run_that_cannot_be_read_is_named_and_makes_no_sum(home: Home) -> None:
    rented(home, "known")
    rundir = home.run("broken", state=RunState.RUNNING)
    Path(rundir.url, "attempts/1.json").write_text("{")
    both = told(home)
    assert both["total"]["usd"] is None
    assert list(both["unread"]) == [rundir.url]


def test_by_and_a_run_are_one_too_many(home: Home) -> None:
    rented(home, "run-1")
    assert "leave out run-1" in home.runctl("cost", "run-1", "--by", "name", expect=2).stderr


def test_a_run_that_was_lost_costs_until_its_host_has_ended_itself_and_no_longer(home: Home) -> None:
    rundir = rented(home, "lost", attempts=1)
    submitted, record = rundir.submission(1), rundir.read_attempt(1)
    assert submitted is not None and submitted[1] is not None and record is not None
    rundir.write_submission(replace(submitted[0], requests=({"orders": {"lives_s": 2 * HOUR}},)), submitted[1])
    rundir.write_attempt(replace(record, state=RunState.RUNNING, ended_at=None))
    for name in ("heartbeat.json", "status.json"):
        rundir.store.write(name, json.dumps({"at": time.time() - 9 * HOUR, "attempt": 1}).encode())
    home.registry.note(look(rundir).entry())
    [attempt] = told(home, "lost")["attempts"]
    assert (attempt["billed_s"], attempt["usd"]) == (pytest.approx(2 * HOUR, abs=1), pytest.approx(0.82, abs=0.001))
    [row] = [line for line in home.runctl("show", "lost").stdout.splitlines() if line.split()[:1] == ["1"]]
    assert "0.80" in row and "10h" not in row
    [seen] = json.loads(home.runctl("ps", "--all", "--json").stdout)
    assert (seen["state"], seen["cost_usd"]) == ("lost", pytest.approx(0.8, abs=0.001))
    assert seen["host_ends_at"] == pytest.approx(time.time() - 8 * HOUR, abs=60)
