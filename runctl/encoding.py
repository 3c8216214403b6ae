"""Dataclasses as JSON, both ways: an unknown field is an error, for a newer runctl may have meant something by it."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")


def to_data(value: Any) -> Any:
    """Dataclasses, enums and tuples as plain JSON data."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_data(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: to_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_data(item) for item in value]
    return value


def from_data(kind: type[T], data: Any) -> T:
    """Plain JSON data as the dataclass `kind`.

    Raises:
        ValueError: for a field that `kind` does not have, naming it: a newer runctl wrote it.
    """
    return typing.cast(T, _decode(kind, data, kind.__name__))


def dumps(value: Any) -> str:
    """A dataclass as one line of JSON."""
    return json.dumps(to_data(value), ensure_ascii=False)


def loads(kind: type[T], text: str) -> T:
    """One JSON document as the dataclass `kind`."""
    return from_data(kind, json.loads(text))


def _decode(kind: Any, data: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(kind)
        if data is None and type(None) in options:
            return None
        structured = [o for o in options if dataclasses.is_dataclass(o)]
        return _decode(structured[0], data, where) if structured else data
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = {f.name for f in dataclasses.fields(kind)}
        unknown = set(data) - names
        if unknown:
            raise ValueError(f"{where} has no field {', '.join(sorted(unknown))}; a newer runctl may have written it")
        return typing.cast(Any, kind)(
            **{name: _decode(hints[name], item, f"{where}.{name}") for name, item in data.items()}
        )
    if origin is tuple:
        return tuple(_decode(typing.get_args(kind)[0], item, where) for item in data)
    if origin is list:
        return [_decode(typing.get_args(kind)[0], item, where) for item in data]
    if origin is dict:
        return {key: _decode(typing.get_args(kind)[1], item, where) for key, item in data.items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(data)
    return data
