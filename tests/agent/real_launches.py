"""Launches with real processes, each in a project and a temporary folder of its own, cleaned up after the test."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import textwrap
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from waiting import wait_until

from runctl import processes

LAUNCH = Path(sys.executable).with_name("runctl-launch")
TIMEOUT_S = 60


@dataclass
class Launch:
    """A started `runctl-launch` and where it leaves what."""

    process: subprocess.Popen[bytes]
    project: Path
    run_id: str
    scratch: Path

    @property
    def run_dir(self) -> Path:
        return self.project / "runs" / self.run_id

    def ready(self, *names: str, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until the script has made these files in the project."""
        for name in names:
            wait_until((self.project / name).exists, timeout_s, f"{name} exists")

    def end(self, timeout_s: float = TIMEOUT_S) -> int:
        """Wait for the launcher; its streams are to be found in `out` and `err`."""
        return self.process.wait(timeout_s)

    def agent(self) -> int:
        """The agent's process id, from its lease."""
        return int(self.json("lease.json")["pid"])

    def torchrun(self) -> int:
        children = psutil.Process(self.agent()).children()
        return next(child.pid for child in children if "runctl.agent.torchrun" in child.cmdline())

    def of_this_run(self) -> list[int]:
        """Processes that carry the run's id in their environment."""
        # Another test's run may have the same id; its temporary folder is its own.
        here = set(processes.find_by_environment("TMPDIR", str(self.scratch)))
        return [pid for pid in processes.find_by_environment("RUNCTL_RUN_ID", self.run_id) if pid in here]

    @property
    def out(self) -> str:
        return (self.scratch / "out").read_text(errors="replace")

    @property
    def err(self) -> str:
        return (self.scratch / "err").read_text(errors="replace")

    def json(self, name: str) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.run_dir / name).read_text())
        return data

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run_dir / name).read_text().splitlines()]

    def log(self, source: str, attempt: int = 1) -> bytes:
        return (self.run_dir / "logs" / f"a{attempt}" / "n0" / f"{source}.log").read_bytes()

    def host_dirs(self) -> list[Path]:
        """What is left of the attempts' host directories."""
        return [path for base in self.scratch.glob("runctl-*") for path in base.iterdir()]


class Launcher:
    """Starts `runctl-launch` in one project."""

    def __init__(self, project: Path, scratch: Path) -> None:
        self.project = project
        self.scratch = scratch
        self.started: list[Launch] = []

    def script(self, text: str, name: str = "train.py") -> Path:
        """Write a script into the project."""
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def start(
        self, *words: str, script: str | None = None, ranks: int = 0, run_id: str | None = None,
        env: dict[str, str | None] | None = None, **options: Any,
    ) -> Launch:  # fmt: skip
        """Start a launch.

        Args:
            words: further words of the command line.
            script: text of the script; None leaves it to `words`.
            ranks: how many under torchrun; 0 is plain python.
            env: variables to set, or with None to unset.
            options: for `Popen`.
        """
        run_id = run_id or f"t-{uuid.uuid4().hex[:12]}"
        if script is not None:
            self.script(script)
            words = ("script=train.py", *words)
        trainer = ["trainer=ddp", f"trainer.nproc_per_node={ranks}"] if ranks else []
        variables: dict[str, str | None] = {
            **os.environ, "TMPDIR": str(self.scratch), "XDG_CONFIG_HOME": str(self.scratch),
            "PYTHONPATH": None, "OMP_NUM_THREADS": None, **(env or {}),
        }  # fmt: skip
        with (self.scratch / "out").open("wb") as out, (self.scratch / "err").open("wb") as err:
            process = subprocess.Popen(
                [str(LAUNCH), *trainer, f"run.id={run_id}", *words],
                **{
                    "cwd": self.project,
                    "env": {key: value for key, value in variables.items() if value is not None},
                    "stdin": subprocess.DEVNULL,
                    "stdout": out,
                    "stderr": err,
                    **options,
                },
            )
        launch = Launch(process, self.project, run_id, self.scratch)
        self.started.append(launch)
        return launch

    def run(self, *words: str, timeout_s: float = TIMEOUT_S, **options: Any) -> tuple[int, Launch]:
        """Start a launch and wait for its end: exit code and launch."""
        launch = self.start(*words, **options)
        return launch.end(timeout_s), launch

    def clean_up(self) -> None:
        for launch in self.started:
            with contextlib.suppress(FileNotFoundError, psutil.Error, ValueError):
                agent = psutil.Process(launch.agent())
                if "runctl.agent" in agent.cmdline():
                    agent.kill()
            if launch.process.poll() is None:
                launch.process.kill()
                launch.process.wait(10)
        processes.end_by_environment("TMPDIR", str(self.scratch))
