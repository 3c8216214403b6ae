"""A configuration that was composed for an earlier launch, as its run directory keeps it, with words over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runctl.errors import ConfigError

#: What a run may go on with otherwise than before; the rest is what makes it this run.
MAY_DIFFER = ("platform", "limits", "resources", "retry_on", "checkpoint", "logs", "detach", "output")


def composed(text: str, words: Sequence[str]) -> tuple[DictConfig, set[str]]:
    """The configuration, to be checked.

    Args:
        text: of the run's `config.yaml`.
        words: as `runctl-launch` takes them, such as `limits.max_time=2h`.

    Returns:
        The configuration, and which of its parts the words have changed.

    Raises:
        ConfigError: for a text that is no configuration, and a word that is none or must not differ.
    """
    try:
        cfg = OmegaConf.create(yaml.safe_load(text))
        assert isinstance(cfg, DictConfig)
    except (yaml.YAMLError, OmegaConfBaseException, AssertionError) as error:
        raise ConfigError(f"the run's config.yaml cannot be read: {error}") from error
    changed = set()
    for word in words:
        key, value = _parsed(word)
        part = key.split(".")[0]
        if part not in MAY_DIFFER or key == "platform" or key.startswith("platform.kind"):
            raise ConfigError(
                f"{word}: a run goes on as it was launched; {', '.join(MAY_DIFFER)} may differ, for anything else "
                "launch again under its run.name"
            )
        OmegaConf.update(cfg, key, value, force_add=True)
        changed.add(part)
    return cfg, changed


def _parsed(word: str) -> tuple[str, Any]:
    try:
        [parsed] = OverridesParser.create().parse_overrides([word.lstrip("+")])
        if parsed.is_sweep_override() or parsed.is_delete():
            raise ConfigError(f"{word}: one value for one key")
        return str(parsed.key_or_group), parsed.value()
    except HydraException as error:
        raise ConfigError(f"{word}: not KEY=VALUE, as in limits.max_time=2h") from error
