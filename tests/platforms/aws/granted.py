"""An account of the drill's in which rights count: a user who launches, and the role of the hosts."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rehearsal import BUCKET, ROOT, Launch, Rehearsal, rehearsal

from runctl.checkpoint.policy import CheckpointPolicy
from runctl.drill.metadata import LAUNCHER, SECRET
from runctl.platforms.aws import policies
from runctl.platforms.aws.policies import Place, Policy

PLACE = Place("123456789012", BUCKET, "runs")
USER, TOKEN = "ada", "canary-token-7f3a"
#: Leaves a checkpoint; if it is long, it waits to be taken away, and ends where it has the checkpoint.
SCRIPT = """
import os, pathlib, time
assert os.environ["TOKEN"]
found = os.environ.get("RUNCTL_RESUME_FROM")
if found is None:
    pathlib.Path("step-1.ckpt").write_text("one step")
    time.sleep(90 if "long" in __file__ else 1)
print("resumed" if found else "from the beginning", flush=True)
"""


@dataclass
class Granted:
    """A cloud in which rights are checked.

    Attributes:
        aws: launches there.
        iam: IAM, as the account itself.
    """

    aws: Rehearsal
    iam: Any

    def grant(self, launcher: Policy, host: Policy, *, speaks_with_ssm: bool = True) -> None:
        """Give the user and the host's role these rights and no other."""
        self.iam.put_user_policy(UserName=USER, PolicyName="launcher", PolicyDocument=json.dumps(launcher))
        self.iam.put_role_policy(RoleName=PLACE.role, PolicyName="host", PolicyDocument=json.dumps(host))
        attached = self.iam.list_attached_role_policies(RoleName=PLACE.role)["AttachedPolicies"]
        if attached and not speaks_with_ssm:
            self.iam.detach_role_policy(RoleName=PLACE.role, PolicyArn=PLACE.ssm_core_arn)
        elif speaks_with_ssm and not attached:
            self.iam.attach_role_policy(RoleName=PLACE.role, PolicyArn=PLACE.ssm_core_arn)

    def forget(self) -> None:
        """Have the account as it was before its first launch: without a group, and without EC2's role for spot."""
        ec2 = self.root("ec2")
        named = [{"Name": "group-name", "Values": ["runctl"]}]
        for group in ec2.describe_security_groups(Filters=named)["SecurityGroups"]:
            ec2.delete_security_group(GroupId=group["GroupId"])
        with contextlib.suppress(self.iam.exceptions.NoSuchEntityException):
            self.iam.delete_role(RoleName="AWSServiceRoleForEC2Spot")

    def launch(self, *, interrupted: bool = False, **options: Any) -> Launch:
        """A whole launch with a secret and a checkpoint; its first host is taken back if that is asked for."""
        ended = threading.Event()
        before = {one["id"] for one in self.aws.cloud.instances()}

        def take_back() -> None:
            while not ended.wait(0.1):
                for one in self.aws.cloud.instances():
                    kept = f"{ROOT}/{one['tags'].get('runctl:run')}/checkpoints/LATEST"
                    if one["id"] not in before and self.aws.cloud.read(kept) is not None:
                        self.aws.cloud.interrupt(one["id"], 8.0)
                        return

        thread = threading.Thread(target=take_back)
        if interrupted:
            thread.start()
        spec = {
            "secrets": {"TOKEN": "env:MY_TOKEN"},
            "checkpoint": CheckpointPolicy(watch="*.ckpt"),
        }
        try:
            return self.aws.run(script="long.py" if interrupted else "short.py", spec=spec, **options)
        finally:
            ended.set()
            if interrupted:
                thread.join()

    def root(self, service: str) -> Any:
        """A client of the account itself, which may do everything."""
        import boto3

        return boto3.Session(LAUNCHER, SECRET, region_name="us-east-1").client(service)

    def parameters(self) -> list[str]:
        """What of ours lies in SSM."""
        return [one["Name"] for one in self.root("ssm").describe_parameters()["Parameters"]]


@contextlib.contextmanager
def granted(folder: Path) -> Iterator[Granted]:
    """An account with a user and a host's role, both without a right, whose keys this process has."""
    import boto3
    import s3fs

    with rehearsal(folder, iam=True) as aws, pytest.MonkeyPatch.context() as patch:
        for name in ("long.py", "short.py"):
            (aws.project / name).write_text(SCRIPT)
        iam = boto3.Session(LAUNCHER, SECRET, region_name="us-east-1").client("iam")
        iam.create_user(UserName=USER)
        key = iam.create_access_key(UserName=USER)["AccessKey"]
        iam.create_role(RoleName=PLACE.role, AssumeRolePolicyDocument=json.dumps(policies.HOST_TRUST))
        iam.create_instance_profile(InstanceProfileName=PLACE.profile)
        iam.add_role_to_instance_profile(InstanceProfileName=PLACE.profile, RoleName=PLACE.role)
        patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        patch.setenv("MY_TOKEN", TOKEN)
        s3fs.S3FileSystem.clear_instance_cache()
        yield Granted(aws, iam)
