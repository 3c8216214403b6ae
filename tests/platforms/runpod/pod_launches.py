"""Launches on the loopback RunPod as processes of their own, from a machine that has nothing else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runctl.drill.runpod.cloud import RunpodCloud

LAUNCH = Path(sys.executable).with_name("runctl-launch")
WORDS = ("+platform=runpod", "platform.gpu_type=RTX A5000", "platform.keep_on_failure=0", "trainer=single")


@dataclass
class Home:
    """A user's machine, from which there is a way to the loopback RunPod.

    Attributes:
        env: variables of every launch, besides those that lead there.
    """

    cloud: RunpodCloud
    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.project = self.folder / "project"
        self.project.mkdir()

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{len(self.started)}.said").open("wb") as said:
            launch = subprocess.Popen(
                [str(LAUNCH), *WORDS, "script=train.py", *words], cwd=self.project, stdin=subprocess.DEVNULL,
                stdout=said, stderr=said,
                env=self.cloud.environment({
                    "PATH": "/usr/bin:/bin", "XDG_CONFIG_HOME": str(self.folder), "XDG_STATE_HOME": str(self.folder),
                    "HOME": str(self.folder), **self.env,
                }),
            )  # fmt: skip
        self.started.append(launch)
        return launch

    def said(self, launch: subprocess.Popen[bytes]) -> str:
        return (self.folder / f"{self.started.index(launch)}.said").read_text()

    def running(self, run_id: str) -> list[str]:
        return [one["id"] for one in self.pods(run_id) if one["state"] == "running"]

    def pods(self, run_id: str) -> list[dict[str, Any]]:
        return [one for one in self.cloud.pods() if one["name"].startswith(f"runctl-{run_id}-a")]

    def close(self) -> None:
        for launch in self.started:
            launch.kill()
            launch.wait()
