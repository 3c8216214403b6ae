"""The platform `local`: an agent of our own on this machine, attached to its launcher, or with `detach=true` alone."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runctl import command, processes
from runctl.config.platform import PlatformConfig
from runctl.environment import note
from runctl.hostdir import HostDir
from runctl.hosts import facts
from runctl.hosts.gpus import visible_gpus
from runctl.platforms.base import Platform
from runctl.rundir import run_url
from runctl.spec import LaunchSpec, Offer, Plan, Quote, RunHandle, RunState

PACKAGE_DIR = str(Path(__file__).resolve().parents[2])
#: What an agent that has ended may have printed last is read within so many seconds.
_LAST_WORDS_S = 2.0


class LocalAgent:
    """An agent process on this machine, started before or when there is an order for it.

    Args:
        warm_torchrun: have it start importing torchrun at once.
        detached: let it hold nothing of this process's: neither its terminal nor a pipe that somebody reads.
        variables: what it and its ranks get besides our own environment.
        lines: takes what it prints, line by line, in a thread; None lets it print where we do.
    """

    def __init__(
        self,
        *,
        warm_torchrun: bool = False,
        detached: bool = False,
        variables: dict[str, str] | None = None,
        lines: Callable[[str], None] | None = None,
    ) -> None:
        output = subprocess.DEVNULL if detached else None if lines is None else subprocess.PIPE
        self.argv = (sys.executable, "-m", "runctl.agent", *(["--warm-torchrun"] if warm_torchrun else []))
        self.process = subprocess.Popen(
            self.argv,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT if output == subprocess.PIPE else output,
            bufsize=0,
            env={**os.environ, **variables} if variables else None,
            # It starts where the package lies, so that no module in the user's folder can stand in for one of ours.
            cwd=PACKAGE_DIR,
            # A session of its own: Ctrl-C reaches the launcher alone, which asks the agent to stop.
            start_new_session=True,
        )
        self._reader: threading.Thread | None = None
        if lines is not None:
            self._reader = threading.Thread(target=self._read, args=(lines,), name="runctl-agent", daemon=True)
            self._reader.start()

    def heard_out(self) -> None:
        """Wait, once it has ended, for the last of what it printed."""
        if self._reader is not None:
            self._reader.join(_LAST_WORDS_S)

    def _read(self, lines: Callable[[str], None]) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in io.TextIOWrapper(stdout, errors="replace"):
                lines(line.rstrip("\n"))

    def tell(self, message: dict[str, Any]) -> None:
        """Send one line; an agent that has ended hears nothing."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def dismiss(self) -> None:
        """Let an agent that never got an order go."""
        assert self.process.stdin is not None
        self.process.stdin.close()


class LocalPlatform(Platform):
    """This machine.

    Args:
        project_dir, config, tell, attached: as for every platform.
        standby: an agent started ahead, or None.
        output_to_stderr: whether the ranks' output goes to standard error altogether.
        lines: takes what agents print, line by line; None lets them print where we do.
        variables: what agents get besides our own environment.
    """

    kind = "local"

    def __init__(
        self,
        project_dir: Path,
        config: PlatformConfig | None = None,
        tell: Callable[[str], None] = lambda _: None,
        *,
        attached: bool = True,
        standby: LocalAgent | None = None,
        output_to_stderr: bool = False,
        lines: Callable[[str], None] | None = None,
        variables: dict[str, str] | None = None,
    ) -> None:
        super().__init__(project_dir, config, tell, attached=attached)
        self._standby = standby
        self._lines = lines
        self._variables = variables
        self._output_to_stderr = output_to_stderr
        self._agents: dict[tuple[str, int], LocalAgent] = {}

    def _check_ready(self, spec: LaunchSpec) -> None:
        # Said, not refused: one configuration serves the machine at hand and the one that is rented.
        wanted, gpus, cpus = spec.resources, visible_gpus(), os.cpu_count() or 1
        if gpus < (wanted.gpus or 0):
            self._tell(f"this machine shows {gpus} GPUs, resources.gpus={wanted.gpus}: it trains with what there is")
        if cpus < (wanted.cpus or 0):
            self._tell(
                f"this machine has {cpus} processors, resources.cpus={wanted.cpus}: it trains with what there is"
            )

    def _quote(self, spec: LaunchSpec) -> Quote:
        offer = Offer(self.kind, os.uname().nodename, "own", price_usd_per_hour=0.0)
        return Quote((offer,), os.uname().nodename)

    def _plan(self, spec: LaunchSpec, quote: Quote, attempt: int) -> Plan:
        run_dir = run_url(spec.run.root, spec.run.id)
        host_dir = HostDir.for_attempt(spec.run.id, attempt, run_dir)
        here = facts.here(spec, self._project_dir, str(host_dir.path), PACKAGE_DIR)
        order = {
            "run_dir": run_dir,
            "attempt": attempt,
            "project_dir": self._project_dir,
            "platform": self.kind,
            "attached": self._attached,
            "output_to_stderr": self._output_to_stderr,
        }
        return Plan(
            run_id=spec.run.id,
            attempt=attempt,
            platform=self.kind,
            argv=tuple(command.rank_argv(spec, here)),
            env=command.rank_env(spec, here, run_dir, attempt),
            nproc_per_node=here.nproc,
            nnodes=spec.trainer.nnodes,
            workdir=command.workdir(spec, here),
            run_dir=run_dir,
            host=quote.host,
            offers=quote.offers,
            requests=({"start": [sys.executable, "-m", "runctl.agent"], "order": order},),
            estimate_usd_per_hour=0.0,
            notes=(note(spec.environment, None, ()),) if spec.environment.files else (),
        )

    def _submit(self, plan: Plan) -> RunHandle:
        key = (plan.run_id, plan.attempt)
        if key not in self._agents:
            if self._attached:
                own = self._standby or LocalAgent(variables=self._variables, lines=self._lines)
                agent, self._standby = own, None
            else:
                agent = LocalAgent(detached=True, variables=self._variables)
            agent.tell(plan.requests[0]["order"])
            self._agents[key] = agent
        return RunHandle(
            self.kind, plan.run_id, plan.attempt, {"pid": self._agents[key].process.pid, "run_dir": plan.run_dir}
        )

    def _wait(self, handle: RunHandle, timeout_s: float) -> RunState:
        process = self._agent(handle).process
        ended = processes.end_descriptor(process.pid)
        try:
            if ended is not None:
                select.select([ended], [], [], timeout_s)
            elif process.poll() is None:
                time.sleep(min(timeout_s, 0.05))
        finally:
            if ended is not None:
                os.close(ended)
        code = process.poll()
        if code is None:
            return RunState.RUNNING
        self._agent(handle).heard_out()
        if code < 0:
            return RunState.INTERRUPTED
        return RunState.SUCCEEDED if code == 0 else RunState.FAILED

    def _cancel(self, handle: RunHandle, reason: str, now: bool) -> None:
        self._agent(handle).tell({"reason": reason, "now": now})

    def _clean_up(self, handle: RunHandle, keep_s: float) -> bool:
        """An agent that was killed could not end its ranks' children: what carries the run's place is ours."""
        # Not its id: two people, or two tests, may give the same one to runs in two places.
        processes.end_by_environment("RUNCTL_RUN_DIR", handle.address["run_dir"])
        HostDir.for_attempt(handle.run_id, handle.attempt, handle.address["run_dir"]).remove()
        return False

    def _agent(self, handle: RunHandle) -> LocalAgent:
        return self._agents[(handle.run_id, handle.attempt)]
