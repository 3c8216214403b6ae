"""Failures as whoever types `runctl-launch` meets them: the command, its words, its exit code, and what it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rehearsal import ROOT, Launch, Rehearsal, rehearsal

from runctl.drill.faults import Fault
from runctl.errors import ExitCode

#: Minutes of it; `make soak` runs them.
pytestmark = pytest.mark.soak

ALWAYS = 10_000


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    with rehearsal(tmp_path_factory.mktemp("aws")) as made:
        yield made


def launched(aws: Rehearsal, run_id: str, *faults: Fault) -> tuple[subprocess.CompletedProcess[str], Launch]:
    """The command with some faults, and what it left."""
    before = len(aws.cloud.calls())
    for fault in faults:
        aws.cloud.inject(fault)
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "runctl-launch"), "+platform=aws", "trainer=single", "script=train.py",
            f"run.root={ROOT}", f"run.id={run_id}", "platform.instance_type=t3.medium", "platform.fallback_after=1s",
            "platform.keep_on_failure=0", "limits.max_time=10m", "output=json",
        ],
        cwd=aws.project, env=dict(os.environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150,
        check=False,
    )  # fmt: skip
    aws.cloud.clear()
    assert "Traceback" not in done.stderr, done.stderr
    launch = Launch(run_id, aws.cloud, aws.cloud.calls()[before:], done.stderr.splitlines(), 0.0)
    launch.check_that_nothing_is_left()
    return done, launch


def test_a_lost_answer_and_a_refused_moment_at_every_step_end_well(aws: Rehearsal) -> None:
    actions = ("RunInstances", "SendCommand", "TerminateInstances", "PutObject")
    done, launch = launched(aws, "bumpy", *(Fault(action, "", after=True) for action in actions))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "succeeded"
    assert set(launch.injected) == set(actions)
    assert len(launch.instances) == 1


def test_a_spot_quota_of_none_goes_on_demand_at_once_and_says_so(aws: Rehearsal) -> None:
    done, launch = launched(aws, "quota", Fault("RunInstances", "MaxSpotInstanceCountExceeded", market="spot"))
    assert done.returncode == 0, done.stderr
    assert "MaxSpotInstanceCountExceeded" in done.stderr
    assert "going on demand" in done.stderr
    assert [one["market"] for one in launch.instances] == ["on_demand"]


@pytest.mark.parametrize("action", ["RunInstances", "CreateSecurityGroup", "SendCommand"])
def test_a_right_that_is_missing_is_named_and_costs_nothing_more(aws: Rehearsal, action: str) -> None:
    code = "AccessDeniedException" if action == "SendCommand" else "UnauthorizedOperation"
    import boto3

    ec2 = boto3.client("ec2")
    for group in ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["runctl"]}])["SecurityGroups"]:
        ec2.delete_security_group(GroupId=group["GroupId"])
    done, launch = launched(aws, f"denied-{action.lower()}", Fault(action, code, 403, times=ALWAYS))
    assert code in done.stderr
    assert done.returncode == (ExitCode.FAILED if action == "SendCommand" else ExitCode.NOT_ALLOWED)
    assert len(launch.instances) == (action == "SendCommand")
