"""Where configuration comes from besides our own: the user's folder and the project's.

    ~/.config/runctl/config.yaml, ~/.config/runctl/<group>/*.yaml       the user's
    ./conf/runctl.yaml,           ./conf/runctl/<group>/*.yaml          the project's, over the user's

The two files extend our primary configuration; a file in a group adds an option or replaces ours of that name.
Nothing else under ./conf is read: trainings keep Hydra trees of their own there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from runctl.config.complaints import unreadable_yaml
from runctl.config.files import GROUPS, ConfigFiles
from runctl.config.shapes import CHOSEN_ALREADY, wrong_in_file
from runctl.errors import ConfigError


@dataclass(frozen=True)
class Source:
    """One file that extends the primary configuration."""

    label: str
    content: dict[str, Any]

    def gives(self, path: str) -> bool:
        """Whether the file sets the dotted key `path`."""
        node: Any = self.content
        for part in path.split("."):
            if not isinstance(node, dict) or part not in node:
                return False
            node = node[part]
        return True


def load(files: ConfigFiles) -> list[Source]:
    """Read the user's and the project's file and make both, and their groups, known to Hydra.

    Returns:
        The files that exist, the strongest first.

    Raises:
        ConfigError: for a file that is no YAML mapping, holds a value of the wrong shape, or would replace our primary
            configuration.
    """
    store = ConfigStore.instance()
    for group in GROUPS:
        store.repo.pop(group, None)  # what an earlier launch of this process left there
    sources = []
    for group, path, label in files.labelled():
        content = _read(path, label)
        if "defaults" in content:
            content["defaults"] = _from_the_top(content["defaults"], label)
        if (wrong := wrong_in_file(content)) is not None:
            raise ConfigError(f"{label}: {wrong}")
        store.store(group=group, name="file", package="_global_", node=OmegaConf.create(content))
        sources.append(Source(label, content))
    for path in filter(None, (files.project, files.user)):
        if not path.exists() and path.with_suffix(".yml").exists():
            raise ConfigError(f"{path.with_suffix('.yml')} is not read; rename it to {path.name}")
    for folder in files.group_dirs():
        if (folder / "runctl.yaml").exists():
            raise ConfigError(f"{folder / 'runctl.yaml'} would replace everything that runctl ships; rename it")
    _SearchPath.folders = [str(folder) for folder in files.group_dirs()]
    Plugins.instance().register(_SearchPath)
    return sources


class _SearchPath(SearchPathPlugin):
    """Puts the project's and the user's groups before ours."""

    folders: list[str] = []  # noqa: RUF012 (Hydra makes the instance, so the class carries the state)

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in reversed(self.folders):
            search_path.prepend(provider="runctl", path=f"file://{folder}")


def _from_the_top(defaults: Any, label: str) -> list[Any]:
    """A defaults list as it reads in the place where Hydra has it.

    To Hydra the file lies in a group of ours, and names in it are relative to that. To people it lies at the top and
    extends our own, so `trainer: ddp` can only mean `override /trainer: ddp`.
    """
    if not isinstance(defaults, list):
        raise ConfigError(f"{label}: defaults is a list, such as `- override /trainer: ddp`; it is {defaults!r}")
    return [_entry_from_the_top(entry, label) for entry in defaults]


def _entry_from_the_top(entry: Any, label: str) -> Any:
    if isinstance(entry, str):
        return entry if entry == "_self_" else f"/{entry.lstrip('/')}"
    if not isinstance(entry, dict) or len(entry) != 1:
        raise ConfigError(f"{label}: defaults: {entry!r} is no entry; write such as `- override /trainer: ddp`")
    (key, option), *_ = entry.items()
    *words, group = str(key).split()
    group = f"/{group.lstrip('/')}"
    if group[1:] in CHOSEN_ALREADY:
        words = ["override"]
    return {" ".join([*words, group]): option}


def _read(path: Path, label: str) -> dict[str, Any]:
    try:
        # OmegaConf's reader, for YAML's own takes 1e-3 for a string.
        content = OmegaConf.to_container(OmegaConf.load(path))
    except yaml.YAMLError as error:
        raise ConfigError(unreadable_yaml(error)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{label}: not readable as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{label}: holds a list; it must be a mapping, such as `script: train.py`")
    return {str(key): value for key, value in content.items()}
