"""Hydra's and OmegaConf's complaints as errors that say what, which value, and what next."""

from __future__ import annotations

import dataclasses
import difflib
import re
import shlex
import typing
from collections.abc import Iterator
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from runctl.arguments import quote_for_hydra
from runctl.config.platform import PlatformConfig
from runctl.config.schemas import FREE_MAPS, LaunchConfig
from runctl.config.shapes import wrong_in_file, wrong_in_override
from runctl.errors import ConfigError

#: What composing a configuration raises. Hydra has plain ValueErrors among them.
ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)

#: Where a file says what a sweep goes through.
_SWEPT = "hydra.sweeper.params"
#: Files by the name under which Hydra knows them; any other is a file of a group and named as it is.
_FILES = {"runctl_project/file": "conf/runctl.yaml", "runctl_user/file": "~/.config/runctl/config.yaml"}


def translate(error: Exception, platform: type[PlatformConfig] = PlatformConfig) -> ConfigError:
    """The same complaint in our words; Hydra's own where we have none of ours.

    Args:
        error: what Hydra or OmegaConf raised.
        platform: the options of the chosen platform.
    """
    if isinstance(error, yaml.YAMLError):
        return ConfigError(unreadable_yaml(error))
    if isinstance(error, OverrideParseException):
        return ConfigError(_unreadable(error))
    if isinstance(error, UnicodeDecodeError):
        return ConfigError(f"a file below conf/runctl/ is no text in UTF-8: {error}")
    chain = list(_chain(error))
    return ConfigError(_file("\n".join(map(str, chain))) + _said(chain, platform))


