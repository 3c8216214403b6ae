"""The ranks' environment on a rented host: made from what the project has, and from the cache the next time."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from indexes import Index, wheel
from waiting import wait_until
from whole import BUCKET, Account

from runctl.drill.cloud import Cloud

TOKEN = "canary-token-77c1"
FEATHERS = dict(
    [
        wheel("feather", "1.2", "VERSION = '1.2'\n", needs=("quill>=1", "torch>=2")),
        wheel("quill", "1.0", "INK = 'blue'\n"),
    ]
)
#: In its first attempt it trains until it is interrupted, and ends at once in its second.
SCRIPT = """
import os, sys, time
import quill, torch
print("prefix", sys.prefix, flush=True)
print("token", os.environ.get("INDEX_TOKEN"), flush=True)
print("attempt", os.environ["RUNCTL_ATTEMPT"], quill.INK, "torch", torch.__version__, flush=True)
while os.environ["RUNCTL_ATTEMPT"] == "1":
    time.sleep(0.1)
print("trained", flush=True)
"""
UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@pytest.fixture
def index() -> Iterator[Index]:
    server = Index(FEATHERS)
    yield server
    server.close()


@pytest.fixture
def private() -> Iterator[Index]:
    server = Index(FEATHERS, TOKEN)
    yield server
    server.close()


def interrupted_once(account: Account, run_id: str, *words: str, **options: Any) -> tuple[str, str]:
    """Launch, take the first host away once it trains and has kept its environment; what was said of both attempts."""
    launch = account.start("script=train.py", f"run.id={run_id}", f"run.root=s3://{BUCKET}/runs", *words, **options)

    def trains() -> bool:
        assert launch.poll() is None, account.said(launch)
        return "attempt 1 " in account.said(launch)[0] and "is kept for the next attempt" in "".join(
            account.said(launch)
        )

    wait_until(trains, 60, "it trains")
    (first,) = account.instances(run_id)
    account.cloud.interrupt(first["id"], notice_s=4.0)
    code = launch.wait(90)
    out, err = account.said(launch)
    assert code == 0, out + err
    return out, err


def environments(cloud: Cloud, run_id: str) -> list[dict[str, Any]]:
    """What the attempts' events say of their environments."""
    import boto3

    env = cloud.environment({})
    s3 = boto3.client(
        "s3", endpoint_url=cloud.url, region_name="us-east-1",
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"], aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET, Prefix=f"runs/{run_id}/events")["Contents"]]
    lines = [line for key in keys for line in s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().splitlines()]
    told = [one for one in map(json.loads, lines) if one["event"] == "environment"]
    return sorted(told, key=lambda one: one["attempt"])


def test_a_lock_of_uvs_is_followed_and_the_second_attempt_takes_it_from_the_cache(
    account: Account, index: Index
) -> None:
    (account.project / "train.py").write_text(SCRIPT)
    (account.project / "pyproject.toml").write_text(
        '[project]\nname = "bird"\nversion = "0"\nrequires-python = ">=3.10"\ndependencies = ["quill"]\n'
        f'[[tool.uv.index]]\nname = "here"\nurl = "{index.url}"\ndefault = true\n'
    )
    subprocess.run([str(UV), "lock", "--quiet"], cwd=account.project, check=True, timeout=60)
    index.fetched.clear()
    out, err = interrupted_once(account, "locked", "trainer=single")
    assert "trained" in out, err
    first, second = environments(account.cloud, "locked")
    assert (first["source"], second["source"]) == ("made", "cache"), err
    assert first["key"] == second["key"]
    assert index.fetched.count("quill-1.0-py3-none-any.whl") == 1
    one, other = re.findall(r"^prefix (.*)", out, re.M)
    assert one != other, "each host of the drill has a folder of its own: it was moved"
