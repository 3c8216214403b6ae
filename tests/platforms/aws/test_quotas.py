"""What an account may not rent at all is said before anything is rented, with where to ask for more."""

from __future__ import annotations

import json
from typing import Any

import pytest
from whole import BUCKET, Account

from runctl.drill.faults import Fault

SPOT, ON_DEMAND = "L-34B43A08", "L-1216C47A"
#: As AWS's console has them.
LINK = "https://us-east-1.console.aws.amazon.com/servicequotas/home/services/ec2/quotas"


def launched(account: Account, *words: str) -> tuple[int, str, str]:
    (account.project / "train.py").write_text("print('trained')")
    launch = account.start("trainer=single", "script=train.py", f"run.root=s3://{BUCKET}/runs", *words)
    code = launch.wait(120)
    out, err = account.said(launch)
    assert "Traceback" not in err
    return code, out, err


@pytest.mark.slow
def test_without_any_quota_the_launch_ends_in_one_line_that_says_where_to_ask(account: Account) -> None:
    account.cloud.set_quota(SPOT, 0)
    account.cloud.set_quota(ON_DEMAND, 1)
    code, _, err = launched(account)
    assert code == 78
    [line] = err.splitlines()
    assert f"0 of 2 vCPU, standard types spot, us-east-1: ask for 2 or more at {LINK}/{SPOT}" in line
    assert f"1 of 2 vCPU, standard types on demand, us-east-1: ask for 2 or more at {LINK}/{ON_DEMAND}" in line
    calls = account.cloud.calls()
    assert "RunInstances" not in {one["action"] for one in calls}
    assert not [one["path"] for one in calls if one["action"] == "PutObject" and "/runs/train" in one["path"]]


@pytest.mark.slow
def test_without_one_for_spot_it_is_rented_on_demand_and_said_once(account: Account) -> None:
    account.cloud.set_quota(SPOT, 1)
    code, out, err = launched(account, "run.id=quota")
    assert code == 0, err
    assert "trained" in out
    assert err.count(f"quota: 1 of 2 vCPU, standard types spot, us-east-1: ask for 2 or more at {LINK}/{SPOT}") == 1
    written = [one["path"] for one in account.cloud.calls() if one["action"] == "PutObject"]
    assert any("/runs/quota/" in path for path in written), "as the test above expects of a run that has begun"
    (instance,) = account.instances("quota")
    assert instance["market"] == "on_demand"
    account.check_that_nothing_runs(20)


@pytest.mark.parametrize("code", ["AccessDeniedException", pytest.param("ThrottlingException", marks=pytest.mark.soak)])
def test_what_may_not_be_looked_up_is_unknown_and_stands_in_nobodys_way(account: Account, code: str) -> None:
    account.cloud.set_quota(SPOT, 0)
    account.cloud.inject(Fault("GetServiceQuota", code, times=99))
    status, out, err = launched(account, "dry_run=true", "output=json")
    assert status == 0, err
    plan: dict[str, Any] = json.loads(out)["plan"]
    assert {offer["market"] for offer in plan["offers"]} == {"spot", "on_demand"}
    assert any("servicequotas:GetServiceQuota" in note for note in plan["notes"]), plan["notes"]
