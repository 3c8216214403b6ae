"""`runctl cleanup` on RunPod: pods whose run has ended go, all others stay; and what a pod costs with its disk."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from renting import L4, Desk

from runctl.leftovers import Leftovers
from runctl.outcome import Attempt
from runctl.platforms.runpod.api import Api, mutation
from runctl.platforms.runpod.requests import name_of
from runctl.registry import Registry
from runctl.rundir import RunDir, run_url
from runctl.spec import LaunchSpec, Limits, Program, RunIdentity, RunState

HOUR = 3600.0


def pod(name: str) -> str:
    asked = {"name": name, "imageName": "image", "gpuTypeId": L4, "gpuCount": 1, "containerDiskInGb": 20}
    told = Api().ask("renting", mutation("podFindAndDeployOnDemand", asked, "id"))
    return str(told["podFindAndDeployOnDemand"]["id"])


def test_only_pods_of_ours_whose_run_has_ended_go(
    runpod: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    root = str(tmp_path / "runs")
    for run_id, state in (("over", RunState.SUCCEEDED), ("lives", RunState.RUNNING)):
        rundir = RunDir(run_url(root, run_id))
        rundir.write_spec(LaunchSpec(RunIdentity(run_id, run_id, root), Program("train.py", None)))
        at = time.time() - 3 * HOUR
        rundir.write_attempt(Attempt(1, "runpod", "h", "spot", at, at + HOUR if state.ended else None, state))
    over, others = pod("runctl-over-a1"), [pod(name) for name in ("runctl-lives-a1", "runctl-nobodys-a1", "mine")]
    leftovers = Leftovers({"runpod": runpod.platform()}, Registry(), [root])
    judged = leftovers.look()
    assert {one.holding.id for one in judged} == {over, *others[:2]}, "what is not called as ours is not even looked at"
    left = [one for one in judged if one.left]
    assert [(one.holding.id, one.holding.price_usd_per_hour) for one in left] == [(over, 0.43)]
    for one in judged:
        leftovers.end(one.holding)
    states = {one["id"]: one["state"] for one in runpod.cloud.pods()}
    assert states[over] == "terminated"
    assert {states[one] for one in others} == {"running"}


def test_a_pod_of_somebody_elses_run_of_the_same_id_is_not_judged_by_ours(
    runpod: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    root = str(tmp_path / "runs")
    spec = LaunchSpec(RunIdentity("mine", "mine", root), Program("train.py", None), limits=Limits(max_time_s=60.0))
    plan, rundir = runpod.plan(spec=spec), RunDir(run_url(root, "mine"))
    rundir.write_spec(spec)
    rundir.write_submission(plan, None)
    at = time.time() - 3 * HOUR
    rundir.write_attempt(Attempt(1, "runpod", "h", "spot", at, at + HOUR, RunState.FAILED))
    ours, theirs = pod(name_of(plan)), pod("runctl-mine-a1-0123abcd")
    judged = Leftovers({"runpod": runpod.platform()}, Registry(), [root]).look()
    told = {one.holding.id: (one.left, one.why) for one in judged}
    assert told[ours][0], told
    assert told[theirs] == (False, "its run is not known here")


def test_a_pods_bill_holds_its_disk_and_what_it_costs_on_demand(runpod: Desk) -> None:
    rented = runpod.rent(gpu_type=[L4], container_disk_gb=36, volume_gb=36)
    assert rented.plan is not None and rented.handle is not None, rented.error
    rates = runpod.platform().rates(rented.plan, rented.handle, 0.0, HOUR)
    assert rates.disk_usd_per_hour == pytest.approx(72 * 0.10 / 720)
    assert rates.on_demand_usd_per_hour == pytest.approx(0.43)
    unread = replace(rented.plan, requests=())
    assert runpod.platform().rates(unread, rented.handle, 0.0, HOUR).disk_usd_per_hour is None
