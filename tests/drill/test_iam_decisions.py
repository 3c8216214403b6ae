"""The drill's IAM decides as the real one does: an explicit deny wins, and what nothing allows is not allowed."""

from __future__ import annotations

from typing import Any

import pytest

from runctl.drill.iam import Decision, decide

ALLOWED, NOT_ALLOWED, DENIED = Decision.ALLOWED, Decision.NOT_ALLOWED, Decision.DENIED
RUN, INSTANCE = "ec2:RunInstances", "arn:aws:ec2:us-east-1:123456789012:instance/i-1"


def statement(effect: str = "Allow", **more: Any) -> dict[str, Any]:
    action = {} if "NotAction" in more else {"Action": "*"}
    resource = {} if "NotResource" in more else {"Resource": "*"}
    return {"Effect": effect, **action, **resource, **more}


def decided(*statements: dict[str, Any], action: str = RUN, resource: str = INSTANCE, **context: Any) -> Decision:
    return decide([{"Statement": list(statements)}], action, resource, context)


def holds(operator: str, wanted: Any, told: list[str] | None) -> bool:
    context = {} if told is None else {"aws:key": told}
    policy = {"Statement": statement(Condition={operator: {"aws:Key": wanted}})}
    return decide([policy], RUN, INSTANCE, context) is ALLOWED


def test_nothing_is_allowed_that_no_statement_allows() -> None:
    assert decided() is NOT_ALLOWED
    assert decided(statement()) is ALLOWED
    assert decided(statement(Action="ec2:Stop*")) is NOT_ALLOWED


def test_a_deny_wins_wherever_it_stands() -> None:
    deny = statement("Deny", Action="ec2:Run*")
    assert decided(deny, statement()) is DENIED
    assert decide([{"Statement": statement()}, {"Statement": [deny]}], RUN, INSTANCE, {}) is DENIED


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [("ec2:RunInstances", True), ("EC2:runinstances", True), ("ec2:*", True), ("ec2:Run?nstances", True),
     ("s3:*", False), ("ec2:RunInstance", False)],
)  # fmt: skip
def test_actions_have_wildcards_and_no_case(pattern: str, fits: bool) -> None:
    assert (decided(statement(Action=[pattern])) is ALLOWED) is fits
    assert (decided(statement(NotAction=[pattern])) is ALLOWED) is not fits


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [("*", True), ("arn:aws:ec2:*:123456789012:instance/*", True), ("arn:aws:ec2:*:*:*/*", True),
     ("arn:aws:ec2:*:*:volume/*", False), ("arn:aws:ec2:*:instance/*", False),
     ("arn:aws:ec2:us-east-1:123456789012:instance/i-${*}", False)],
)  # fmt: skip
def test_a_wildcard_in_a_resource_stays_in_its_part(pattern: str, fits: bool) -> None:
    assert (decided(statement(Resource=pattern)) is ALLOWED) is fits
    assert (decided(statement(NotResource=pattern)) is ALLOWED) is not fits


@pytest.mark.parametrize(
    ("operator", "wanted", "told", "so"),
    [
        ("StringEquals", "a", ["a"], True), ("StringEquals", "a*", ["ab"], False), ("StringEquals", "a", None, False),
        ("StringEquals", ["a", "b"], ["b"], True), ("StringEqualsIfExists", "a", None, True),
        ("StringEqualsIfExists", "a", ["b"], False), ("StringEqualsIgnoreCase", "A", ["a"], True),
        ("StringNotEquals", "a", None, True), ("StringNotEquals", ["a", "b"], ["b"], False),
        ("StringLike", "runs/*", ["runs/x/y"], True), ("StringLike", "runs/*", ["other"], False),
        ("StringNotLike", "runs/*", ["other"], True),
        ("Null", "false", ["a"], True), ("Null", "false", None, False), ("Null", "true", None, True),
        ("Null", True, ["a"], False), ("Bool", "true", ["true"], True), ("Bool", "true", None, False),
        ("ArnLike", "arn:aws:iam::*:role/*", ["arn:aws:iam::1:role/x"], True),
        ("ArnLike", "arn:aws:iam::*:role/*", ["arn:aws:iam::1:user/x"], False),
        ("NumericLessThan", "5", ["4"], True), ("NumericLessThan", 5, ["5"], False),
        ("ForAllValues:StringEquals", ["a", "b"], ["a", "b"], True),
        ("ForAllValues:StringEquals", ["a", "b"], ["a", "c"], False), ("ForAllValues:StringEquals", ["a"], None, True),
        ("ForAnyValue:StringEquals", ["a"], ["c", "a"], True), ("ForAnyValue:StringEquals", ["a"], ["c"], False),
        ("ForAnyValue:StringEquals", ["a"], None, False),
    ],
)  # fmt: skip
def test_conditions_hold_as_their_operators_say(operator: str, wanted: Any, told: list[str] | None, so: bool) -> None:
    assert holds(operator, wanted, told) is so


def test_all_conditions_must_hold() -> None:
    both = statement(Condition={"StringEquals": {"a": "1", "b": "2"}, "Null": {"c": "true"}})
    assert decided(both, a=["1"], b=["2"]) is ALLOWED
    assert decided(both, a=["1"]) is NOT_ALLOWED
    assert decided(both, a=["1"], b=["2"], c=["3"]) is NOT_ALLOWED


def test_variables_are_the_callers_own_and_no_wildcards() -> None:
    home = statement(Resource="arn:aws:s3:::bucket/${aws:username}/*")
    key = "arn:aws:s3:::bucket/ada/x"
    assert decide([{"Statement": home}], "s3:GetObject", key, {"aws:username": ["ada"]}) is ALLOWED
    assert decide([{"Statement": home}], "s3:GetObject", key, {"aws:username": ["*"]}) is NOT_ALLOWED
    assert decide([{"Statement": home}], "s3:GetObject", key, {}) is NOT_ALLOWED


def test_an_operator_that_does_not_exist_is_said() -> None:
    with pytest.raises(ValueError, match="StringAlmost"):
        holds("StringAlmost", "a", ["a"])
