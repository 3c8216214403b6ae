"""What hosts are to do besides the training, checked and frozen: limits, data, the project's size."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from runctl.config.schemas import LaunchConfig
from runctl.durations import parse_duration_s
from runctl.errors import ConfigError
from runctl.spec import Data, Limits, Resources, Transfer

_SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def limits(cfg: LaunchConfig) -> Limits:
    """`limits.*`.

    Raises:
        ConfigError: for a duration or an amount that cannot be.
    """
    given = cfg.limits
    for key in ("max_usd", "max_usd_per_day"):
        if (value := getattr(given, key)) is not None and not value > 0:
            raise ConfigError(f"limits.{key}={value}: more than 0")
    return Limits(
        parse_duration_s(given.max_time, "limits.max_time") if given.max_time else None,
        given.max_usd,
        parse_duration_s(given.idle, "limits.idle") if given.idle else None,
        given.max_usd_per_day,
    )


def resources(cfg: LaunchConfig) -> Resources:
    """`resources.*`.

    Raises:
        ConfigError: for a number that cannot be, and a GPU where none is wanted.
    """
    given = cfg.resources
    for key, least in (("gpus", 0), ("gpu_memory_gib", 1), ("cpus", 1)):
        value = getattr(given, key)
        if value is not None and value < least:
            raise ConfigError(f"resources.{key}={value}: at least {least}")
    if given.gpus == 0 and (given.gpu or given.gpu_memory_gib):
        raise ConfigError("resources.gpus=0: then resources.gpu and resources.gpu_memory_gib cannot be")
    return Resources(given.gpus, given.gpu or None, given.gpu_memory_gib, given.cpus)


def data(cfg: LaunchConfig) -> Data:
    """`data.*` and `before_train`.

    Raises:
        ConfigError: for an entry that does not say from where to where, and a command line that cannot be read.
    """
    for line in cfg.before_train:
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise ConfigError(f"before_train={line}: {error}") from error
        if not words:
            raise ConfigError("before_train holds an empty command; write one such as preprocess.py --size=64")
    return Data(
        _transfers("data.inputs", cfg.data.inputs),
        _transfers("data.outputs", cfg.data.outputs),
        tuple(cfg.before_train),
    )


def size_bytes(key: str, text: str) -> int:
    """Bytes of a written size, such as 500MB or 2GiB.

    Raises:
        ConfigError: if it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]+)", str(text).strip())
    if found is None or found[2].upper() not in _SIZES or float(found[1]) <= 0:
        raise ConfigError(f"{key}={text}: write a size with its unit, such as 500MB or 2GiB")
    return round(float(found[1]) * _SIZES[found[2].upper()])


def _transfers(key: str, entries: Sequence[Mapping[str, str]]) -> tuple[Transfer, ...]:
    transfers = []
    for number, entry in enumerate(entries):
        named = f"{key}[{number}]={dict(entry)}"
        for name in ("from", "to"):
            if not entry.get(name):
                raise ConfigError(f"{named}: {name} is missing; write {{from: s3://bucket/data, to: data}}")
        unknown = [name for name in entry if name not in ("from", "to")]
        if unknown:
            raise ConfigError(f"{named}: {unknown[0]} is neither from nor to")
        here = entry["to"] if key == "data.inputs" else entry["from"]
        if "://" in here:
            raise ConfigError(f"{named}: {here} is a URL, and must be a path on the host")
        transfers.append(Transfer(entry["from"], entry["to"]))
    return tuple(transfers)
