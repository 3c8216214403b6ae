"""Whether policies allow an action: statements, wildcards and conditions, decided as IAM decides (pure).

An evaluator of our own, for moto's looks at actions alone: it leaves out resources and conditions, and sees none of the
calls that the drill answers itself. How IAM decides: docs.aws.amazon.com/IAM/latest/UserGuide,
"Policy evaluation logic" and "Condition operators". What is not here: boundaries, sessions, organisations, policies of
resources, dates and addresses in conditions.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

#: What is known of a request, by condition key in small letters; several values for a key that has them.
Context = Mapping[str, Sequence[str]]


class Decision(Enum):
    """Allowed by a statement; not allowed, since by none; denied by one, whatever others say."""

    ALLOWED = "allowed"
    NOT_ALLOWED = "not allowed"
    DENIED = "denied"


def decide(policies: Iterable[Mapping[str, Any]], action: str, resource: str, context: Context) -> Decision:
    """Decide about one action on one resource.

    Args:
        policies: of whoever asks, each a document.
        action: such as `ec2:RunInstances`.
        resource: its name, or `*` where the action knows no narrower one.
        context: what conditions can look at.

    Raises:
        ValueError: for a condition operator that does not exist, which IAM would not have taken.
    """
    decision = Decision.NOT_ALLOWED
    for policy in policies:
        for statement in _listed(policy.get("Statement", [])):
            if not _applies(statement, action, resource, context):
                continue
            if statement["Effect"] == "Deny":
                return Decision.DENIED
            decision = Decision.ALLOWED
    return decision


def _applies(statement: Mapping[str, Any], action: str, resource: str, context: Context) -> bool:
    return (
        _named(statement, "Action", lambda pattern: _like(pattern.lower(), action.lower(), {}))
        and _named(statement, "Resource", lambda pattern: _arn_like(pattern, resource, context))
        and all(
            _holds(operator, key, _listed(values), context)
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        )
    )


def _named(statement: Mapping[str, Any], element: str, fits: Callable[[str], bool]) -> bool:
    """Whether one of a statement's patterns fits; of its Not… element, none."""
    if f"Not{element}" in statement:
        return not any(map(fits, _listed(statement[f"Not{element}"])))
    return any(map(fits, _listed(statement.get(element, []))))


def _holds(operator: str, key: str, wanted: Sequence[Any], context: Context) -> bool:
    """One condition: an operator on a key, with the values of which one is enough."""
    told = context.get(key.lower())
    if operator == "Null":
        return (told is None) == _is_true(wanted[0])
    quantifier, _, plain = operator.rpartition(":")
    name = plain.removesuffix("IfExists")
    if name not in _OPERATORS:
        raise ValueError(f"there is no condition operator {operator}")
    compare, negated = _OPERATORS[name]
    if told is None:
        return plain.endswith("IfExists") or negated or quantifier == "ForAllValues"

    def one(value: str) -> bool:
        return any(compare(str(pattern), value, context) for pattern in wanted) != negated

    # A negated operator holds for several values only if it holds for each, unless it is asked for any.
    every = quantifier == "ForAllValues" or (negated and quantifier != "ForAnyValue")
    return all(map(one, told)) if every else any(map(one, told))


def _like(pattern: str, value: str, context: Context) -> bool:
    found = _regex(_filled(pattern, context))
    return found is not None and found.fullmatch(value) is not None


def _equal(pattern: str, value: str, context: Context) -> bool:
    filled = _filled(pattern, context)
    return filled is not None and re.sub(r"\$\{([*?$])\}", r"\1", filled) == value


def _arn_like(pattern: str, value: str, context: Context) -> bool:
    """A wildcard in a name stays in its part of it: six, with colons between them."""
    if pattern == "*":
        return True
    patterns, values = pattern.split(":", 5), value.split(":", 5)
    return len(patterns) == len(values) and all(
        _like(one, other, context) for one, other in zip(patterns, values, strict=True)
    )


def _filled(pattern: str, context: Context) -> str | None:
    """A pattern with its variables' values, such as ${aws:username}; None if one has none."""
    names = [name for name in re.findall(r"\$\{([^}]+)\}", pattern) if name not in ("*", "?", "$")]
    for name in names:
        told = context.get(name.lower())
        if not told:
            return None
        pattern = pattern.replace(f"${{{name}}}", re.sub(r"[*?]", lambda found: f"${{{found[0]}}}", told[0]))
    return pattern


@functools.lru_cache(4096)
def _regex(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    wild = {"*": ".*", "?": "."}
    parts = re.findall(r"\$\{[*?$]\}|.", pattern, re.S)
    return re.compile(
        "".join(re.escape(part[2]) if len(part) > 1 else wild.get(part, re.escape(part)) for part in parts), re.S
    )


def _same_case(pattern: str, value: str, context: Context) -> bool:
    return _equal(pattern.lower(), value.lower(), context)


def _bool(pattern: str, value: str, _context: Context) -> bool:
    return _is_true(pattern) == _is_true(value)


def _number(compare: Callable[[float, float], bool]) -> Callable[[str, str, Context], bool]:
    return lambda pattern, value, _context: compare(float(value), float(pattern))


def _is_true(value: object) -> bool:
    return str(value).lower() == "true"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


#: By name: how a value is compared, and whether the condition holds when it does not fit.
_OPERATORS: dict[str, tuple[Callable[[str, str, Context], bool], bool]] = {
    "StringEquals": (_equal, False),
    "StringNotEquals": (_equal, True),
    "StringEqualsIgnoreCase": (_same_case, False),
    "StringNotEqualsIgnoreCase": (_same_case, True),
    "StringLike": (_like, False),
    "StringNotLike": (_like, True),
    "ArnEquals": (_arn_like, False),
    "ArnNotEquals": (_arn_like, True),
    "ArnLike": (_arn_like, False),
    "ArnNotLike": (_arn_like, True),
    "Bool": (_bool, False),
    "NumericEquals": (_number(lambda value, limit: value == limit), False),
    "NumericNotEquals": (_number(lambda value, limit: value == limit), True),
    "NumericLessThan": (_number(lambda value, limit: value < limit), False),
    "NumericLessThanEquals": (_number(lambda value, limit: value <= limit), False),
    "NumericGreaterThan": (_number(lambda value, limit: value > limit), False),
    "NumericGreaterThanEquals": (_number(lambda value, limit: value >= limit), False),
}
