"""The composed configuration, checked against the schema, as its objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runctl.config import complaints, shapes
from runctl.config.platform import PlatformConfig
from runctl.config.schemas import LaunchConfig
from runctl.errors import ConfigError

_SCHEMAS: dict[type, DictConfig] = {}


class Checker:
    """Checks configurations. Where one differs from the one before in values alone, it checks those: a merge of all
    takes a third of what a job of a sweep takes until it is begun.

    Args:
        options_of: the class of a platform's options, by its kind.
    """

    def __init__(self, options_of: Callable[[str], type[PlatformConfig]]) -> None:
        self._options_of = options_of
        self._known: dict[type, tuple[dict[Any, Any], DictConfig]] = {}

    def checked(self, cfg: DictConfig) -> LaunchConfig:
        """A configuration as objects of the schema.

        A key added with `+` gets past Hydra's own check; merging into the bare schema catches it.

        Args:
            cfg: the composed configuration.

        Raises:
            ConfigError: for such a key, an interpolation that leads nowhere, and a list of words that holds others.
        """
        schema: type[PlatformConfig] = PlatformConfig
        try:
            given = OmegaConf.to_container(cfg)
            assert isinstance(given, dict)
            kind = cfg.platform.kind if isinstance(cfg.platform, DictConfig) and "kind" in cfg.platform else "local"
            schema = self._options_of(str(kind))
            objects = OmegaConf.to_object(self._merged(schema, given))
        except OmegaConfBaseException as error:
            raise complaints.translate(error, schema) from error
        assert isinstance(objects, LaunchConfig)
        if (wrong := shapes.no_word(objects)) is not None:
            raise ConfigError(wrong)
        return objects

    def _merged(self, schema: type[PlatformConfig], given: dict[Any, Any]) -> DictConfig:
        known = self._known.pop(schema, None)
        merged = None if known is None else _with_values(known[1], known[0], given)
        if merged is None:
            made = OmegaConf.merge(_bare(schema), given)
            assert isinstance(made, DictConfig)
            merged = made
        self._known[schema] = given, merged
        return merged


class _OtherShape(Exception):
    """Two configurations differ in more than values."""


def _with_values(merged: DictConfig, known: dict[Any, Any], given: dict[Any, Any]) -> DictConfig | None:
    """What was merged, with the values in which `given` differs from what was; None if that is not all."""
    try:
        for node, key, value in _changes(merged, known, given):
            node[key] = value
    except (_OtherShape, OmegaConfBaseException):
        return None  # a merge of all gives the words for what is wrong
    return merged


def _changes(node: DictConfig, known: dict[Any, Any], given: dict[Any, Any]) -> Iterator[tuple[DictConfig, Any, Any]]:
    """Where a value is another: the node that holds it, its key, and the new value."""
    if list(known) != list(given):
        raise _OtherShape
    for key, value in given.items():
        before = known[key]
        if isinstance(value, dict) and isinstance(before, dict):
            yield from _changes(node[key], before, value)
        elif repr(value) != repr(before):  # 1 and true are the same to ==
            if isinstance(value, dict) or isinstance(before, dict):
                raise _OtherShape
            yield node, key, value


def _bare(platform: type[PlatformConfig]) -> DictConfig:
    """The schema with a platform's options, to be merged into: making it takes as long as all the rest of a check."""
    if platform not in _SCHEMAS:
        bare: DictConfig = OmegaConf.structured(LaunchConfig)
        bare.platform = OmegaConf.structured(platform)
        _SCHEMAS[platform] = bare
    return _SCHEMAS[platform]
