"""What a pod without sshd does by itself: it signs as S3 wants it, waits for its orders, starts its keeper once."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from runctl.hosts import runpod_fetch
from runctl.hosts.runpod_fetch import Signer
from runctl.storage import open_store

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "sec/ret+key"}
NOW = 1_700_000_000.0
#: Stands in for the keeper: says with what it was started.
KEEPER = """
import json, os, pathlib, sys
home = pathlib.Path(sys.argv[2])
(home / "started").touch()
names = ("PATH", "RUNCTL_ORDERS", "AWS_ACCESS_KEY_ID")
(home / "said").write_text(json.dumps({name: os.environ.get(name) for name in names}))
"""


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ({}, "s3://bucket/runs/one/hosts/a1.json"),
        ({"AWS_REGION": "eu-central-1"}, "s3://my.bucket/a key/with ünicode & 'quotes'+.json"),
        ({"AWS_REGION": "cn-north-1", "AWS_SESSION_TOKEN": "to/ken=="}, "s3://bucket/x"),
        ({"AWS_REGION": "auto", "AWS_ENDPOINT_URL_S3": "https://abc.r2.example.com"}, "s3://bucket/x/y"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:5000/s3/"}, "s3://bucket/x/y"),
    ],
    ids=["plain", "names", "session", "endpoint", "endpoint-with-path"],
)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_its_links_are_those_that_botocore_makes(
    env: dict[str, str], url: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import botocore.auth
    import botocore.session
    from botocore.config import Config

    signer = Signer({**KEYS, **env})
    made = signer.link(method, url, 3600, NOW)

    when = datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: when.replace(tzinfo=None))
    endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
    client = botocore.session.Session().create_client(
        "s3", signer.region, aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"], endpoint_url=endpoint,
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"], aws_session_token=env.get("AWS_SESSION_TOKEN"),
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path" if endpoint else "auto", "us_east_1_regional_endpoint": "regional"},
        ),
    )  # fmt: skip
    bucket, key = url.removeprefix("s3://").split("/", 1)
    name = {"GET": "get_object", "PUT": "put_object"}[method]
    expected = client.generate_presigned_url(name, Params={"Bucket": bucket, "Key": key}, ExpiresIn=3600)
    assert sorted(made.split("?")[1].split("&")) == sorted(expected.split("?")[1].split("&"))
    assert made.split("?")[0] == expected.split("?")[0]


def test_no_link_is_good_for_longer_than_s3_allows() -> None:
    assert "X-Amz-Expires=604800&" in Signer(KEYS).link("GET", "s3://bucket/x", 1e9, NOW)


class Pod:
    """A container with that program in it."""

    def __init__(self, folder: Path, root: str, env: dict[str, str]) -> None:
        self.root = folder / "pod"
        self.url = f"{root}/one/hosts/a1.json"
        self.env = {
            "PATH": os.environ["PATH"], **env, "RUNCTL_HOST_ROOT": str(self.root), "RUNCTL_ORDERS": self.url,
            "RUNCTL_BRING_UP_S": "30", "RUNPOD_POD_ID": "p0d",
        }  # fmt: skip
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **env: str) -> None:
        with self.log.open("wb") as log, Path(runpod_fetch.__file__).open("rb") as program:
            self.process = subprocess.Popen([sys.executable, "-"], stdin=program, stdout=log, env={**self.env, **env})

    @property
    def home(self) -> Path:
        return self.root / "one" / "a1"

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def pod(tmp_path: Path, fresh_bucket: str) -> Iterator[Pod]:
    kept = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    made = Pod(tmp_path, f"s3://{fresh_bucket}/runs", kept)
    yield made
    made.end()


def orders(pod: Pod, instance: str = "p0d") -> dict[str, Any]:
    root = pod.url.removesuffix("/one/hosts/a1.json")
    return {
        "run_id": "one", "attempt": 1, "instance": instance, "deadline": time.time() + 600, "keep_warm_s": 0.0,
        "files": [{"name": "project.tar.gz", "url": f"{root}/.parcels/project.tar.gz"}],
        "log_url": f"{root}/one/logs/a1/bring-up.log", "programs": {"keeper.py": KEEPER, "bin/shutdown": "#!/bin/sh"},
    }  # fmt: skip


def put(pod: Pod, told: dict[str, Any]) -> None:
    open_store(pod.url.removesuffix("/hosts/a1.json")).write("hosts/a1.json", json.dumps(told).encode())


@pytest.mark.slow
def test_it_waits_for_its_own_orders_and_starts_the_keeper_with_links_that_open(pod: Pod) -> None:
    store = open_store(pod.url.removesuffix("/one/hosts/a1.json"))
    store.write(".parcels/project.tar.gz", b"the project")
    pod.start()
    wait_until(lambda: "HTTP 404" in pod.log.read_text(), 20, "it waits")
    put(pod, orders(pod, "another's"))
    wait_until(lambda: "another pod's" in pod.log.read_text(), 20, "those are not its own")
    put(pod, orders(pod))
    wait_until((pod.home / "said").exists, 20, "the keeper is started")
    said = json.loads((pod.home / "said").read_text())
    assert said["PATH"].startswith(f"{pod.home}/bin:")
    assert said["RUNCTL_ORDERS"] is None
    assert said["AWS_ACCESS_KEY_ID"] == pod.env["AWS_ACCESS_KEY_ID"]
    host = json.loads((pod.home / "host.json").read_text())
    assert "programs" not in host
    assert urllib.request.urlopen(host["files"][0]["url"], timeout=10).read() == b"the project"
    request = urllib.request.Request(host["log_url"], b"the log", {"Content-Type": ""}, method="PUT")
    urllib.request.urlopen(request, timeout=10).close()
    assert store.read("one/logs/a1/bring-up.log") == b"the log"
    assert (pod.home / "host.json").stat().st_mode & 0o077 == 0
    assert pod.process is not None and pod.process.poll() is None, "a container must not end"
    assert not (pod.root / "end").exists()


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"RUNCTL_BRING_UP_S": "0.1"}, "they did not come in time"),
        ({"AWS_ACCESS_KEY_ID": "{{ RUNPOD_SECRET_mine }}"}, "AWS_ACCESS_KEY_ID: RunPod has no secret of the name"),
    ],
    ids=["late", "no-secret"],
)
def test_one_that_cannot_begin_asks_for_its_end_and_says_why(
    tmp_path: Path, env: dict[str, str], said: str, s3: Any
) -> None:
    pod = Pod(tmp_path, f"s3://{s3.bucket()}/runs", s3.env)
    pod.start(**env)
    try:
        wait_until((pod.root / "end").exists, 20, "it asks for its end")
        wait_until(lambda: said in pod.log.read_text(), 5, "it says why")
    finally:
        pod.end()


def test_one_that_starts_again_starts_nothing(tmp_path: Path, s3: Any) -> None:
    pod = Pod(tmp_path, f"s3://{s3.bucket()}/runs", s3.env)
    put(pod, orders(pod))
    pod.home.mkdir(parents=True)
    (pod.home / "started").touch()
    pod.start()
    try:
        wait_until(lambda: "started again" in pod.log.read_text(), 20, "it says so")
        assert not (pod.home / "host.json").exists()
    finally:
        pod.end()
