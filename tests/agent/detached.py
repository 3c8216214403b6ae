"""Detached agents as a host starts them: an order in a file, a run directory in a bucket, nobody beside them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from real_launches import TIMEOUT_S
from waiting import wait_until

import runctl
from runctl import processes
from runctl.encoding import dumps
from runctl.rundir import RunDir
from runctl.spec import CheckpointPolicy, LaunchSpec, Limits, Program, RunIdentity, Trainer

PACKAGE_DIR = Path(runctl.__file__).parents[1]


class Detached:
    """One run in a bucket, and its agents.

    Args:
        folder: for the project and the agents' temporary files.
        root: URL below which the run directory lies.
    """

    def __init__(self, folder: Path, root: str) -> None:
        self.project = folder / "project"
        self.scratch = folder / "scratch"
        for path in (self.project, self.scratch):
            path.mkdir()
        self.root = root
        self.run_dir = f"{root}/run"
        self.rundir = RunDir(self.run_dir)
        self.agents: list[subprocess.Popen[bytes]] = []

    def write(self, script: str, grace_s: float = 30.0, ranks: int = 0, **limits: float) -> None:
        """Write the run's spec; no `ranks` is plain python."""
        trainer = Trainer("ddp", ranks) if ranks else Trainer()
        (self.project / "train.py").write_text(script)
        self.rundir.write_spec(
            LaunchSpec(
                RunIdentity("run", "run", self.root),
                Program("train.py", None),
                trainer=trainer,
                limits=Limits(**limits),
                checkpoint=CheckpointPolicy(grace_s=grace_s),
            )
        )

    def order(self, attempt: int = 1, **fields: Any) -> Path:
        """Write an order, and return its file."""
        path = self.scratch / f"order-{attempt}.json"
        order = {"run_dir": self.run_dir, "attempt": attempt, "project_dir": str(self.project), "platform": "aws"}
        path.write_text(json.dumps({**order, "attached": False, **fields}))
        return path

    def start(self, attempt: int = 1, env: dict[str, str] | None = None, **fields: Any) -> subprocess.Popen[bytes]:
        with (self.scratch / f"agent-{attempt}.log").open("wb") as log:
            agent = subprocess.Popen(
                [sys.executable, "-m", "runctl.agent", "--order", str(self.order(attempt, **fields))],
                cwd=PACKAGE_DIR, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "TMPDIR": str(self.scratch), **(env or {})},
            )  # fmt: skip
        self.agents.append(agent)
        return agent

    def run(self, **options: Any) -> int:
        return self.start(**options).wait(TIMEOUT_S)

    def said(self, attempt: int = 1) -> str:
        """What the agent wrote outside of its run directory."""
        return (self.scratch / f"agent-{attempt}.log").read_text()

    def ready(self, name: str = "ready") -> None:
        wait_until((self.project / name).exists, TIMEOUT_S, f"{name} exists")

    def console(self, attempt: int = 1) -> bytes:
        """The console as a follower reads it: segment after segment."""
        segments = []
        while (segment := self.rundir.console_segment(attempt, len(segments))) is not None:
            segments.append(segment)
        return b"".join(segments)

    def record(self, attempt: int = 1) -> dict[str, Any]:
        record = self.rundir.read_attempt(attempt)
        assert record is not None
        data: dict[str, Any] = json.loads(dumps(record))
        return data

    def clean_up(self) -> None:
        for agent in self.agents:
            if agent.poll() is None:
                agent.kill()
                agent.wait(10)
        processes.end_by_environment("TMPDIR", str(self.scratch))
        for pid in processes.find_by_environment("TMPDIR", str(self.scratch)):
            psutil.wait_procs([psutil.Process(pid)], 5)


def later(seconds: float) -> float:
    """A time in the future or the past, in seconds since the epoch."""
    return time.time() + seconds
