"""Pods that nobody logs in to: they fetch what they need from object storage, with keys that RunPod keeps."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from rented_pods import EVERY_100, SAVES_ONCE, Yard, loopback, saved, stopped_and_went_on
from renting import L4, Desk

from runctl.errors import ConfigError
from runctl.platforms.runpod import RunpodPlatform
from runctl.platforms.runpod.options import RunpodConfig, Transport
from runctl.spec import LaunchSpec, Program, RunIdentity, RunState

KEYS = {"AWS_ACCESS_KEY_ID": "runpod:my_key_id", "AWS_SECRET_ACCESS_KEY": "runpod:my_key"}
ON_S3 = RunIdentity("one", "name", "s3://bucket/runs")
BY_START = {"transport": Transport.start_command}


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder = tmp_path_factory.mktemp("yard")
    (folder / "project").mkdir()
    with loopback(folder) as cloud:
        yield Yard(cloud, folder / "project")


@pytest.fixture
def root(yard: Yard, s3: Any) -> str:
    yard.cloud.set_secret("my_key_id", s3.env["AWS_ACCESS_KEY_ID"])
    yard.cloud.set_secret("my_key", s3.env["AWS_SECRET_ACCESS_KEY"])
    return f"s3://{s3.bucket()}/runs"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"run": RunIdentity("one", "name", "runs")}, "run.root=runs is none; run.root=s3://my-bucket/runs"),
        ({"secrets": {}}, "must not stand in the request for it, .*secrets.AWS_ACCESS_KEY_ID=runpod:my_key_id"),
        ({"secrets": {**KEYS, "HF": "env:HF_TOKEN"}}, r"secrets.HF=env:HF_TOKEN: .*\(secrets.HF=runpod:its_name\)"),
    ],
    ids=["no-storage", "no-keys", "env"],
)
def test_where_it_cannot_be_it_is_refused_before_anything_is_rented(
    runpod: Desk, fields: dict[str, Any], said: str
) -> None:
    platform = RunpodPlatform(runpod.project, RunpodConfig(gpu_type=L4, **BY_START))
    spec = LaunchSpec(**{"run": ON_S3, "program": Program("train.py", None), "secrets": KEYS, **fields})
    with pytest.raises(ConfigError, match=said):
        platform.check_ready(spec)


def test_the_request_names_secrets_and_holds_none(runpod: Desk, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the/secret+key")
    plan = runpod.plan(spec=LaunchSpec(ON_S3, Program("train.py", None), secrets=KEYS), gpu_type=L4, **BY_START)
    asked = plan.requests[0]["arguments"]
    env = {one["key"]: one["value"] for one in asked["env"]}
    assert asked["dockerArgs"] == 'bash -c \'eval "$(echo "$RUNCTL_START" | base64 -d)"\''
    assert (asked["ports"], asked["startSsh"]) == ("", False)
    assert env["RUNCTL_ORDERS"] == "s3://bucket/runs/one/hosts/a1.json"
    assert env["AWS_ACCESS_KEY_ID"] == "{{ RUNPOD_SECRET_my_key_id }}"
    assert env["AWS_ENDPOINT_URL"] == s3.env["AWS_ENDPOINT_URL"]
    programs = "".join(base64.b64decode(env[name]).decode() for name in ("RUNCTL_START", "RUNCTL_BOOT", "RUNCTL_FETCH"))
    for text in (json.dumps(plan.requests), programs):
        assert "the/secret+key" not in text
        assert "X-Amz-Signature=" not in text.replace("X-Amz-Signature={signature}", "")
    [note] = [one for one in plan.notes if "fetches" in one]
    assert "s3://bucket/runs with RunPod's secrets runpod:my_key_id, runpod:my_key" in note


def test_it_trains_and_ends_and_no_ssh_leads_to_it(yard: Yard, root: str, s3: Any) -> None:
    yard.cloud.set_secret("token", "runpods-own-value")
    script = """
import os
print("under way with", os.environ["TOKEN"][::-1], "RUNCTL_FETCH" in os.environ)
"""
    launch = yard.run(script, root=root, spec={"secrets": {**KEYS, "TOKEN": "runpod:token"}}, **BY_START)
    assert launch.outcome is not None, (launch.error, launch.told)
    assert launch.outcome.state is RunState.SUCCEEDED, launch.told
    assert "under way with eulav-nwo-sdopnur False" in launch.output
    [pod] = launch.pods
    assert pod["ssh_port"] is None
    assert pod["why"] == "terminated by request"
    launch.check_that_nothing_is_left()
    assert "runpods-own-value" not in json.dumps(pod["asked"])


@pytest.mark.soak  # over SSH the same is no soak
def test_a_host_that_cannot_be_brought_up_says_why_over_object_storage(yard: Yard, root: str) -> None:
    launch = yard.run("", root=root, spec={"secrets": KEYS}, setup=["echo no such thing; exit 3"], **BY_START)
    assert launch.outcome is not None, launch.error
    assert launch.outcome.state is RunState.FAILED
    assert "setup line 1 ended with code 3" in launch.outcome.reason
    launch.check_that_nothing_is_left()


@pytest.mark.soak  # test_pod_fetch.py has what the pod does
def test_keys_that_runpod_does_not_have_end_the_pod_and_are_named(yard: Yard, root: str) -> None:
    names = {name: f"{kept}_nobody_made" for name, kept in KEYS.items()}
    launch = yard.run("", root=root, spec={"secrets": names}, max_attempts=1, **BY_START)
    assert launch.outcome is not None, launch.error
    assert launch.outcome.state is not RunState.SUCCEEDED
    assert "the keys that RunPod keeps must open run.root" in " ".join([*launch.told, launch.outcome.reason])
    launch.check_that_nothing_is_left()


@pytest.mark.soak  # 30 s; without object storage the same is in test_failures_of_running_pods.py
def test_runpods_sigterm_is_heard_and_what_was_saved_then_is_uploaded(yard: Yard, root: str) -> None:
    launch = yard.run(
        SAVES_ONCE, when=saved, then=yard.cloud.interrupt, root=root, spec={"secrets": KEYS, "checkpoint": EVERY_100},
        **BY_START,
    )  # fmt: skip
    stopped_and_went_on(launch)
