"""A stranger's account, an empty home: every mistake ends in a few lines that say what to do, and `setup` mends it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until
from whole import LAUNCH

from runctl.drill.cloud import Cloud
from runctl.drill.faults import Fault
from runctl.platforms.aws import policies
from runctl.platforms.aws.place import Place

RUNCTL = Path(sys.executable).with_name("runctl")
#: What they type, every time.
TYPED = ("+platform=aws", "script=train.py", "platform.instance_type=t3.medium")
BUCKET = "runctl-123456789012-us-east-1"
PLACE = Place("123456789012", BUCKET, "runs")
SCREEN_LINES = 24


@dataclass
class NewUser:
    """Someone with a script, keys and nothing else.

    Attributes:
        iam: as the account's owner, who can give rights.
    """

    cloud: Cloud
    home: Path
    project: Path
    iam: Any
    keys: list[dict[str, str]]

    def environment(self, **more: str) -> dict[str, str]:
        told = self.cloud.environment({"PATH": "/usr/bin:/bin", "HOME": str(self.home)})
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            del told[name]
        return {**told, **more}

    def signed_in(self, **more: str) -> dict[str, str]:
        key = self.keys[0]
        return self.environment(
            AWS_ACCESS_KEY_ID=key["AccessKeyId"], AWS_SECRET_ACCESS_KEY=key["SecretAccessKey"], **more
        )

    def types(self, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        program = LAUNCH if words[0] == "runctl-launch" else RUNCTL
        return subprocess.run(
            [str(program), *words[1:]], cwd=self.project, env=env or self.signed_in(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def launches(self, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return self.types("runctl-launch", *TYPED, *words, env=env)

    def may(self, *granted: policies.Policy) -> None:
        for number, policy in enumerate(granted):
            self.iam.put_user_policy(UserName="ada", PolicyName=f"given-{number}", PolicyDocument=json.dumps(policy))


@contextlib.contextmanager
def stranger(folder: Path) -> Iterator[NewUser]:
    import boto3

    with Cloud(iam=True) as cloud:
        root = cloud.environment({})
        iam = boto3.Session(root["AWS_ACCESS_KEY_ID"], root["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1").client(
            "iam", endpoint_url=cloud.url
        )
        iam.create_user(UserName="ada")
        keys = [iam.create_access_key(UserName="ada")["AccessKey"] for _ in range(2)]
        project = folder / "project"
        project.mkdir()
        (project / "train.py").write_text("print('trained')\n")
        yield NewUser(cloud, folder, project, iam, keys)


@pytest.fixture
def ada(tmp_path: Path) -> Iterator[NewUser]:
    with stranger(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NewUser, dict[str, str]]]:
    """An account that its owner has set up, and the owner's environment, for those who rent nothing in it."""
    folder = tmp_path_factory.mktemp("ready")
    with stranger(folder) as made:
        owner = made.cloud.environment({"PATH": "/usr/bin:/bin", "HOME": str(folder)})
        assert made.types("runctl", "aws", "setup", env=owner).returncode == 0
        yield made, owner


