"""What output says of a training's metrics: pairs such as `step=120 loss=0.31`, or a JSON object."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from runctl.hostdir import finite

_PAIR = re.compile(
    rb"(?:^|[\s,;|(\[])([A-Za-z_][\w./-]*)\s*[=:]\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?inf|nan)(?![\w.])"
)
_POSITION = (b"step", b"epoch")
#: What stands in an entry and is no metric.
PLACES = ("step", "at", "attempt")
#: What a line raises that only looks like metrics: broken JSON, a number beyond all bounds, brackets without end.
GARBAGE = (ValueError, OverflowError, RecursionError)


def found_in(output: bytes) -> Iterator[dict[str, float | str]]:
    """The metrics in whole lines of output.

    A line counts if it names a step or an epoch (`step=120 loss=0.31`) or is a JSON object that does.

    Returns:
        Each as `values_of` gives it.
    """
    if not any(word in output for word in _POSITION):
        return
    for line in re.split(rb"[\r\n]+", output):
        if any(word in line for word in _POSITION):
            with contextlib.suppress(*GARBAGE):
                values = values_of(json.loads(line) if line.lstrip().startswith(b"{") else _from_text(line))
                if values:
                    yield values


def values_of(entry: Mapping[str, Any]) -> dict[str, float | str]:
    """The numbers of an entry by name, a whole `step`, and NaN and the infinities as words, as JSON can hold them.

    Returns:
        Nothing for an entry without a finite `step` or `epoch`.
    """
    values = {name: finite(value) for name, value in entry.items() if _is_number(value)}
    if all(isinstance(values.get(name, "nan"), str) for name in ("step", "epoch")):
        return {}
    step = values.get("step")
    if isinstance(step, (int, float)):
        values["step"] = int(step)
    return values


def _from_text(line: bytes) -> dict[str, Any]:
    return {name.decode(): _number(text.decode()) for name, text in _PAIR.findall(line)}


def _number(text: str) -> float:
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
