"""Platforms by kind: ours, and those of the entry-point group `runctl.platforms`.

A configuration names a kind, never a class: a file must not choose code to run.
"""

from __future__ import annotations

import importlib
import importlib.metadata

from runctl.config.platform import PlatformConfig
from runctl.errors import ConfigError
from runctl.platforms.base import Platform

ENTRY_POINTS = "runctl.platforms"
_OURS = {
    "local": "runctl.platforms.local:LocalPlatform",
    "aws": "runctl.platforms.aws:AwsPlatform",
    "runpod": "runctl.platforms.runpod:RunpodPlatform",
}


def kinds() -> list[str]:
    """Every kind that can be named, ours first."""
    return [*_OURS, *others()]


def others() -> list[str]:
    """The kinds of installed plugins; none of them can stand in for one of ours."""
    found = {entry.name for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    return sorted(found - _OURS.keys())


def options(kind: str) -> type[PlatformConfig]:
    """The class of a platform's options.

    Raises:
        ConfigError: as `load`.
    """
    return load(kind).options


def load(kind: str) -> type[Platform]:
    """The class of a kind.

    Raises:
        ConfigError: for an unknown kind, naming the known ones, or a plugin that cannot be imported.
    """
    if kind in _OURS:
        module, name = _OURS[kind].split(":")
        return _checked(kind, getattr(importlib.import_module(module), name))
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS, name=kind):
        try:
            return _checked(kind, entry.load())
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(f"platform {kind} ({entry.value}) cannot be loaded: {reason}") from error
    raise ConfigError(f"platform.kind={kind}: no such platform; there are {', '.join(kinds())}")


def _checked(kind: str, found: object) -> type[Platform]:
    if not (isinstance(found, type) and issubclass(found, Platform)):
        raise ConfigError(f"platform {kind}: {found!r} is no Platform")
    if getattr(found, "kind", None) != kind:
        raise ConfigError(
            f"platform {kind}: {found.__name__}.kind is {getattr(found, 'kind', None)!r}; it must be {kind!r}"
        )
    return found
