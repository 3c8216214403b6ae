"""What the agent does for checkpoints: what the ranks begin from, what they are told, how a stop reaches them."""

from __future__ import annotations

import sys
import time
from typing import Any

from runctl import processes
from runctl.agreement import Agreement, Kind
from runctl.checkpoint.catalog import Catalog, Found
from runctl.checkpoint.policy import RankPolicy
from runctl.errors import CheckpointError
from runctl.hostdir import HostDir
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec

_LOOK_S = 0.05


class Checkpoints:
    """The checkpoints of a run, as one attempt on this host sees them.

    Args:
        spec: what runs.
        rundir: its run directory; with one on this machine, ranks commit straight into it.
        host_dir: this attempt's scratch directory.
        attempt: its number.
    """

    def __init__(self, spec: LaunchSpec, rundir: RunDir, host_dir: HostDir, attempt: int) -> None:
        self._spec = spec
        self._host_dir = host_dir
        self._attempt = attempt
        self._catalog = Catalog(rundir.local_checkpoints() or host_dir.path / "checkpoints")
        self.resumed_from_step: int | None = None

    def begin(self) -> dict[str, str]:
        """Find what this attempt begins from.

        Returns:
            The variable that tells the ranks.

        Raises:
            CheckpointError: if there are checkpoints and none is usable, or if one is required and there is none.
        """
        self._catalog.sweep()
        found = self._find()
        if found is not None:
            self.resumed_from_step = found.manifest.step
            _say(f"resuming from step {found.manifest.step} ({found.path})")
        policy = self._spec.checkpoint
        return RankPolicy(
            folder=str(self._catalog.folder),
            run_id=self._spec.run.id,
            attempt=self._attempt,
            every=policy.every,
            restore=str(found.path) if found else None,
            grace_s=policy.grace_s,
            retention=policy.retention,
        ).to_environment()

    def ask_to_stop(self, ranks: int) -> bool:
        """Ask the ranks to meet at a step, save and end.

        Returns:
            False if they cannot be asked: not all of them look out for it, or not yet.
        """
        restart = self._host_dir.restart()
        path = self._host_dir.agreement(restart)
        polling = [w for w in self._host_dir.workers() if w.get("polling") and w["restart"] == restart]
        if len(polling) < ranks or not path.exists():
            return False
        agreement = Agreement(path)
        agreement.want(Kind.STOP)
        agreement.close()
        return True

    def wait_for_writers(self, timeout_s: float) -> None:
        """Let a checkpoint that is being written be finished: its snapshot outlives the rank that took it."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if not any(processes.started_at(pid) for pid in self._catalog.writers()):
                return
            time.sleep(_LOOK_S)

    def stopped_at_step(self) -> int | None:
        """The step at which the ranks ended because they were asked to, or None."""
        steps = [w["stopped_at_step"] for w in self._host_dir.workers() if "stopped_at_step" in w]
        return min(steps, default=None)

    def progress(self) -> dict[str, Any]:
        """What the status says of checkpoints."""
        return {"checkpoints": self._catalog.steps(), "resumed_from_step": self.resumed_from_step}

    def _find(self) -> Found | None:
        resume = self._spec.checkpoint.resume
        if resume == "never":
            return None
        if resume.isdigit():
            path = self._catalog.path(int(resume))
            return Found(path, self._catalog.verified(int(resume)))
        found = self._catalog.newest(lambda error: _say(f"{error}; going back to the one before"))
        if found is None and resume == "require":
            raise CheckpointError(f"checkpoint.resume=require: there is no checkpoint in {self._catalog.folder}")
        return found


def _say(text: str) -> None:
    sys.stderr.write(f"runctl: {text}\n")
