"""A smoke run on rented hosts: the second goes on from what the first had uploaded, and nothing is left running."""

from __future__ import annotations

import json

import pytest
from saving import SAVES
from whole import BUCKET, Account


@pytest.mark.soak
def test_both_attempts_have_a_host_and_the_cost_of_both_is_said(account: Account) -> None:
    (account.project / "train.py").write_text(SAVES)
    launch = account.start(
        "smoke=true", "script=train.py", f"run.root=s3://{BUCKET}/runs", "checkpoint.watch=*.ckpt", "output=json"
    )
    code = launch.wait(150)
    out, err = account.said(launch)
    assert code == 0, err
    told = json.loads(out.splitlines()[-1])
    assert [one["proved"] for one in told["smoke"]["proofs"]] == [True] * 4
    hosts = account.instances(told["run_id"])
    assert [one["tags"]["runctl:attempt"] for one in hosts] == ["1", "2"]
    assert told["cost_usd"] > 0
    assert f"2 attempts, {told['cost_usd']:.4f} USD" in err
    account.check_that_nothing_runs(20)
