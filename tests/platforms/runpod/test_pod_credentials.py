"""What a pod writes to object storage with lives longer than the run may, or the launch is refused."""

from __future__ import annotations

import pytest

from runctl.errors import ConfigError
from runctl.platforms.runpod import credentials
from runctl.spec import CheckpointPolicy, LaunchSpec, Program, RunIdentity

S3_RUN = LaunchSpec(RunIdentity("one", "name", "s3://bucket/runs"), Program("train.py", None))
NAMED = {"AWS_ACCESS_KEY_ID": "runpod:id", "AWS_SECRET_ACCESS_KEY": "runpod:key"}


def _replace(**fields: object) -> LaunchSpec:
    from dataclasses import replace

    return replace(S3_RUN, **fields)


def test_they_are_needed_where_something_lies_on_s3_and_runpod_does_not_keep_them() -> None:
    local = RunIdentity("one", "name", "runs")
    assert credentials.needed(S3_RUN)
    assert not credentials.needed(_replace(run=local))
    assert credentials.needed(_replace(run=local, checkpoint=CheckpointPolicy(url="s3://bucket/checkpoints")))
    assert not credentials.needed(_replace(secrets=NAMED))


def test_keys_of_a_user_become_a_session_and_the_endpoint_travels_along(s3: object) -> None:
    made = credentials.session(3600.0)
    assert made["AWS_SESSION_TOKEN"]
    assert made["AWS_ACCESS_KEY_ID"] != "test"
    assert made["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
    with pytest.raises(
        ConfigError, match=r"a pod may live for 50\.0 h then, and AWS makes no session of more than 36 h"
    ):
        credentials.session(50 * 3600.0)


def test_a_session_that_may_end_before_the_pod_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "of-sso")
    with pytest.raises(ConfigError, match=r"a session that ends at an unknown time, and the pod may live for 2\.0 h"):
        credentials.session(7200.0)


def test_without_any_it_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    with pytest.raises(ConfigError, match=r"no AWS credentials here .*runpod:my_key_id"):
        credentials.session(7200.0)
