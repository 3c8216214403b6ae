"""How often and how long by platform, and who has the last word on it."""

from __future__ import annotations

import pytest

from runctl.encoding import loads
from runctl.spec import CheckpointPolicy, Every, LaunchSpec

PLUGIN = """
from pathlib import Path
from runctl.encoding import dumps

def runctl_modify_spec(spec, platform):
    Path("spec.json").write_text(dumps(spec))
"""


@pytest.fixture
def policy(desk):
    """What the spec of a launch says of checkpoints."""
    (desk.folder / "runctl_plugins.py").write_text(PLUGIN)

    def of(*words: str) -> CheckpointPolicy:
        desk.run("script=train.py", "dry_run=true", *words)
        return loads(LaunchSpec, (desk.folder / "spec.json").read_text()).checkpoint

    return of


@pytest.mark.parametrize(
    ("platform", "every_s", "grace_s", "interruption_s"),
    [("local", 600, 30, 86400), ("aws", 600, 110, 28800), ("runpod", 300, 4, 14400)],
)
def test_each_platform_brings_its_own(policy, platform, every_s, grace_s, interruption_s):
    found = policy(f"platform={platform}")
    assert (found.every, found.grace_s) == (Every("seconds", every_s), grace_s)
    assert found.mean_time_to_interruption_s == interruption_s


def test_what_a_script_gets_without_a_launcher_is_what_this_machine_gets(policy):
    assert policy() == CheckpointPolicy()


@pytest.mark.parametrize("platform", ["local", "aws", "runpod"])
def test_the_projects_word_wins_over_the_platforms(desk, policy, platform):
    desk.project("checkpoint: {grace: 17s, every: 3steps}\nplatform: {mean_time_to_interruption: 3h}\n")
    found = policy(f"platform={platform}")
    assert (found.every, found.grace_s, found.mean_time_to_interruption_s) == (Every("steps", 3), 17, 10800)


def test_the_users_word_wins_over_the_platforms_and_the_projects_over_the_users(desk, policy):
    desk.user("checkpoint: {grace: 17s, every: 3steps}\n")
    desk.project("defaults: [override /platform: runpod]\ncheckpoint: {every: 7m}\n")
    found = policy()
    assert (found.every, found.grace_s) == (Every("seconds", 420), 17)


def test_what_is_typed_wins_over_all(desk, policy):
    desk.project("checkpoint: {grace: 17s, every: 3steps}\n")
    found = policy("checkpoint.grace=9s", "platform=aws", "checkpoint.every=auto",
                   "platform.mean_time_to_interruption=45m")  # fmt: skip
    assert (found.every.unit, found.grace_s, found.mean_time_to_interruption_s) == ("auto", 9, 2700)


@pytest.mark.parametrize("word", ["checkpoint.grace=30s", "checkpoint.every=10m"])
def test_a_value_that_is_the_default_elsewhere_is_no_less_the_users(policy, word):
    found = policy("platform=runpod", word)
    assert (found.grace_s == 30) == ("grace" in word)
    assert (found.every.count == 600) == ("every" in word)


def test_an_option_of_the_projects_extends_ours(desk, policy):
    desk.project("defaults: [aws]\nmultipliers: {batch_size: 2}\n", "runctl/platform/small.yaml")
    assert policy("platform=small").grace_s == 110


def test_platforms_are_swept_each_with_its_own(desk):
    (desk.folder / "runctl_plugins.py").write_text(PLUGIN.replace('"spec.json"', 'f"spec-{platform}.json"'))
    desk.plans("-m", "script=train.py", "platform=aws,runpod")
    graces = [loads(LaunchSpec, (desk.folder / f"spec-{name}.json").read_text()).checkpoint.grace_s
              for name in ("aws", "runpod")]  # fmt: skip
    assert graces == [110, 4]


@pytest.mark.parametrize("value", ["soon", "8", "0h", "-1h", "never", "''"])
def test_a_mean_time_that_is_none_is_refused(desk, value):
    text = desk.refusal("script=train.py", f"platform.mean_time_to_interruption={value}")
    assert text.startswith("platform.mean_time_to_interruption=")


@pytest.mark.parametrize("value", ["often", "10", "0s", "0steps", "autos"])
def test_an_interval_that_is_none_is_refused(desk, value):
    assert desk.refusal("script=train.py", f"checkpoint.every={value}").startswith(f"checkpoint.every={value}: ")
