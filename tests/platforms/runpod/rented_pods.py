"""Launches on the loopback RunPod, in this process and with short pauses."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from runctl import buying
from runctl.drill.runpod.cloud import RunpodCloud
from runctl.hooks import Hooks
from runctl.outcome import Outcome
from runctl.platforms import watching
from runctl.platforms.runpod import RunpodPlatform, line, pods, purchase
from runctl.platforms.runpod.options import RunpodConfig
from runctl.rundir import RunDir, run_url
from runctl.spec import CheckpointPolicy, Every, LaunchSpec, Limits, Program, RunIdentity, RunState
from runctl.supervisor import Supervisor

#: The waits of a launch, shortened: what is tested is what comes after what, not how long it takes.
PAUSES = (
    (purchase, "_PAUSE_S", 0.02),
    (pods, "_PAUSE_S", 0.05),
    (watching, "_STATUS_S", 0.3),
    (watching, "_HOST_S", 0.5),
    (watching, "COMING_UP_S", 0.2),
    (watching, "_LAST_WORDS_S", 1.0),
    (line, "_ROUND_S", 0.2),
    (line, "_AGAIN_S", 0.2),
    (buying, "_FIRST_PAUSE_S", 0.2),
)
GPU = "NVIDIA RTX A5000"
#: The first attempt waits to be interrupted; the others end at once.
FIRST_IS_LONG = """
import os, time
print("under way", flush=True)
time.sleep(60 if os.environ["RUNCTL_ATTEMPT"] == "1" else 0)
print("trained")
"""
#: The first attempt saves at step 100, and not before step 200 by itself again: it waits to be told of its end.
SAVES_ONCE = """
import os, time, torch, runctl
checkpointer = runctl.attach(model=torch.nn.Linear(4, 4))
for step in checkpointer.steps(200 if os.environ["RUNCTL_ATTEMPT"] == "1" else 1):
    time.sleep(0.5 if step >= 100 else 0)
print("trained")
"""
EVERY_100 = CheckpointPolicy(every=Every("steps", 100))
_numbers = itertools.count(1)


@contextlib.contextmanager
def loopback(folder: Path) -> Iterator[RunpodCloud]:
    """A RunPod for launches from this process, which sees no other meanwhile."""
    with RunpodCloud() as cloud, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RUNPOD_")]:
            patch.delenv(name)
        for name, value in cloud.environment({}).items():
            patch.setenv(name, value)
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        for module, name, value in PAUSES:
            patch.setattr(module, name, value)
        yield cloud


@dataclass
class Launch:
    """One launch and what it left."""

    run_id: str
    cloud: RunpodCloud
    rundir: RunDir
    told: list[str] = field(default_factory=list)
    output: str = ""
    outcome: Outcome | None = None
    error: BaseException | None = None

    @property
    def pods(self) -> list[dict[str, Any]]:
        """Its pods, those that have ended among them."""
        return [one for one in self.cloud.pods() if one["name"].startswith(f"runctl-{self.run_id}-a")]

    def check_that_nothing_is_left(self) -> None:
        wait_until(lambda: all(one["state"] == "terminated" for one in self.pods), 20, "every pod has ended")


@dataclass
class Yard:
    """A RunPod and a project, for many launches one after the other."""

    cloud: RunpodCloud
    project: Path

    def run(
        self, script: str, *, when: Callable[[Launch], bool] = lambda _: False,
        then: Callable[[str], None] = lambda _: None, spec: dict[str, Any] | None = None, root: str | None = None,
        **options: Any,
    ) -> Launch:  # fmt: skip
        """A whole launch, to its outcome.

        Args:
            script: the training.
            when: asked again and again; once it is so,
            then: is called with the newest pod's id.
            spec: fields of the spec.
            root: where the run's directory lies; on this machine if nothing is said.
            options: of the platform.
        """
        (self.project / "train.py").write_text(script)
        run_id = f"pods-{os.getpid()}-{next(_numbers)}"
        identity = RunIdentity(run_id, "pods", root or str(self.project.parent / "runs"))
        given = LaunchSpec(identity, Program("train.py", None), **{"limits": Limits(max_time_s=600.0), **(spec or {})})
        launch = Launch(run_id, self.cloud, RunDir(run_url(identity.root, run_id)))
        times = {"fallback_after": "1s", "wait_for_capacity": "2s", "bring_up": "60s", "keep_on_failure": "0"}
        config = RunpodConfig(**{"gpu_type": GPU, "max_attempts": 3, **times, **options})
        platform = RunpodPlatform(self.project, config, launch.told.append)
        ended = threading.Event()

        def meanwhile() -> None:
            while not ended.wait(0.1):
                if when(launch):
                    then(launch.pods[-1]["id"])
                    break

        thread = threading.Thread(target=meanwhile, daemon=True)
        thread.start()
        try:
            platform.check_ready(given)
            with tempfile.TemporaryFile() as shown:
                supervisor = Supervisor(
                    given, platform, Hooks.load(self.project), launch.rundir, launch.told.append, output=shown
                )
                plan = supervisor.first_plan(1)
                launch.rundir.write_spec(given)
                launch.outcome = supervisor.run(plan)
                shown.seek(0)
                launch.output = shown.read().decode(errors="replace")
        except Exception as error:
            launch.error = error
        finally:
            ended.set()
            thread.join()
        return launch

    def left(self, script: str, *, until: Callable[[Launch], bool]) -> Launch:
        """A launch whose launcher goes once it is so, and leaves the pod to itself.

        Args:
            script: the training.
            until: asked again and again.
        """
        (self.project / "train.py").write_text(script)
        run_id = f"pods-{os.getpid()}-{next(_numbers)}"
        identity = RunIdentity(run_id, "pods", str(self.project.parent / "runs"))
        spec = LaunchSpec(identity, Program("train.py", None), limits=Limits(max_time_s=600.0))
        launch = Launch(run_id, self.cloud, RunDir(run_url(identity.root, run_id)))
        launch.rundir.write_spec(spec)
        platform = RunpodPlatform(self.project, RunpodConfig(gpu_type=GPU), launch.told.append)
        handle = platform.submit(platform.plan(spec, platform.quote(spec), 1))
        deadline = time.monotonic() + 60
        while not until(launch):
            assert time.monotonic() < deadline, launch.told
            platform.wait(handle, 0.1)
        platform.clean_up(handle, keep_s=600.0)  # lets go of the pod, which stays
        return launch


def trains(launch: Launch) -> bool:
    """Whether the first attempt's training has said that it is under way."""
    first = launch.rundir.console_segment(1, 0)
    return first is not None and b"under way" in first


def saved(launch: Launch) -> bool:
    """Whether the checkpoint of step 100 has come to where the run's directory lies."""
    return launch.rundir.store.read("checkpoints/step-000100/manifest.json") is not None


def stopped_and_went_on(launch: Launch) -> None:
    """Check that RunPod's notice ended the first attempt of SAVES_ONCE, and the second began from there."""
    assert launch.outcome is not None, (launch.error, launch.told)
    assert launch.outcome.state is RunState.SUCCEEDED, (launch.told, launch.output)
    first, second = launch.outcome.attempts
    assert "RunPod takes the pod back at" in first.end_reason, launch.told
    assert second.resumed_from_step is not None and 100 < second.resumed_from_step < 200, launch.outcome
    launch.check_that_nothing_is_left()