def check_one_screen(done: subprocess.CompletedProcess[str], *said: str) -> None:
    assert done.returncode not in (0, 1), (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= SCREEN_LINES
    for words in said:
        assert words in done.stderr, done.stderr


@pytest.mark.slow
def test_from_no_credentials_to_a_training_each_step_says_the_next(ada: NewUser) -> None:
    check_one_screen(ada.launches(env=ada.environment()), "there are no AWS credentials here", "aws configure")

    # Credentials, and no right at all.
    check_one_screen(ada.launches(), "`runctl aws setup`")
    check_one_screen(ada.launches(f"run.root=s3://{BUCKET}/runs"), "AccessDenied", "`runctl aws policy`")
    refused = ada.types("runctl", "aws", "setup")
    assert refused.returncode == 78, refused.stdout
    for right in ("s3:CreateBucket", "iam:CreateRole", "iam:CreateInstanceProfile", "ec2:CreateSecurityGroup"):
        assert right in refused.stdout, refused.stdout
    assert "runctl aws policy setup" in refused.stdout
    assert "Traceback" not in refused.stdout + refused.stderr
    assert not (ada.home / ".config").exists(), "nothing is remembered that is not there"

    # The rights that were asked for, and no bucket yet.
    ada.may(*(json.loads(ada.types("runctl", "aws", "policy", whose).stdout) for whose in ("setup", "launcher")))
    check_one_screen(ada.launches(), "`runctl aws setup`")
    assert ada.cloud.instances() == []

    done = ada.types("runctl", "aws", "setup")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"runs go to s3://{BUCKET}/runs" in done.stdout
    again = ada.types("runctl", "aws", "setup", "--json")
    assert {one["state"] for one in json.loads(again.stdout)["steps"]} == {"was there"}
    looked = ada.types("runctl", "aws", "doctor", "--type", "t3.medium", "--json")
    assert {one["health"] for one in json.loads(looked.stdout)} == {"ok"}, looked.stdout

    trained = ada.launches()
    assert trained.returncode == 0, trained.stderr
    assert "trained" in trained.stdout
    assert f"s3://{BUCKET}/runs/" in trained.stderr
    wait_until(lambda: [one["state"] for one in ada.cloud.instances()] == ["terminated"], 20, "its end")


@pytest.mark.soak
def test_who_may_launch_and_not_set_up_is_ready_once_an_administrator_has_set_up(ada: NewUser) -> None:
    ada.may(policies.launcher(PLACE))
    owner = ada.cloud.environment({"PATH": "/usr/bin:/bin", "HOME": str(ada.home / "owner")})
    assert ada.types("runctl", "aws", "setup", env=owner).returncode == 0
    done = ada.launches(f"run.root=s3://{BUCKET}/runs")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("platform.subnets=[{cut off}]",), ("no route to the internet, and no endpoint for ssm, ssmmessages, s3",
                                             "platform.subnets")),
        (("platform.region=us-west-1", "platform.instance_type=p4d.24xlarge"), ("not offered in us-west-1",
                                                                                 "platform.region")),
        (("platform.instance_profile=mine",), ("there is no such instance profile", "`runctl aws setup`")),
    ],
    ids=["a subnet without a way out", "a region without the type", "no instance profile"],
)  # fmt: skip
def test_what_can_never_work_is_said_before_anything_is_rented(ready, words, said) -> None:
    ada, owner = ready
    subnet = ada.cloud.make_subnet("us-east-1a") if "{" in words[0] else ""
    done = ada.launches(*(word.replace("{cut off}", subnet) for word in words), env=owner)
    check_one_screen(done, *said)
    assert ada.cloud.instances() == []


@pytest.mark.soak
def test_a_subnet_with_endpoints_is_as_good_as_one_with_a_way_out(ada: NewUser) -> None:
    owner = ada.cloud.environment({"PATH": "/usr/bin:/bin", "HOME": str(ada.home)})
    assert ada.types("runctl", "aws", "setup", env=owner).returncode == 0
    subnet = ada.cloud.make_subnet("us-east-1a", ["ssm", "ssmmessages", "ec2messages", "s3"])
    done = ada.launches(f"platform.subnets=[{subnet}]", env=owner)
    assert done.returncode == 0, done.stderr


@pytest.mark.soak
def test_a_session_that_expires_is_said_and_once_signed_in_again_the_launch_goes_on(ada: NewUser) -> None:
    owner = ada.cloud.environment({"PATH": "/usr/bin:/bin", "HOME": str(ada.home)})
    assert ada.types("runctl", "aws", "setup", env=owner).returncode == 0
    ada.may(policies.launcher(PLACE))
    (ada.project / "train.py").write_text("import time\ntime.sleep(8)\nprint('trained')\n")
    signed_in = ada.home / "credentials"

    def sign_in(key: dict[str, str]) -> None:
        signed_in.write_text(
            f"[default]\naws_access_key_id={key['AccessKeyId']}\naws_secret_access_key={key['SecretAccessKey']}\n"
        )

    sign_in(ada.keys[0])
    with (ada.home / "out").open("w") as out:
        launch = subprocess.Popen(
            [str(LAUNCH), *TYPED, "platform.keep_on_failure=0"], cwd=ada.project, stdin=subprocess.DEVNULL,
            env=ada.environment(AWS_SHARED_CREDENTIALS_FILE=str(signed_in)), stdout=out, stderr=out,
        )  # fmt: skip
    told = ada.home / "out"
    try:
        wait_until(lambda: "the training runs on" in told.read_text(), 60, "a training")
        expired = {"message": "The security token included in the request is expired", "times": 10_000}
        ada.cloud.inject(Fault("*", "ExpiredToken", 400, key=ada.keys[0]["AccessKeyId"], **expired))
        wait_until(lambda: "the AWS credentials have expired; sign in again" in told.read_text(), 30, "what to do")
        wait_until(lambda: [one["state"] for one in ada.cloud.instances()] == ["terminated"], 60, "the host's own end")
        assert launch.poll() is None, "the launcher waits for somebody who signs in again"
        sign_in(ada.keys[1])
        assert launch.wait(90) == 0, told.read_text()
    finally:
        launch.kill()
        launch.wait()
    said = told.read_text()
    assert "trained" in said
    assert "Traceback" not in said
    assert len(said.splitlines()) <= SCREEN_LINES, said
