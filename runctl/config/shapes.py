"""Values of the wrong shape: a word where a list or keys belong, a list where keys do.

Hydra tells of these without their key, or without a reason.
"""

from __future__ import annotations

import dataclasses
import shlex
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from runctl.config.platform import PlatformConfig
from runctl.config.schemas import LaunchConfig

#: Groups of which our own defaults list chooses an option; another choice overrides that one.
CHOSEN_ALREADY = ("trainer", "platform", "drill")
#: What an item looks like, of lists that hold mappings.
_ITEMS = {
    "data.inputs": "{from: s3://bucket/data, to: data}",
    "data.outputs": "{from: out, to: s3://bucket/out}",
    "drill.events": "{at_step: 20, do: interrupt}",
}


def wrong_in_file(content: Mapping[str, Any]) -> str | None:
    """What to say of the first value in a file whose shape is not that of its key; None if there is none."""
    found = next(_wrong(content, LaunchConfig, ""), None)
    if found is None:
        return None
    key, value, hint = found
    name = key.rpartition(".")[2]
    if _is_list(hint):
        return f"{key} takes a list; write {name}: {_listed(key, value)}"
    if key in CHOSEN_ALREADY and isinstance(value, str):
        return f'{key}: {value} chooses an option; write "defaults: [override /{key}: {value}]"'
    return _about_item(key, value) or f"{_about_keys(key, value, hint, f'{name}: {{KEY: VALUE}}')}"


def wrong_in_override(word: str) -> str | None:
    """The same of an override that Hydra could read, such as `argv=fit`."""
    try:
        override = OverridesParser.create().parse_override(word)
        value: Any = override.value()
    except HydraException:
        return None
    content = value
    for part in reversed(override.key_or_group.split(".")):
        content = {part: content}
    found = next(_wrong(content, LaunchConfig, ""), None)
    if found is None:
        return None
    key, value, hint = found
    if _is_list(hint):
        text = "" if value is None else word.partition("=")[2]
        wanted = f"[{text}]" if _may_be_shown(key, text) and key not in _ITEMS else _listed(key, value)
        return f"{key} takes a list; write {shlex.quote(f'{key}={wanted}')}"
    return _about_item(key, value) or f"{_about_keys(key, value, hint, f'{key}.KEY=VALUE')}"


def no_word(checked: Any, prefix: str = "") -> str | None:
    """What to say of the first item of a list of words that is a mapping or a list, which OmegaConf lets pass.

    Args:
        checked: objects of the schema.
        prefix: of their keys.
    """
    for name, value in vars(checked).items():
        key = f"{prefix}{name}"
        if dataclasses.is_dataclass(value):
            if (found := no_word(value, f"{key}.")) is not None:
                return found
        elif isinstance(value, list) and key not in _ITEMS:
            for number, one in enumerate(value):
                if isinstance(one, (dict, list)):
                    shown = f"={one}" if _may_be_shown(key, one) else ""
                    return f"{key}[{number}]{shown}: one word, not a {'map' if isinstance(one, dict) else 'list'}"
    return None


def _wrong(value: Any, hint: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    """Key, value and type of whatever has another shape than its type; keys that do not exist are others' matter."""
    if isinstance(value, str) and ("${" in value or value == "???"):
        return  # what it leads to is not known yet
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            yield key, value, hint
            return
        hints = typing.get_type_hints(hint)
        if hint is LaunchConfig:
            hints["platform"] = PlatformConfig
        for name, one in value.items():
            if name in hints:
                yield from _wrong(one, hints[name], f"{key}.{name}" if key else name)
    elif typing.get_origin(hint) is dict:
        if not isinstance(value, dict):
            yield key, value, hint
    elif _is_list(hint):
        if not isinstance(value, list):
            yield key, value, hint
            return
        for number, one in enumerate(value):
            yield from _wrong(one, typing.get_args(hint)[0], f"{key}[{number}]")


def _is_list(hint: Any) -> bool:
    return typing.get_origin(hint) is list


def _about_item(key: str, value: Any) -> str | None:
    """Of a list's item that is no mapping."""
    item = _ITEMS.get(key.partition("[")[0])
    return None if item is None else f"{key}={value}: write {item}"


def _about_keys(key: str, value: Any, hint: Any, how: str) -> str:
    names = f" ({', '.join(sorted(typing.get_type_hints(hint)))})" if dataclasses.is_dataclass(hint) else ""
    listed = isinstance(value, list)
    words = "; words without a key go into argv" if key == "args" and listed else ""
    return f"{key} holds keys of its own{names} and takes no {'list' if listed else 'value'}; write {how}{words}"


def _listed(key: str, value: Any) -> str:
    """The list that was meant, as YAML has it in a line."""
    if value is None:
        return "[]"
    if key in _ITEMS and not isinstance(value, dict):
        return f"[{_ITEMS[key]}]"
    if not _may_be_shown(key, value):
        return "[env:NAME]"
    return yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=float("inf")).strip()


def _may_be_shown(key: str, value: Any) -> bool:
    """An address for notifications is a secret, and may have been written there by mistake."""
    return key != "notify" or str(value).startswith("env:")
