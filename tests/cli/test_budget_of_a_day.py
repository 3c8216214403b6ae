"""limits.max_usd_per_day: what was spent, what may be spent yet, and what a launch would add, against the limit."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from made import Home

from runctl.cost import Rates
from runctl.encoding import dumps
from runctl.errors import Vetoed
from runctl.plugins.budget import runctl_before_submit
from runctl.spec import LaunchSpec, Limits, Offer, Plan, Program, RunHandle, RunIdentity, RunState
from runctl.standing import look

HOUR = 3600.0


def plan(run_id: str = "new", *, estimate: float | None = 2.0, price: float | None = 0.2) -> Plan:
    offers = (Offer("aws", "g6.xlarge", "spot", "us-east-1", "us-east-1a", price),)
    return Plan(run_id, 1, "aws", (), {}, 1, 1, ".", "s3://b/new", offers=offers, estimate_usd=estimate)


def asked(limit: float | None = 10.0, *, of_plan: dict[str, Any] | None = None, **limits: Any) -> None:
    spec = LaunchSpec(
        RunIdentity("new", "new", "s3://b"), Program("train.py", None),
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


def test_ones_own_machine_costs_nothing(home: Home) -> None:
    spent(home, "before", 100.0, 1.0)
    asked(1.0, of_plan={"price": 0.0, "estimate": 0.0})
