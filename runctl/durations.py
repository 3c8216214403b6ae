"""Durations as people write and read them, and how often: 10m, 500steps, 1epoch, auto (standard library only).

The launcher and every rank read the same notation: `checkpoint.every=10m`, `runctl.attach(every="10m")`.
"""

from __future__ import annotations

import math
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
    if math.isinf(seconds):
        raise ConfigError(f"{key}={text}: no number holds so long a time")
    return seconds


def parse_every(text: str, key: str) -> Every:
    """How often: a duration, a number of steps or epochs, or `auto`.

    Args:
        text: such as `10m`, `500steps`, `1epoch`, `auto`.
        key: the configuration key it was given for, named in the error.

    Raises:
        ConfigError: if it is none of these.
    """
    if text.strip().lower() == "auto":
        return Every("auto")
    counted = re.fullmatch(r"(\d+)\s*(step|epoch)s?", text.strip().lower())
    if counted is None:
        try:
            return Every("seconds", parse_duration_s(text, key))
        except ConfigError as error:
            raise ConfigError(
                f"{key}={text}: write a duration, steps, epochs or auto: 10m, 500steps, 1epoch, auto"
            ) from error
    if int(counted[1]) == 0:
        raise ConfigError(f"{key}={text}: at least 1")
    return Every(f"{counted[2]}s", int(counted[1]))


def readable(seconds: float) -> str:
    """A duration to be read at a glance, to about three digits: `0.15 s`, `93 s`, `22 min`, `8 h`."""
    if seconds < 0.01:
        return f"{seconds * 1000:.2g} ms"
    for unit, length_s, up_to_s in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if seconds < up_to_s:
            return f"{seconds / length_s:.3g} {unit}"
    return f"{seconds / 86400:.0f} d"
