"""The configurations of a sweep's jobs, without composing each from its files.

Jobs mostly differ in the values of the same keys. The first of a kind is composed as Hydra does it; for the next of
that kind the values are set in the same configuration, which is a hundred times as fast. Whatever chooses a file, adds
or deletes a key, or sets more than one value is composed anew.
"""

from __future__ import annotations

from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, open_dict, read_write

_SCALARS = (int, float, str, bool, type(None))


class QuickLoader:
    """Stands before Hydra's own loader. What it composes is good until it composes the next.

    Args:
        loader: Hydra's.
    """

    def __init__(self, loader: ConfigLoaderImpl) -> None:
        self._loader = loader
        self._parser = OverridesParser.create(config_loader=loader)
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        self._groups: dict[str, bool] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The configuration of one job."""
        overrides: list[Override] = self._parser.parse_overrides(list(sweep_overrides))
        kind = tuple(self._kind(override) for override in overrides)
        config = self._composed.get(kind)
        if config is None:
            config = self._loader.load_sweep_config(master_config, list(sweep_overrides))
            self._composed[kind] = config
            return config
        values = [override for override in overrides if self._is_value(override)]
        own = [override for override in overrides if not override.is_hydra_override()]
        with read_write(config.hydra), open_dict(config.hydra):
            ConfigLoaderImpl._apply_overrides_to_config(values, config)
            job = config.hydra.job
            config.hydra.overrides.task = [override.input_line for override in own]
            told = job.config.override_dirname
            job.override_dirname = get_overrides_dirname(
                overrides=own, kv_sep=told.kv_sep, item_sep=told.item_sep, exclude_keys=told.exclude_keys
            )
        return config

    def _kind(self, override: Override) -> str:
        """What two overrides share that differ only in a value."""
        return f"{override.key_or_group}=" if self._is_value(override) else str(override.input_line)

    def _is_value(self, override: Override) -> bool:
        key = override.key_or_group
        if override.is_add() or override.is_force_add() or override.is_delete() or override.is_hydra_override():
            return False
        if key not in self._groups:
            self._groups[key] = bool(self._loader.repository.group_exists(key))
        return not self._groups[key] and override.package is None and isinstance(override.value(), _SCALARS)
