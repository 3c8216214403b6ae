"""Choosing a platform: typed in any way, or named by the project's file."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("words", [["+platform=aws"], ["platform=aws"], ["++platform=aws"]])
def test_a_platform_may_be_typed_with_or_without_plus(desk, words):
    assert desk.plan("script=train.py", *words)["plan"]["platform"] == "aws"


def test_local_is_the_same_typed_or_not(desk):
    plans = [
        desk.plan("script=train.py", "run.id=one", *words) for words in ([], ["platform=local"], ["+platform=local"])
    ]
    assert plans[0]["plan"]["platform"] == "local"
    assert plans[0] == plans[1] == plans[2]


@pytest.mark.parametrize("platform", ["platform=aws,local", "+platform=aws,local"])
def test_platforms_are_swept(desk, platform):
    plans = desk.plans("-m", "script=train.py", platform)
    assert [plan["plan"]["platform"] for plan in plans] == ["aws", "local"]


@pytest.mark.parametrize("entry", ["override /platform: aws", "override platform: aws", "platform: aws"])
def test_the_project_chooses_a_platform_and_sets_its_options(desk, entry):
    desk.project(f"""
        defaults:
          - {entry}
        script: train.py
        args: {{batch_size: 2, learning_rate: 0.5}}
        platform: {{multipliers: {{batch_size: 8}}}}
    """)
    plan = desk.plan()
    assert plan["plan"]["platform"] == "aws"
    assert plan["args"]["batch_size"]["effective"] == 16
    assert plan["args"]["learning_rate"]["effective"] == 2.0


@pytest.mark.parametrize("words", [["platform=local"], ["+platform=local"]])
def test_local_typed_over_the_projects_platform_wins(desk, words):
    desk.project("defaults: [override /platform: aws]\nscript: train.py\nargs: {batch_size: 2, learning_rate: 0.5}\n")
    plan = desk.plan(*words)
    assert plan["plan"]["platform"] == "local"
    assert plan["args"]["batch_size"]["effective"] == 2


@pytest.mark.parametrize("platform", ["aws", "runpod"])
def test_rented_platforms_ship_multipliers(desk, platform):
    desk.project("script: train.py\nargs: {batch_size: 64, learning_rate: 1e-3}\n")
    assert desk.args(f"platform={platform}") == {"batch_size": 256, "learning_rate": 0.004}


def test_a_platform_without_a_key_says_where_to_get_one(desk):
    refusal = desk.refusal("platform=runpod", "script=train.py")
    assert "there is no RunPod API key here" in refusal
    assert "RUNPOD_API_KEY" in refusal


def test_a_platforms_own_options_are_checked_as_ours_are(desk):
    refusal = desk.refusal("platform=aws", "script=train.py", "platform.instanc_type=g5.xlarge")
    assert "platform.instanc_type: no such key; did you mean platform.instance_type?" in refusal
    refusal = desk.refusal("platform=aws", "script=train.py", "platform.market=spott")
    assert "platform.market: Invalid value 'spott', expected one of [spot, on_demand, spot_then_on_demand]" in refusal
    assert "platform.market: no such key" in desk.refusal("script=train.py", "platform.market=spot")


def test_a_rented_host_has_a_limit_of_time_unless_another_is_given(desk):
    desk.project("kind: aws\n", "runctl/platform/aws.yaml")  # in place of ours, with nothing of it
    for words, minutes in (((), 1466), (("limits.max_time=1h",), 86)):
        requests = desk.plan("platform=aws", "script=train.py", *words)["plan"]["requests"]
        tags = requests[-2]["arguments"]["TagSpecifications"][0]["Tags"]
        [deadline] = [tag["Value"] for tag in tags if tag["Key"] == "runctl:deadline"]
        assert deadline == f"{minutes} minutes after launch"


def test_a_drill_needs_a_platform_that_rents(desk):
    assert "drill=spot: a drill is for a platform that rents hosts" in desk.refusal("drill=spot", "script=train.py")
    refusal = desk.refusal("platform=aws", "drill=spott", "script=train.py")
    assert "drill=spott: no such drill; did you mean drill=spot?" in refusal


def test_a_trainer_may_be_typed_with_plus_too(desk):
    assert "torch.distributed.run" in desk.plan("script=train.py", "+trainer=ddp")["plan"]["argv"]


@pytest.mark.parametrize(
    ("platform", "missing"),
    [("aws", "there are no AWS credentials here"), ("runpod", "there is no RunPod API key here")],
)
def test_what_is_missing_for_all_jobs_of_a_sweep_is_said_once_and_starts_none(desk, platform, missing):
    said = desk.refusal("-m", f"+platform={platform}", "script=train.py", "args.x=1,2,3", "run.root=s3://bucket/runs")
    assert said.startswith(f"platform={platform}: {missing}")
    assert not (desk.folder / "runs").exists()
