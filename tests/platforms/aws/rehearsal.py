"""Launches on the loopback cloud, in this process and with short pauses: what tests of failures are made of."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import books
import pytest

from runctl import buying
from runctl.buying import Buyer
from runctl.drill.cloud import Cloud
from runctl.drill.faults import Fault
from runctl.hooks import Hooks
from runctl.outcome import Outcome
from runctl.platforms import watching
from runctl.platforms.aws import AwsPlatform, instances, purchase, watch
from runctl.platforms.aws.options import AwsConfig
from runctl.platforms.rented import Market
from runctl.rundir import RunDir, run_url
from runctl.spec import LaunchSpec, Limits, Plan, Program, RunHandle, RunIdentity
from runctl.supervisor import Supervisor

BUCKET = "failures"
ROOT = f"s3://{BUCKET}/runs"
#: The waits of a launch, shortened: what is tested is what comes after what, not how long it takes.
PAUSES = (
    (purchase, "_PAUSE_S", 0.02),
    (purchase, "_PASSES_S", 0.6),
    (instances, "_PAUSE_S", 0.05),
    (watching, "_STATUS_S", 0.3),
    (watching, "_HOST_S", 0.5),
    (watching, "COMING_UP_S", 0.2),
    (watch, "COMING_UP_S", 0.2),
    (watching, "_LAST_WORDS_S", 1.0),
    (buying, "_FIRST_PAUSE_S", 0.2),
)
FIRST_IS_LONG = "import os, time\ntime.sleep(60 if os.environ['RUNCTL_ATTEMPT'] == '1' else 0)\n"
_numbers = itertools.count(1)


@dataclass
class Launch:
    """One launch and what it left.

    Attributes:
        told: the lines that its user saw.
        notes: of the first plan.
        output: what came from the host to be shown.
        error: what it raised.
    """

    run_id: str
    cloud: Cloud
    calls: list[dict[str, Any]]
    told: list[str]
    took_s: float
    notes: tuple[str, ...] = ()
    output: str = ""
    handle: RunHandle | None = None
    outcome: Outcome | None = None
    error: BaseException | None = None

    def count(self, action: str, market: str | None = None) -> int:
        """How many calls of a kind it made."""
        return sum(one["action"] == action and market in (None, one["market"]) for one in self.calls)

    @property
    def injected(self) -> Counter[str]:
        """How many calls met a fault."""
        return Counter(one["action"] for one in self.calls if one["error"])

    @property
    def instances(self) -> list[dict[str, Any]]:
        """Its instances, those that have ended among them."""
        return [one for one in self.cloud.instances() if one["tags"].get("runctl:run") == self.run_id]

    def check_that_nothing_is_left(self) -> None:
        books.check_that_nothing_runs(lambda: self.instances, 20, self.told)


@dataclass
class Rehearsal:
    """A cloud, a bucket and a project, for many launches one after the other."""

    cloud: Cloud
    project: Path

    def rent(self, *faults: Fault, **options: Any) -> Launch:
        """Look, plan and rent, and give back what was rented: what a launch does before there is a host."""

        def carry_out(launch: Launch, platform: AwsPlatform, spec: LaunchSpec, rundir: RunDir) -> None:
            buyer = Buyer(spec, platform, rundir, approve=lambda _: None, tell=launch.told.append,
                          agree=lambda text: not launch.told.append(text))  # fmt: skip
            plan: Plan | None = None
            try:
                plan = buyer.plan(1, [])
                plan, launch.handle = buyer.buy(plan, [])
            finally:
                self.cloud.clear()
                if launch.handle is not None:
                    platform.clean_up(launch.handle)

        return self._launch(carry_out, faults, options)

    def run(self, *faults: Fault, script: str = "train.py", **options: Any) -> Launch:
        """A whole launch, to its outcome; `spec` among the options are fields of the spec."""

        def carry_out(launch: Launch, platform: AwsPlatform, spec: LaunchSpec, rundir: RunDir) -> None:
            platform.check_ready(spec)
            RunDir.check(spec.run.root)
            with tempfile.TemporaryFile() as shown:
                supervisor = Supervisor(
                    spec, platform, Hooks.load(self.project), rundir, launch.told.append, output=shown
                )
                plan = supervisor.first_plan(1)
                launch.notes = plan.notes
                rundir.write_spec(spec)
                launch.outcome = supervisor.run(plan)
                shown.seek(0)
                launch.output = shown.read().decode(errors="replace")

        return self._launch(carry_out, faults, options, script)

    def _launch(
        self, carry_out: Any, faults: tuple[Fault, ...], options: dict[str, Any], script: str = "train.py"
    ) -> Launch:
        run_id = f"failure-{os.getpid()}-{next(_numbers)}"
        spec = LaunchSpec(
            RunIdentity(run_id, "failure", ROOT), Program(script, None),
            **{"limits": Limits(max_time_s=600.0), **options.pop("spec", {})},
        )  # fmt: skip
        told: list[str] = []
        config = AwsConfig(**{
            "instance_type": "t3.medium", "region": "us-east-1", "market": Market.spot_then_on_demand,
            "fallback_after": "1s", "wait_for_capacity": "2s", "bring_up": "30s", "keep_on_failure": "0",
            "max_attempts": 3, **options,
        })  # fmt: skip
        platform = AwsPlatform(self.project, config, told.append)
        before = len(self.cloud.calls())
        launch = Launch(run_id, self.cloud, [], told, 0.0)
        self.cloud.clear()
        for fault in faults:
            self.cloud.inject(fault)
        began = time.monotonic()
        try:
            carry_out(launch, platform, spec, RunDir(run_url(ROOT, run_id)))
        except Exception as error:
            launch.error = error
        finally:
            launch.took_s = time.monotonic() - began
            self.cloud.clear()
            launch.calls = self.cloud.calls()[before:]
        return launch


@contextlib.contextmanager
def rehearsal(folder: Path, **of_cloud: Any) -> Iterator[Rehearsal]:
    """A cloud to launch on from this process, which sees no other AWS meanwhile.

    Args:
        of_cloud: arguments of the cloud.
    """
    import s3fs
    from botocore.retries.standard import ExponentialBackoff

    project = folder / "project"
    project.mkdir()
    (project / "train.py").write_text("print('trained')\n")
    (project / "first_is_long.py").write_text(FIRST_IS_LONG)
    with Cloud(**of_cloud) as cloud, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in cloud.environment({}).items():
            patch.setenv(name, value)
        for module, name, value in PAUSES:
            patch.setattr(module, name, value)
        # botocore's own pauses, of seconds: they are its own to test.
        patch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.02)
        s3fs.S3FileSystem.clear_instance_cache()
        cloud.make_bucket(BUCKET)
        try:
            yield Rehearsal(cloud, project)
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