def unreadable_yaml(error: yaml.YAMLError) -> str:
    """Where in which file the YAML breaks off, and why."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"not readable as YAML: {error}"
    mark = error.problem_mark
    return f"{mark.name}, line {mark.line + 1}: not readable as YAML: {error.problem}"


def unknown_key(key: str, platform: type[PlatformConfig] = PlatformConfig) -> str:
    """What to say of a key that does not exist: the nearest one, and all that are there."""
    parts = key.split(".")
    node: Any = LaunchConfig
    for depth, part in enumerate(parts):
        names = _fields(node)
        prefix = ".".join(parts[:depth])
        if not names:
            return f"{key}: no such key; {prefix} is one value"
        if part not in names:
            shown = f"{prefix}." if prefix else ""
            near = difflib.get_close_matches(part, names, n=1, cutoff=0.6)
            hint = f"; did you mean {shown}{near[0]}?" if near else ""
            if not prefix and not near:
                hint = f"; an argument of the script is written args.{key}=…"
            there = f"{prefix or 'the top level'} has {', '.join(sorted(names))}"
            return f"{key}: no such key{hint} ({there})"
        node = platform if (depth, part) == (0, "platform") else names[part]
    return f"{key}: no such key"


def _said(chain: list[BaseException], platform: type[PlatformConfig]) -> str:
    missing = next((e for e in chain if isinstance(e, MissingConfigException)), None)
    if missing is not None:
        return _missing(missing)
    override = re.match(r"Error merging override (.*)", str(chain[0]), re.DOTALL)
    if override is not None and (wrong := wrong_in_override(override[1])) is not None:
        return wrong
    # The first one that names its key; those below it are the same complaint before its blanks were filled in.
    # The key of an item alone, 0, names nothing.
    found = [e for e in chain if isinstance(e, OmegaConfBaseException)]
    told = next((e for e in found if e.full_key and not str(e.full_key).isdigit()), None)
    if told is not None:
        typed = override and re.match(r"\+*([^=]+)=", override[1])
        return _about_key(str(told.full_key), typed[1] if typed else "", told, platform)
    if found:
        return _without_key(str(found[-1]).splitlines()[0])
    lines = str(chain[0]).strip().splitlines()
    return _about_override(lines) or " ".join(line.strip() for line in lines)


def _about_key(key: str, typed_key: str, error: OmegaConfBaseException, platform: type[PlatformConfig]) -> str:
    if key.startswith(_SWEPT):
        return (
            f"{typed_key or key}: what is swept is typed by itself, as in -m args.lr=1e-3,3e-4; in a file it stands "
            f"below {_SWEPT} as text, args.lr: 1e-3,3e-4"
        )
    if isinstance(error, (ConfigKeyError, ConfigAttributeError)) and not key.startswith("hydra."):
        return unknown_key(key, platform)
    if typed_key.startswith(f"{key}.") and not key.startswith(FREE_MAPS):
        return unknown_key(typed_key, platform)
    if key in FREE_MAPS:
        return f"{key} holds keys of its own and takes no value; write {key}.KEY=VALUE"
    if key.startswith("secrets."):
        return f"{key}: write where the secret is kept, as in {key}=env:NAME"  # not the value: it may be the secret
    if "is not a ListConfig" in str(error):
        return f"{key} takes a list; write {key}=[…]"
    return f"{key}: {str(error).splitlines()[0]}"


def _without_key(line: str) -> str:
    """What OmegaConf says of a file of a group without naming a key."""
    if line.startswith("Merge error: list "):
        return "holds a list; it must be a mapping, such as `kind: ddp`"
    merged = re.match(r"Merge error: \w+ is not a subclass of (\w+)\. value: (.*)", line)
    if merged is not None:
        sections = {**_fields(LaunchConfig), "platform": PlatformConfig}
        key = next((name for name, hint in sections.items() if getattr(hint, "__name__", "") == merged[1]), merged[1])
        return wrong_in_file({key: merged[2]}) or f"{key}: {merged[2]} is no mapping"
    if line.startswith("Cannot merge DictConfig with ListConfig"):
        return "holds a list where keys belong, or keys where a list does"
    if line.startswith("Cannot assign"):
        return "a list holds words where mappings belong, such as {from: s3://bucket/data, to: data}"
    return line


def _about_override(lines: list[str]) -> str | None:
    """What Hydra says of one override, in a line."""
    several = re.match(r"Ambiguous value for argument '(.*)'", lines[0])
    if several:
        key, _, value = several[1].partition("=")
        return (
            f"{several[1]}: several values; add -m to launch one run for each, or say what they are: "
            f"a list {shlex.quote(f'{key}=[{value}]')}, a string {shlex.quote(f'{key}={quote_for_hydra(value)}')}"
        )
    there = re.match(r"Could not append to config. An item is already at '(.*)'", lines[0])
    if there:
        return f"+{there[1]}: the key exists; leave the + away"
    if lines[0].startswith("Config group override must be"):
        return "platform and trainer take the name of an option, such as platform=local or trainer=ddp"
    group = re.search(r"Could not override '([^'@]*)[^']*'\. No match in the defaults list", lines[0])
    if group:
        chosen = "only trainer, platform and drill are chosen already"
        return f"{group[1]}: {chosen}; a group of your own is added: +{group[1]}=…"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _file(text: str) -> str:
    """The file that Hydra was reading, as `NAME: `, if it says so."""
    found = re.search(r"In '([^']+)': ", text)
    if found is None or found[1] == "runctl":  # our own: it was typed
        return ""
    return f"{_FILES.get(found[1], f'{found[1]}.yaml')}: "


def _fields(node: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(node):
        return {}
    return dict(typing.get_type_hints(node))


def _unreadable(error: OverrideParseException) -> str:
    """An override that Hydra's grammar refuses: show it quoted, for Hydra and for the shell."""
    word = error.override
    if "=" not in word:
        hint = f"script={word}, or" if word.endswith(".py") else "KEY=VALUE;"
        return f"{word}: write {hint} what is meant for the script goes behind --, as in `runctl-launch -- train.py`"
    key, value = word.split("=", 1)
    quoted = shlex.quote(f"{key}={_quoted_list(value) or quote_for_hydra(value)}")
    return f"{word}: Hydra cannot read this value; quote it: {quoted}"


def _quoted_list(value: str) -> str | None:
    """A list with those of its items quoted that Hydra cannot read, or None for what is no list."""
    if not (value.startswith("[") and value.endswith("]")):
        return None
    items = [item if _readable(item) else quote_for_hydra(item) for item in value[1:-1].split(",")]
    whole = f"[{','.join(items)}]"
    return whole if _readable(whole) else None


def _readable(value: str) -> bool:
    try:
        OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        return False
    return True


def _missing(error: MissingConfigException) -> str:
    name = (error.missing_cfg_file or "").lstrip("/")
    options = [option for option in error.options or () if option != "__init__"]
    group, _, option = name.rpartition("/")
    if not options:
        return f"there is no {name}.yaml, neither in conf/runctl/ nor among what runctl ships"
    near = difflib.get_close_matches(option, options, n=1)
    hint = f"; did you mean {group}={near[0]}?" if near else ""
    return f"{group}={option}: no such {group}{hint} (there are {', '.join(options)})"
