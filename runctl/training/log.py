"""`runctl.log`: metrics from a training script."""

from __future__ import annotations

from typing import Any

from runctl.hostdir import HostDir
from runctl.training import place


def log(*, step: int | None = None, **metrics: Any) -> None:
    """Record metrics of one step in the run's `metrics.jsonl`.

    Rank 0 records; other ranks may call it and nothing happens. Without a launcher around nothing happens
    either, so that a script needs no two ways.

    Args:
        step: number of completed steps.
        **metrics: numbers by name; a one-element tensor or array is taken by its `item()`.

    Raises:
        TypeError: for a value that is no number.
        ValueError: if neither `step` nor `epoch` is given: the numbers would have no place.
    """
    if step is None and "epoch" not in metrics:
        raise ValueError("runctl.log needs step=… or epoch=…")
    values = {name: _number(name, value) for name, value in metrics.items()}
    if step is not None:
        values = {"step": int(step), **values}
    if place.here().rank != 0:
        return
    host_dir = HostDir.from_environment()
    if host_dir is not None:
        host_dir.log_metrics(values)


def _number(name: str, value: Any) -> float:
    item = value.item() if hasattr(value, "item") else value
    if isinstance(item, bool) or not isinstance(item, (int, float)):
        raise TypeError(f"runctl.log({name}={value!r}): a number is needed")
    return item
