"""The notation of durations and of how often, which the configuration and `runctl.attach` share."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from runctl.durations import parse_duration_s, parse_every, readable
from runctl.errors import ConfigError
from runctl.spec import Every


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("10m", Every("seconds", 600)),
        ("500steps", Every("steps", 500)),
        ("1step", Every("steps", 1)),
        ("2 epochs", Every("epochs", 2)),
        ("auto", Every("auto")),
        (" Auto ", Every("auto")),
    ],
)
def test_how_often_is_read(text: str, every: Every) -> None:
    assert parse_every(text, "every") == every


@pytest.mark.parametrize("text", ["", "10", "often", "automatic", "5 bananas", "-5steps", "1.5steps", "0s"])
def test_what_is_none_says_what_would_be(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"every={text}: write a duration, steps, epochs or auto")):
        parse_every(text, "every")


def test_no_steps_are_too_few() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        parse_every("0steps", "every")


def test_a_number_too_long_for_any_clock_is_refused() -> None:
    with pytest.raises(ConfigError, match="no number holds so long a time"):
        parse_duration_s("9" * 400 + "h", "limits.max_time")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0004, "0.4 ms"), (0.15, "0.15 s"), (93.4, "93.4 s"), (1315, "21.9 min"), (28800, "8 h"), (86400, "24 h"),
     (30 * 86400, "30 d"), (9e9, "104167 d")],
)  # fmt: skip
def test_durations_are_shown_at_a_glance(seconds: float, text: str) -> None:
    assert readable(seconds) == text


def test_ranks_read_it_without_hydra() -> None:
    code = "import sys, runctl.training.attach; print([m for m in ('hydra', 'omegaconf', 'yaml') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
