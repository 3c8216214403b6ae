"""Where the user's and the project's configuration files lie (nothing is read; light to import)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from runctl import conf

#: The groups of one under which Hydra finds the two files: see the defaults list in conf/runctl.yaml.
GROUPS = ("runctl_project", "runctl_user")


def config_home() -> Path:
    """The folder of this user's settings, which need not exist."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "runctl"


def state_home() -> Path:
    """The folder of what we keep for this user between launches, which need not exist."""
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "runctl"


@dataclass(frozen=True)
class ConfigFiles:
    """The two files that extend our configuration; neither need exist."""

    user: Path
    project: Path | None

    @classmethod
    def around(cls, workdir: Path) -> ConfigFiles:
        """The files of this user, and of the project in which they stand."""
        user = config_home() / "config.yaml"
        project = workdir / "conf" / "runctl.yaml"
        if project.is_file() and any(project.samefile(Path(folder, "runctl.yaml")) for folder in conf.__path__):
            # In runctl's own checkout that file is not a project's: it is what a project's would extend.
            return cls(user, None)
        return cls(user, project)

    def labelled(self) -> list[tuple[str, Path, str]]:
        """Group name, path and label of both files, the strongest first; those that exist."""
        project = [("runctl_project", self.project, "conf/runctl.yaml")] if self.project else []
        both = [*project, ("runctl_user", self.user, "~/.config/runctl/config.yaml")]
        return [(group, path, label) for group, path, label in both if path.is_file()]

    def group_dirs(self) -> list[Path]:
        """Folders that hold groups, the strongest first; those that exist."""
        project = [self.project.with_suffix("")] if self.project else []
        return [path for path in (*project, self.user.parent) if path.is_dir()]
