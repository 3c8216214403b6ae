"""Pods rented on the loopback RunPod, in this process and with short pauses: what tests of renting are made of."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from runctl import buying
from runctl.buying import Buyer
from runctl.drill.faults import Fault
from runctl.drill.runpod.cloud import RunpodCloud
from runctl.platforms.rented import Market
from runctl.platforms.runpod import RunpodPlatform, pods, purchase, requests
from runctl.platforms.runpod.api import Api
from runctl.platforms.runpod.options import CloudType, RunpodConfig
from runctl.rundir import RunDir, run_url
from runctl.spec import LaunchSpec, Limits, Plan, Program, RunHandle, RunIdentity

A5000, L4, A4000 = "NVIDIA RTX A5000", "NVIDIA L4", "NVIDIA RTX A4000"
MADE = {requests.PUBLIC_KEY: "ssh-ed25519 AAAA test"}
#: The waits of a launch, shortened: what is tested is what comes after what, not how long it takes.
PAUSES = ((purchase, "_PAUSE_S", 0.02), (pods, "_PAUSE_S", 0.02), (buying, "_FIRST_PAUSE_S", 0.2))
_numbers = itertools.count(1)


class Renter(RunpodPlatform):
    """Rents and gives back, without anything that runs in the pod."""

    def _submit(self, plan: Plan) -> RunHandle:
        return self.purchase.make(plan, MADE)

    def _find(self, plan: Plan) -> RunHandle | None:
        return self.purchase.find(plan)

    @property
    def purchase(self) -> purchase.Purchase:
        return purchase.Purchase(self._api, self._tell)


@dataclass
class Rented:
    """One launch as far as a pod, and what it left."""

    cloud: RunpodCloud
    run_id: str
    told: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    took_s: float = 0.0
    plan: Plan | None = None
    handle: RunHandle | None = None
    error: BaseException | None = None

    def count(self, action: str) -> int:
        return sum(one["action"] == action for one in self.calls)

    @property
    def injected(self) -> int:
        """How many calls met a fault."""
        return sum(bool(one["error"]) for one in self.calls)

    @property
    def pods(self) -> list[dict[str, Any]]:
        """Its pods, those that have ended among them."""
        return [one for one in self.cloud.pods() if one["name"].startswith(f"runctl-{self.run_id}-a")]

    @property
    def living(self) -> list[str]:
        return [one["id"] for one in self.pods if one["state"] == "running"]


@dataclass
class Desk:
    """A RunPod, and a project that is launched there."""

    cloud: RunpodCloud
    project: Path

    def spec(self, **more: Any) -> LaunchSpec:
        run_id = f"pods-{os.getpid()}-{next(_numbers)}"
        identity = RunIdentity(run_id, "pods", str(self.project / "runs"))
        return LaunchSpec(identity, Program("train.py", None), **{"limits": Limits(max_time_s=600.0), **more})

    def platform(self, tell: Any = lambda _: None, **options: Any) -> Renter:
        given = {"gpu_type": [A5000, L4], "cloud_type": CloudType.any, "market": Market.spot_then_on_demand, **options}
        times = {"fallback_after": "1s", "wait_for_capacity": "2s", "bring_up": "30s"}
        return Renter(self.project, RunpodConfig(**{**times, **given}), tell)

    def plan(self, attempt: int = 1, spec: LaunchSpec | None = None, **options: Any) -> Plan:
        platform, spec = self.platform(**options), spec or self.spec()
        return platform.plan(spec, platform.quote(spec), attempt)

    def rent(self, *faults: Fault, keep: bool = False, **options: Any) -> Rented:
        """Look, plan and rent, and give back what was rented."""
        spec = self.spec()
        rented = Rented(self.cloud, spec.run.id)
        platform = self.platform(rented.told.append, **options)
        rundir = RunDir(run_url(spec.run.root, spec.run.id))
        buyer = Buyer(spec, platform, rundir, approve=lambda _: None, tell=rented.told.append,
                      agree=lambda text: not rented.told.append(text))  # fmt: skip
        before, began = len(self.cloud.calls()), time.monotonic()
        for fault in faults:
            self.cloud.inject(fault)
        try:
            rented.plan = buyer.plan(1, [])
            rented.plan, rented.handle = buyer.buy(rented.plan, [])
        except Exception as error:
            rented.error = error
        rented.took_s = time.monotonic() - began
        self.cloud.clear()
        rented.calls = self.cloud.calls()[before:]
        if not keep:
            for one in rented.living:
                pods.Pods(Api()).terminate(one)
        return rented


@contextlib.contextmanager
def desk(folder: Path) -> Iterator[Desk]:
    """A RunPod to rent from in this process, which sees no other meanwhile."""
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text("print('trained')\n")
    with RunpodCloud() as cloud, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RUNPOD_")]:
            patch.delenv(name)
        for name, value in cloud.environment({}).items():
            patch.setenv(name, value)
        for module, name, value in PAUSES:
            patch.setattr(module, name, value)
        yield Desk(cloud, folder)


def with_requests(plan: Plan, **arguments: Any) -> Plan:
    """A plan whose requests have other arguments."""
    return replace(plan, requests=tuple(
        {**one, "arguments": {**one["arguments"], **arguments}} for one in plan.requests[:-1]
    ))  # fmt: skip
