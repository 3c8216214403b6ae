"""What every platform that rents does with its hosts once there are any: follow them, stop them, say how they ended.

What it sends them: the project, as it was when the run's first attempt was planned. And hosts that stay in a berth for
the next run, which carries on their handle: `like` tells what was rented, `kept` that it was rented for another run.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from runctl.errors import PlatformError
from runctl.platforms import containers
from runctl.platforms.base import Platform
from runctl.platforms.hosts import Hosts
from runctl.platforms.parcel import Parcel
from runctl.platforms.rented import bounded
from runctl.platforms.watching import HostWatch
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, Plan, RunHandle, RunState

_DETACH_LOOK_S = 0.5

W = TypeVar("W", bound=HostWatch)


class RentingPlatform(Platform, Generic[W]):
    """A platform whose hosts are somebody else's, each looked after by a watch of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parcels: dict[str, Parcel] = {}
        self._watches: dict[tuple[str, int], W] = {}

    @abstractmethod
    def hosts(self) -> Hosts:
        """The account's hosts that are ours, apart from any launch."""

    def _completed(self, spec: LaunchSpec) -> LaunchSpec:
        return replace(spec, limits=bounded(spec.limits))

    def _wait(self, handle: RunHandle, timeout_s: float) -> RunState:
        state = self._watch(handle).look()
        if not state.ended:
            time.sleep(timeout_s)
        return state

    def _cancel(self, handle: RunHandle, reason: str, now: bool) -> None:
        self._watch(handle).cancel(reason, now=now)

    def _why(self, handle: RunHandle) -> str:
        return self._watch(handle).why

    def _watch(self, handle: RunHandle) -> W:
        return self._watches[handle.run_id, handle.attempt]

    def _see_it_started(self, handle: RunHandle) -> None:
        """For a launch that leaves: nobody else tells the host what to do.

        Raises:
            PlatformError: if that fails; the host is ended.
        """
        watch = self._watch(handle)
        while not watch.is_started:
            if watch.look().ended:
                self._clean_up(handle, 0.0)
                raise PlatformError(watch.why)
            time.sleep(_DETACH_LOOK_S)

    @property
    def _stays_s(self) -> float:
        """How long a host waits for the next run after this one; 0 where none does."""
        return 0.0 if self.berth is None else self.berth.keep_s

    def _from_berth(self, plan: Plan) -> RunHandle | None:
        """A host that waits for the next run, if one does that lives and serves the plan.

        One that does not serve it is ended where the place is needed for another; an earlier launch's is left alone.
        """
        berth = self.berth
        if berth is None:
            return None

        def serves(handle: RunHandle) -> bool:
            return self._lives(handle) and self._serves(handle, plan)

        if berth.host is None:
            found = None if berth.shelf is None else berth.shelf.take(serves)
        elif serves(berth.host):
            found, berth.host = (berth.host, berth.free_since), None
        else:
            unfit, found = berth.host, None
            berth.give_up()
            self._clean_up(unfit, 0.0)
        if found is None:
            return None
        handle, free_since = found
        self._tell(f"{handle.address['instance']} is warm")
        kept = {**handle.address, "launched_at": free_since, "kept": True}
        return RunHandle(self.kind, plan.run_id, plan.attempt, kept)

    def _kept_for(self, plan: Plan) -> RunHandle | None:
        """The living host of a plan's attempt that was rented for an earlier run, by whose name it is known."""
        submitted = RunDir(plan.run_dir).submission(plan.attempt)
        handle = None if submitted is None else submitted[1]
        return handle if handle is not None and handle.address.get("kept") and self._lives(handle) else None

    @abstractmethod
    def _lives(self, handle: RunHandle) -> bool:
        """Whether a host that was rented earlier lives."""

    @abstractmethod
    def _serves(self, handle: RunHandle, plan: Plan) -> bool:
        """Whether a host that waits is what a plan would rent."""

    def _workdir(self, spec: LaunchSpec) -> Path:
        return Path(self._project_dir, spec.program.workdir)

    def _packed(self, spec: LaunchSpec) -> Parcel:
        """The project as it is when a run's first attempt is planned; the later ones get the same."""
        if spec.run.id not in self._parcels:
            self._parcels[spec.run.id] = Parcel(
                Path(self._project_dir), spec.bundle_max_bytes, container=containers.wanted(spec)
            )
        return self._parcels[spec.run.id]
