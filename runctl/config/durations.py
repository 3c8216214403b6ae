"""Durations as people write them: 90s, 30m, 24h, 2d, 1h30m."""

from __future__ import annotations

import re

from runctl.errors import ConfigError

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
