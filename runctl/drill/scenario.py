"""What is to happen to a launch, and when: by the training's step, so that it means the same on every machine, or by
the clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args, get_type_hints

from runctl.drill.faults import Fault
from runctl.durations import parse_duration_s
from runctl.errors import ConfigError

ACTIONS = ("interrupt", "kill", "kill_launcher", "rebalance", "fault")
_FAULT = tuple(field.name for field in fields(Fault))
_TEXT, _NUMBER = "a word", "a number, 0 or more"
#: What each field of a fault must be.
_WORDS = {
    **dict.fromkeys(("action", "code", "message", "market", "key"), _TEXT),
    **dict.fromkeys(("status", "times", "skip"), "a whole number, 0 or more"),
    "delay_s": _NUMBER,
    "after": "true or false",
}


@dataclass(frozen=True)
class Event:
    """One thing that happens.

    Attributes:
        do: one of `ACTIONS`.
        at_step: once the training has completed so many steps; None if it goes by the clock.
        at_s: so many seconds after the launch's begin.
        fault: for `do: fault`.
    """

    do: str
    at_step: int | None = None
    at_s: float = 0.0
    fault: Fault | None = None


def events(given: Sequence[Any]) -> list[Event]:
    """Read `drill.events`.

    Raises:
        ConfigError: for one that cannot be, naming it.
    """
    return [_event(number, one) for number, one in enumerate(given)]


def _event(number: int, given: Any) -> Event:
    key = f"drill.events[{number}]={given}"
    if not isinstance(given, dict) or given.get("do") not in ACTIONS:
        raise ConfigError(
            f"{key}: write what happens, such as {{at_step: 20, do: interrupt}}; do is one of {', '.join(ACTIONS)}"
        )
    known = ("do", "at", "at_step", *(_FAULT if given["do"] == "fault" else ()))
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ConfigError(f"{key}: {unknown[0]} is none of {', '.join(known)}")
    if "at" in given and "at_step" in given:
        raise ConfigError(f"{key}: at and at_step are both given; give one of them")
    step = given.get("at_step")
    if step is not None and (isinstance(step, bool) or not isinstance(step, int) or step < 0):
        raise ConfigError(f"{key}: at_step is a number of steps")
    fault = None
    if given["do"] == "fault":
        told = {name: given[name] for name in _FAULT if name in given}
        if "action" not in told:
            raise ConfigError(f"{key}: name the API call that fails, as in action: RunInstances")
        for name, value in told.items():
            if not _is(value, get_type_hints(Fault)[name]):
                raise ConfigError(f"drill.events[{number}].{name}={value}: {_WORDS[name]}")
        fault = Fault(**told)
    at_s = parse_duration_s(str(given["at"]), f"drill.events[{number}].at") if "at" in given else 0.0
    return Event(given["do"], step, at_s, fault)


def _is(value: Any, kind: Any) -> bool:
    """Whether a value of YAML is of a field's kind; a whole number is a number, and a truth is none."""
    kinds = get_args(kind) or (kind,)
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, (*kinds, *((int,) if float in kinds else ()))) and (
        not isinstance(value, (int, float)) or value >= 0
    )
