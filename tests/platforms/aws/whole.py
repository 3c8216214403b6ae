"""Whole launches on the loopback cloud, as processes of their own: what is killed, and what arrives as it was given."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import books

from runctl.drill.cloud import Cloud

BUCKET = "whole"
LAUNCH = Path(sys.executable).with_name("runctl-launch")
#: Nothing is waited for that is not looked at.
WORDS = ("+platform=aws", "platform.instance_type=t3.medium", "platform.keep_on_failure=0")


@dataclass
class Account:
    """A cloud, a project, and the launches from there."""

    cloud: Cloud
    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.project = self.folder / "project"
        self.project.mkdir()
        self.cloud.make_bucket(BUCKET)

    def start(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a launch; what it said is to be found in `said`.

        Args:
            options: of Popen, such as streams or an environment of their own.
        """
        number = len(self.started)
        with (self.folder / f"{number}.out").open("wb") as out, (self.folder / f"{number}.err").open("wb") as err:
            launch = subprocess.Popen(
                [str(LAUNCH), *WORDS, *words], cwd=self.project,
                **{
                    "env": self.cloud.environment({"PATH": "/usr/bin:/bin", "XDG_CONFIG_HOME": str(self.folder)}),
                    "stdin": subprocess.DEVNULL, "stdout": out, "stderr": err, **options,
                },
            )  # fmt: skip
        self.started.append(launch)
        return launch

    def said(self, launch: subprocess.Popen[bytes]) -> tuple[str, str]:
        """(stdout, stderr) so far."""
        number = self.started.index(launch)
        return tuple((self.folder / f"{number}.{name}").read_text() for name in ("out", "err"))

    def instances(self, run_id: str) -> list[dict[str, Any]]:
        return [one for one in self.cloud.instances() if one["tags"].get("runctl:run") == run_id]

    def check_that_nothing_runs(self, within_s: float) -> None:
        books.check_that_nothing_runs(self.cloud.instances, within_s)

    def close(self) -> None:
        for launch in self.started:
            launch.kill()
            launch.wait()
