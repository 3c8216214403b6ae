"""A whole launch whose agent runs in a container, on the loopback cloud and with a `docker` that is none.

No real daemon was there: tests/platforms/containers_here.py says what of it is true.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from containers_here import IMAGE, Docker
from waiting import wait_until
from whole import BUCKET, Account

from runctl.environment import Environment
from runctl.platforms import containers
from runctl.platforms.aws import requests
from runctl.platforms.aws.options import AwsConfig, AwsOptions
from runctl.spec import LaunchSpec, Limits, Offer, Program, RunIdentity

TOKEN = "canary-container-52d0"
SCRIPT = """
import hashlib, os, sys, time
print("token", hashlib.sha256(os.environ["TOKEN"].encode()).hexdigest(), flush=True)
print("python", sys.executable, flush=True)
print("attempt", os.environ["RUNCTL_ATTEMPT"], flush=True)
while sys.argv[1:] and os.environ["RUNCTL_ATTEMPT"] == "1":
    time.sleep(0.1)
print("trained", flush=True)
"""


def start(account: Account, docker: Docker, *words: str) -> subprocess.Popen[bytes]:
    (account.project / "train.py").write_text(SCRIPT)
    env = account.cloud.environment(
        {"PATH": "/usr/bin:/bin", "XDG_CONFIG_HOME": str(account.folder), "MY_TOKEN": TOKEN}
    )
    return account.start(
        "script=train.py", "run.id=boxed", f"run.root=s3://{BUCKET}/runs", "python_env=docker",
        f"docker.image={IMAGE}", "secrets.TOKEN=env:MY_TOKEN", "secrets_scope.TOKEN=both",
        # Found first, as the host's own programs are.
        f"platform.setup=['ln -s {docker.program} \"$HOME/../bin/docker\"']", *words, env=env,
    )  # fmt: skip


def check(account: Account, docker: Docker, launch: subprocess.Popen[bytes], *, attempts: int) -> None:
    code = launch.wait(90)
    out, err = account.said(launch)
    assert code == 0, out + err
    assert "trained" in out
    assert re.findall(r"^token (.*)", out, re.M) == [hashlib.sha256(TOKEN.encode()).hexdigest()] * attempts
    told = docker.seen()
    assert TOKEN not in json.dumps([one["argv"] for one in told])
    agents = [one["argv"] for one in told if "runctl.agent" in one["argv"]]
    names = [argv[argv.index("--name") + 1] for argv in agents]
    assert [name.rpartition("-")[0] for name in names] == [f"runctl-boxed-a{n}" for n in range(1, attempts + 1)]
    assert [one["argv"][-1] for one in told].count("-V") == attempts, "each host tried the image first"
    account.check_that_nothing_runs(30)
    assert docker.containers() == {}


@pytest.mark.slow
def test_the_agent_and_what_it_trains_run_in_a_container(account: Account, tmp_path: Path) -> None:
    docker = Docker(tmp_path / "docker")
    check(account, docker, start(account, docker), attempts=1)


@pytest.mark.soak
def test_an_interruption_is_heard_in_the_container_and_another_goes_on(account: Account, tmp_path: Path) -> None:
    docker = Docker(tmp_path / "docker")
    launch = start(account, docker, "argv=[wait]")

    def trains() -> bool:
        assert launch.poll() is None, account.said(launch)
        return "attempt 1" in account.said(launch)[0]

    wait_until(trains, 60, "it trains")
    (first,) = account.instances("boxed")
    account.cloud.interrupt(first["id"], notice_s=5.0)
    check(account, docker, launch, attempts=2)


@pytest.mark.parametrize(("kind", "hops"), [("docker", 2), ("system", 1), ("uv", 1), ("conda", 1)])
def test_metadata_reach_into_a_container_and_no_further_for_anybody_else(kind: str, hops: int) -> None:
    spec = LaunchSpec(RunIdentity("x-1", "x", "s3://b/runs"), Program("train.py", None), limits=Limits(3600.0))
    spec = replace(spec, environment=Environment(kind, image=IMAGE if kind == "docker" else None))
    options = AwsOptions.of(AwsConfig(), "us-east-1", attached=False)
    offer = Offer("aws", "g6.xlarge", "spot", "us-east-1", "us-east-1a", 0.3)
    regions = {"us-east-1": {"security_group": "sg-1"}}
    (asked,) = requests.renting(spec, options, 1, [offer], regions=regions, owner="me")
    assert asked["arguments"]["MetadataOptions"] == {
        "HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": hops,
    }  # fmt: skip
    orders = containers.orders(spec, 3, ("mine",))
    if kind != "docker":
        assert orders == {"setup": ["mine"], "agent_python": None, "env": {}}
        return
    assert orders["setup"] == ["mine", "../docker/docker-python -V"]
    assert orders["env"] == {"RUNCTL_DOCKER_IMAGE": IMAGE, "RUNCTL_DOCKER_NAME": "runctl-x-1-a3"}
