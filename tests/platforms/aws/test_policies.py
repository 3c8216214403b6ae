"""The policies that are printed are enough for a whole launch, and none of their statements is too much."""

from __future__ import annotations

from typing import Any

import pytest

from runctl.errors import ConfigError
from runctl.platforms.aws import policies
from runctl.platforms.aws.policies import Place

LONGEST = Place("123456789012", "b" * 63, "p" * 200, profile="i" * 64, role="r" * 64, partition="aws-us-gov")


@pytest.mark.parametrize("made", [policies.launcher, policies.host, policies.setup])
def test_a_policy_is_small_enough_and_its_statements_have_names(made: Any) -> None:
    policy = made(LONGEST)
    assert policies.size_chars(policy) <= policies.MANAGED_CHARS
    names = [one["Sid"] for one in policy["Statement"]]
    assert len(set(names)) == len(names)
    assert all(name.isalnum() for name in names), "IAM takes nothing else"


def test_nothing_is_allowed_everywhere_that_changes_anything() -> None:
    wide = [one for one in policies.launcher(LONGEST)["Statement"] if one["Resource"] == ["*"]]
    actions = [action.split(":")[1] for one in wide for action in one["Action"]]
    assert actions
    assert [action for action in actions if not action.startswith(("Describe", "Get"))] == []


def test_another_part_of_aws_has_names_of_its_own() -> None:
    china = Place("123456789012", "bucket", "runs", partition="aws-cn")
    text = str(policies.launcher(china)) + str(policies.host(china)) + str(policies.setup(china))
    assert "arn:aws:" not in text
    assert policies.host_trust(china)["Statement"][0]["Principal"] == {"Service": "ec2.amazonaws.com.cn"}
    assert policies.HOST_TRUST["Statement"][0]["Principal"] == {"Service": "ec2.amazonaws.com"}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"account": "12345"}, "account=12345"),
        ({"bucket": "Not_One"}, "bucket=Not_One"),
        ({"prefix": "runs/*"}, "prefix=runs/*"),
        ({"role": "two words"}, "role=two words"),
        ({"partition": "azure"}, "partition=azure"),
    ],
)
def test_what_would_mean_something_else_in_a_policy_is_refused(wrong: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError) as error:
        Place(**{"account": "123456789012", "bucket": "bucket", **wrong})
    assert why in str(error.value)
