"""A configuration composed from words alone, without a launch: for what only looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from runctl.config import complaints, schemas, sources
from runctl.config.checker import Checker
from runctl.config.files import ConfigFiles
from runctl.config.platform import PlatformConfig
from runctl.config.schemas import LaunchConfig


def composed(
    words: Sequence[str], workdir: Path, kinds: Iterable[str], options_of: Callable[[str], type[PlatformConfig]]
) -> LaunchConfig:
    """What `runctl-launch WORDS` would work with there.

    Args:
        words: overrides, such as `platform=aws` and `resources.gpu=L4`.
        workdir: where the user stands; the project's file there counts, and so does the user's.
        kinds: platforms of plugins.
        options_of: the class of a platform's options, by its kind.

    Raises:
        ConfigError: for what cannot be.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module

    schemas.register(kinds)
    sources.load(ConfigFiles.around(workdir))
    try:
        with initialize_config_module(config_module="runctl.conf", version_base="1.3"):
            cfg = hydra_compose(config_name="runctl", overrides=list(words))
    except complaints.ERRORS as error:
        raise complaints.translate(error) from error
    return Checker(options_of).checked(cfg)
