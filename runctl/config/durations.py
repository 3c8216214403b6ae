"""Durations as people write them, 90s, 30m, 24h, 1h30m, and how often: 10m, 500steps, 1epoch."""

from __future__ import annotations

import re

from runctl.errors import ConfigError
from runctl.spec import Every

_UNIT_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration_s(text: str, key: str) -> float:
    """Seconds of a written duration.

    Args:
        text: such as `90s`, `30m`, `24h`, `1h30m`.
        key: the configuration key it was given for, named in the error.

    Raises:
        ConfigError: if it is no duration, or not above zero.
    """
    compact = text.strip().lower()
    parts = _PART.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise ConfigError(f"{key}={text}: write a duration with its unit, such as 90s, 30m or 24h")
    seconds = float(sum(float(number) * _UNIT_S[unit] for number, unit in parts))
    if seconds <= 0:
        raise ConfigError(f"{key}={text}: must be longer than zero")
    return seconds


def parse_every(text: str, key: str) -> Every:
    """How often: a duration, or a number of steps or epochs.

    Args:
        text: such as `10m`, `500steps`, `1epoch`.
        key: the configuration key it was given for, named in the error.

    Raises:
        ConfigError: if it is neither.
    """
    counted = re.fullmatch(r"(\d+)\s*(step|epoch)s?", text.strip().lower())
    if counted is None:
        try:
            return Every("seconds", parse_duration_s(text, key))
        except ConfigError as error:
            raise ConfigError(f"{key}={text}: write a duration, steps or epochs: 10m, 500steps, 1epoch") from error
    if int(counted[1]) == 0:
        raise ConfigError(f"{key}={text}: at least 1")
    return Every(f"{counted[2]}s", int(counted[1]))
