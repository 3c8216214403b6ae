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
from runctl.platforms.hosts import Hosts, note, used
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

    def _clean_up(self, handle: RunHandle, keep_s: float) -> bool:
        watch, where = self._watches.get((handle.run_id, handle.attempt)), handle.address
        self._let_go(handle)
        if where.get("stays"):
            if watch is not None:
                self._end_attempt(handle)
            return False
        if keep_s > 0 and (watch is None or watch.is_started):
            return True  # its keeper ends it in time
        taken = where.get("kept") and watch is not None and not watch.is_heard  # by a keeper that ours waited for
        if taken and not self._end_attempt(handle):
            self._tell(f"{where['instance']} may have another run by now: it is left alone, and ends itself")
            return False
        self._terminate(handle)
        return False

    @abstractmethod
    def _let_go(self, handle: RunHandle) -> None:
        """Take back what was made for an attempt besides its host."""

    @abstractmethod
    def _end_attempt(self, handle: RunHandle) -> bool:
        """See to it that nothing of an attempt goes on, or begins yet, on a host that stays.

        Returns:
            Whether it is known that no other attempt has the host.
        """

    @abstractmethod
    def _terminate(self, handle: RunHandle) -> None:
        """End an attempt's host."""

    @property
    def _stays_s(self) -> float:
        """How long a host waits for the next run after this one; 0 where none does."""
        return 0.0 if self.berth is None else self.berth.keep_s

    def _given_host(self, plan: Plan) -> RunHandle | None:
        """Where the attempt goes if a host was named, or waits for it; that is remembered of the host."""
        if (handle := used(plan)) is not None:
            note(handle.address["instance"], run_dir=plan.run_dir)
        return handle or self._from_berth(plan)

    def _from_berth(self, plan: Plan) -> RunHandle | None:
        """A host that waits for the next run, if one does that lives and serves the plan.

        One that does not serve it is ended where the place is needed for another; an earlier launch's is left alone.
        """
        berth = self.berth
        if berth is None:
            return None

        def serves(handle: RunHandle) -> bool:
            return self._lives(handle) and self._serves(handle, plan)

        found = berth.take(serves)
        if found is None and (unfit := berth.host) is not None and berth.give_up():
            self._clean_up(unfit, 0.0)
        if found is None:
            return None
        handle, free_since = found
        self._tell(f"{handle.address['instance']} is warm")
        # Whoever comes pays for the wait, and has all of a host's time before it: what ends it is armed anew.
        kept = {**handle.address, "launched_at": time.time(), "billed_from": free_since, "kept": True}
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
