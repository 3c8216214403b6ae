"""Whole launches on the loopback cloud, as processes of their own: what is killed, and what arrives as it was given."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runctl.drill.cloud import Cloud

BUCKET = "whole"
LAUNCH = Path(sys.executable).with_name("runctl-launch")
#: Nothing is waited for that is not looked at.
WORDS = ("+platform=aws", "platform.instance_type=t3.medium", "platform.keep_on_failure=0")


def wait_until(condition: Callable[[], Any], timeout_s: float, what: str) -> None:
    """Wait until something is so; fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.1)


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

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a launch; what it said is to be found in `said`."""
        number = len(self.started)
        with (self.folder / f"{number}.out").open("wb") as out, (self.folder / f"{number}.err").open("wb") as err:
            launch = subprocess.Popen(
                [str(LAUNCH), *WORDS, *words], cwd=self.project, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                env=self.cloud.environment({"PATH": "/usr/bin:/bin", "XDG_CONFIG_HOME": str(self.folder)}),
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
        """No instance lives on, and none was ever there twice for one attempt."""
        deadline = time.monotonic() + within_s
        while left := [one["id"] for one in self.cloud.instances() if one["state"] != "terminated"]:
            assert time.monotonic() < deadline, f"left running: {left}"
            time.sleep(0.2)
        attempts = Counter((one["tags"]["runctl:run"], one["tags"]["runctl:attempt"]) for one in self.cloud.instances())
        assert all(count == 1 for count in attempts.values()), attempts

    def close(self) -> None:
        for launch in self.started:
            launch.kill()
            launch.wait()
