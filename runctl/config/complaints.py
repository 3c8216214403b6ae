"""Hydra's and OmegaConf's complaints as errors that say what, which value, and what next."""

from __future__ import annotations

import dataclasses
import difflib
import re
import shlex
import typing
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from runctl.arguments import quote_for_hydra
from runctl.config.schemas import LaunchConfig
from runctl.errors import ConfigError

#: What composing a configuration raises.
ERRORS = (HydraException, OmegaConfBaseException)


def translate(error: Exception) -> ConfigError:
    """The same complaint in our words; Hydra's own where we have none of ours."""
    chain = list(_chain(error))
    if isinstance(error, OverrideParseException):
        return ConfigError(_unreadable(error))
    missing = next((e for e in chain if isinstance(e, MissingConfigException)), None)
    if missing is not None:
        return ConfigError(_missing(missing))
    text = "\n".join(str(e) for e in chain)
    where = "conf/runctl.yaml: " if "runctl_project/file" in text else ""
    where = "~/.config/runctl/config.yaml: " if "runctl_user/file" in text else where
    found = re.search(r"full_key: (\S+)", text)
    key = found.group(1) if found else None
    if key and ("not in" in text or "is not in struct" in text):
        return ConfigError(f"{where}{unknown_key(key)}")
    if key:
        reason = next((str(e).splitlines()[0] for e in reversed(chain) if isinstance(e, OmegaConfBaseException)), text)
        return ConfigError(f"{where}{key}: {reason}")
    return ConfigError(f"{where}{text.splitlines()[0]}" if where else text.strip())


def unknown_key(key: str) -> str:
    """What to say of a key that does not exist: the nearest one, and all that are there."""
    parts = key.split(".")
    node: Any = LaunchConfig
    for depth, part in enumerate(parts):
        names = _fields(node)
        if part not in names:
            prefix = ".".join(parts[:depth])
            shown = f"{prefix}." if prefix else ""
            near = difflib.get_close_matches(part, names, n=1, cutoff=0.6)
            hint = f"; did you mean {shown}{near[0]}?" if near else ""
            if not prefix and not near:
                hint = f"; an argument of the script is written args.{key}=…"
            there = f"{prefix or 'the top level'} has {', '.join(sorted(names))}"
            return f"{key}: no such key{hint} ({there})"
        node = names[part]
    return f"{key}: no such key"


def _chain(error: BaseException | None) -> typing.Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _fields(node: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(node):
        return {}
    return dict(typing.get_type_hints(node))


def _unreadable(error: OverrideParseException) -> str:
    """An override that Hydra's grammar refuses: show it quoted, for Hydra and for the shell."""
    word = error.override
    if "=" not in word:
        return f"{word}: write KEY=VALUE; what is meant for the script goes behind --"
    key, value = word.split("=", 1)
    quoted = shlex.quote(f"{key}={quote_for_hydra(value)}")
    return f"{word}: Hydra cannot read this value; quote it: {quoted}"


def _missing(error: MissingConfigException) -> str:
    name = error.missing_cfg_file or ""
    if "/" not in name:
        return str(error)
    group, option = name.rsplit("/", 1)
    options = [o for o in error.options or () if o != "__init__"]
    near = difflib.get_close_matches(option, options, n=1)
    hint = f"; did you mean {group}={near[0]}?" if near else ""
    return f"{group}={option}: no such {group}{hint} (there are {', '.join(options)})"
