"""Regions differ in what they have: what one lacks is rented in another, and makes nothing unknown."""

from __future__ import annotations

import json

from whole import BUCKET, Account


def test_a_type_that_one_region_lacks_leaves_its_other_types_known(account: Account) -> None:
    (account.project / "train.py").write_text("print('trained')")
    launch = account.start(
        "script=train.py", f"run.root=s3://{BUCKET}/runs", "dry_run=true", "output=json",
        "platform.region=[us-west-1,us-west-2]", "platform.instance_type=[p4d.24xlarge,t3.medium]",
    )  # fmt: skip
    code = launch.wait(60)
    out, err = account.said(launch)
    assert code == 0, err
    plan = json.loads(out)["plan"]
    where = {(one["machine"], one["region"]) for one in plan["offers"]}
    assert where == {("p4d.24xlarge", "us-west-2"), ("t3.medium", "us-west-1"), ("t3.medium", "us-west-2")}
    assert not [note for note in plan["notes"] if note.startswith("unknown")], plan["notes"]
    images = {one["arguments"]["ImageId"] for one in plan["requests"] if one["call"] == "RunInstances"}
    assert all(image.startswith("ami-") for image in images)
