"""Run directories made up for tests of `runctl`, and the command itself in this process."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from runctl.errors import RunctlError
from runctl.nodelogs import NodeLogs, length_line
from runctl.outcome import Attempt
from runctl.registry import Registry
from runctl.rundir import RunDir, run_url
from runctl.spec import LaunchSpec, Program, RunIdentity, RunState
from runctl.standing import look


class Home:
    """A user's state, a root of runs, and `runctl` as it is typed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.root = str(folder / "runs")
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        monkeypatch.chdir(folder)
        self.registry = Registry()

    def runctl(self, *words: str, expect: int = 0) -> Result:
        """Run a command; what it raised as an error for the user stands in its output."""
        from runctl.cli.app import app

        result = CliRunner().invoke(app, list(words))
        if isinstance(result.exception, RunctlError):
            assert int(result.exception.exit_code) == expect, result.exception
            result.stderr_bytes = (result.stderr_bytes or b"") + f"runctl: {result.exception}\n".encode()
        else:
            assert result.exit_code == expect, (result.output, result.exception)
        return result

    def run(
        self, run_id: str, *, state: RunState = RunState.SUCCEEDED, step: int | None = 100, loss: float = 0.5,
        root: str | None = None, noted: bool = True, name: str = "train", log: str = "", attempts: int = 1,
        config: str = "args: {lr: 0.1}\n", began_at: float | None = None, tags: dict[str, str] | None = None,
    ) -> RunDir:  # fmt: skip
        """A run directory as a launch on this machine leaves it; what is not ended has a heartbeat of just now."""
        rundir = RunDir(run_url(root or self.root, run_id))
        program = Program("train.py", None)
        spec = LaunchSpec(RunIdentity(run_id, name, root or self.root), program, tags=tags or {})
        now = time.time()
        began_at = now - 60 if began_at is None else began_at
        rundir.write_spec(spec)
        rundir.publish("config.yaml", config.encode())
        for number in range(1, attempts + 1):
            last = number == attempts
            ended = state.ended or not last
            rundir.write_attempt(
                Attempt(
                    number, "aws" if not ended else "local", "host-1", "spot" if not ended else "own",
                    started_at=began_at, ended_at=began_at + 50 if ended else None,
                    state=state if last else RunState.INTERRUPTED, exit_code=0 if state is RunState.SUCCEEDED else 1,
                    end_reason=(state.value if last else "interrupted") if ended else "", step=step,
                    resumed_from_step=None if number == 1 else 40, price_usd_per_hour=0.36 if not ended else None,
                )
            )  # fmt: skip
            stream = rundir.log_stream(number, 0, "r0")
            stream.append(log.encode())
            stream.close()
            if log:
                times = NodeLogs(rundir, number, 0).lengths()
                times.append(length_line({"r0": len(log)}))
                times.close()
        rundir.write_status(state, attempts, step=step, metrics={"loss": loss}, checkpoints=[50, 100])
        if not state.ended:
            rundir.store.write("heartbeat.json", b"{}")
            rundir.beat(attempts, "host-1", 1, step=step, metrics={"loss": loss}, total_steps=1000, steps_per_s=2.0)
        if noted:
            self.registry.note(look(rundir).entry(began_at))
        return rundir


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return Home(tmp_path / "home", monkeypatch)
