"""Events of a drill are checked where they are written, not by the cloud in the midst of a launch."""

from __future__ import annotations

import re
from typing import Any

import pytest

from runctl.drill.faults import Fault
from runctl.drill.scenario import events
from runctl.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("times", "many", "a whole number"),
        ("times", -1, "a whole number"),
        ("times", True, "a whole number"),
        ("status", 5.5, "a whole number"),
        ("delay_s", "soon", "a number"),
        ("after", "yes", "true or false"),
        ("code", 503, "a word"),
        ("action", 3, "a word"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named_with_its_event(name: str, value: Any, why: str) -> None:
    given = [{"do": "kill"}, {"do": "fault", "action": "RunInstances", name: value}]
    with pytest.raises(ConfigError, match=re.escape(f"drill.events[1].{name}={value}: {why}")):
        events(given)


def test_whole_numbers_and_fractions_and_nothing_are_taken() -> None:
    given = {"do": "fault", "action": "RunInstances", "delay_s": 2, "code": None, "times": 3, "after": True}
    assert events([given])[0].fault == Fault("RunInstances", None, times=3, after=True, delay_s=2)
