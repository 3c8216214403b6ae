"""limits.max_usd_per_day: what was spent, what may be spent yet, and what a launch would add, against the limit."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from made import Home

from runctl import bills
from runctl.cost import Rates
from runctl.encoding import dumps
from runctl.errors import Vetoed
from runctl.plugins import budget
from runctl.plugins.budget import runctl_attempt_started, runctl_before_submit
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, Limits, Offer, Plan, Program, RunHandle, RunIdentity, RunState
from runctl.standing import look

HOUR = 3600.0


@pytest.fixture(autouse=True)
def nothing_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_promised", {})


def plan(run_id: str = "new", *, estimate: float | None = 2.0, price: float | None = 0.2) -> Plan:
    offers = (Offer("aws", "g6.xlarge", "spot", "us-east-1", "us-east-1a", price),)
    return Plan(run_id, 1, "aws", (), {}, 1, 1, ".", "s3://b/new", offers=offers, estimate_usd=estimate)


def asked(
    limit: float | None = 10.0, *, of_plan: dict[str, Any] | None = None, run_id: str = "new", root: str = "s3://b",
    **limits: Any,
) -> None:  # fmt: skip
    spec = LaunchSpec(
        RunIdentity(run_id, run_id, root), Program("train.py", None),
        limits=Limits(**{"max_time_s": 10 * HOUR, **limits}, max_usd_per_day=limit),
    )  # fmt: skip
    runctl_before_submit(spec, plan(**(of_plan or {})))


def spent(home: Home, run_id: str, usd_per_hour: float, hours: float, *, ended_ago_h: float | None = 1.0) -> None:
    """A run that cost so much an hour for so long, and ended so long ago, or lives."""
    rundir = home.run(run_id, state=RunState.SUCCEEDED if ended_ago_h is not None else RunState.RUNNING)
    record = rundir.read_attempt(1)
    assert record is not None
    end = time.time() - (ended_ago_h or 0.0) * HOUR
    rundir.write_attempt(replace(
        record, platform="aws", market="spot", price_usd_per_hour=usd_per_hour, started_at=end - hours * HOUR,
        billed_from=end - hours * HOUR, ended_at=end if ended_ago_h is not None else None,
    ))  # fmt: skip
    rundir.write_spec(replace(rundir.read_spec(), limits=Limits(max_time_s=10 * HOUR)))
    rundir.write_submission(plan(run_id), RunHandle("aws", run_id, 1, {"machine": "g6.xlarge"}))
    rundir.store.write("attempts/1.rates.json", dumps(Rates(until=1e12)).encode())
    home.registry.note(look(rundir).entry())


def test_without_a_limit_and_below_it_nothing_is_refused(home: Home) -> None:
    asked(None)
    asked(10.0)
    spent(home, "before", 1.0, 7.9)
    asked(10.0)


def test_spent_and_to_be_spent_are_added_up_and_told(home: Home) -> None:
    spent(home, "before", 1.0, 7.0)
    spent(home, "lives", 0.5, 1.0, ended_ago_h=None)
    with pytest.raises(Vetoed) as veto:
        asked(10.0)
    assert "7.50 USD were spent within the last 24 hours, runs that go on may cost 1.50 more" in str(veto.value)
    assert "and this launch 2.00: 11.00 together" in str(veto.value)
    asked(10.0, max_usd=0.9)


def test_only_the_last_24_hours_count(home: Home) -> None:
    spent(home, "long-ago", 10.0, 5.0, ended_ago_h=25.0)
    spent(home, "over-night", 1.0, 30.0, ended_ago_h=20.0)
    asked(6.1)
    with pytest.raises(Vetoed, match=r"4\.00 USD were spent"):
        asked(5.9)


def test_what_is_not_known_keeps_no_limit(home: Home) -> None:
    with pytest.raises(Vetoed, match="what this launch costs is not known"):
        asked(of_plan={"estimate": None, "price": None})
    spent(home, "before", 1.0, 1.0)
    rundir = home.run("unknown")
    record = rundir.read_attempt(1)
    assert record is not None
    rundir.write_attempt(replace(record, market="spot", platform="aws", price_usd_per_hour=None))
    with pytest.raises(Vetoed, match="what unknown costs is not known"):
        asked()


def test_what_was_spent_after_a_run_was_gone_on_with_counts(home: Home) -> None:
    spent(home, "before", 1.0, 1.0)
    rundir = RunDir(f"{home.root}/before")
    home.registry.keep_bills({rundir.url: bills.of_run(rundir)})
    record = rundir.read_attempt(1)
    assert record is not None
    rundir.write_attempt(replace(record, number=2, billed_from=record.started_at, started_at=record.started_at))
    rundir.store.write("attempts/2.rates.json", dumps(Rates(until=1e12)).encode())
    home.registry.note(look(rundir).entry())
    with pytest.raises(Vetoed, match=r"2\.00 USD were spent"):
        asked(3.9)


def test_a_launch_that_asks_anew_is_not_counted_twice(home: Home) -> None:
    spent(home, "lives", 0.5, 1.0, ended_ago_h=None)
    with pytest.raises(Vetoed, match=r"0\.50 USD were spent .* may cost 0\.00 more, and this launch 2\.00"):
        asked(2.4, run_id="lives", root=home.root)
    asked(2.6, run_id="lives", root=home.root)


def test_launches_of_one_process_know_of_each_other_before_they_have_a_host(home: Home) -> None:
    asked(5.0, run_id="one")
    asked(5.0, run_id="two")
    asked(5.0, run_id="two")
    with pytest.raises(Vetoed, match=r"may cost 4\.00 more"):
        asked(5.0, run_id="three")
    runctl_attempt_started(RunDir("s3://b/two"))
    asked(5.0, run_id="three")
    budget._promised["s3://b/one"] = (2.0, time.time() - 2 * HOUR)
    asked(5.0, run_id="four")


def test_a_lost_run_may_cost_something_until_its_host_has_ended_itself(home: Home) -> None:
    spent(home, "lost", 0.1, 1.0, ended_ago_h=None)
    rundir = RunDir(f"{home.root}/lost")
    spent_at = time.time() - 2 * HOUR
    for name in ("heartbeat.json", "status.json"):
        rundir.store.write(name, json.dumps({"at": spent_at, "attempt": 1}).encode())
    home.registry.note(look(rundir).entry())
    assert [one.state for one in home.registry.entries()] == ["lost"]
    with pytest.raises(Vetoed, match=r"0\.10 USD were spent .* may cost 1\.90 more"):
        asked(3.9)
    lived = plan("lost")
    handle = RunHandle("aws", "lost", 1, {"launched_at": time.time() - HOUR})
    rundir.write_submission(replace(lived, requests=({"orders": {"lives_s": HOUR / 2}},)), handle)
    with pytest.raises(Vetoed, match=r"0\.05 USD were spent .* may cost 0\.00 more"):
        asked(2.0)


def test_ones_own_machine_costs_nothing(home: Home) -> None:
    spent(home, "before", 100.0, 1.0)
    asked(1.0, of_plan={"price": 0.0, "estimate": 0.0})
