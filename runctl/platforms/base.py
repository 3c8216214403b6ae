"""The base of every platform: public guards around each plugin's own part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from runctl.errors import PlatformError
from runctl.spec import LaunchSpec, Plan, Quote, RunHandle, RunState


class Platform(ABC):
    """Where an attempt can run. Subclasses fill in the methods with an underscore.

    Args:
        project_dir: the root of the user's project on this machine.
    """

    kind: ClassVar[str]

    def __init__(self, project_dir: Path) -> None:
        self._project_dir = str(project_dir)

    def check_ready(self) -> None:
        """Check, before anything is written, that this machine can launch there: what `dry_run` does not need.

        Raises:
            ConfigError: saying what is missing and how to get it.
        """
        self._check_ready()

    def quote(self, spec: LaunchSpec) -> Quote:
        """Look, and change nothing: what is to be had for this spec; unknown is None.

        Raises:
            ConfigError: if the spec asks for what this platform plainly lacks.
        """
        return self._quote(spec)

    def plan(self, spec: LaunchSpec, quote: Quote, attempt: int) -> Plan:
        """The exact requests for one spec, one quote, one attempt: pure, nothing is sent."""
        plan = self._plan(spec, quote, attempt)
        if plan.platform != self.kind:
            raise PlatformError(f"platform {self.kind} made a plan for {plan.platform}")
        return plan

    def submit(self, plan: Plan) -> RunHandle:
        """Send precisely the plan. A second submit of the same run and attempt starts nothing new.

        Raises:
            RunctlError: whatever went wrong, translated.
        """
        if plan.platform != self.kind:
            raise PlatformError(f"platform {self.kind} cannot submit a plan for {plan.platform}")
        try:
            return self._submit(plan)
        except OSError as error:
            raise PlatformError(f"{self.kind}: {error}") from error

    def wait(self, handle: RunHandle, timeout_s: float) -> RunState:
        """Where the attempt stands, after waiting for its end at most `timeout_s`."""
        return self._wait(handle, timeout_s)

    def cancel(self, handle: RunHandle, reason: str, *, now: bool = False) -> None:
        """Ask the attempt to end, gracefully or `now`. An attempt that has ended is left as it is."""
        self._cancel(handle, reason, now)

    def clean_up(self, handle: RunHandle) -> None:
        """After an attempt's end: see to it that nothing of it is left running."""
        self._clean_up(handle)

    def price_usd_per_hour(self, plan: Plan) -> float | None:
        """What the attempt's host costs an hour; None where it is not known."""
        return plan.estimate_usd_per_hour

    def _check_ready(self) -> None:  # noqa: B027 (most platforms need nothing)
        pass

    @abstractmethod
    def _quote(self, spec: LaunchSpec) -> Quote: ...

    @abstractmethod
    def _plan(self, spec: LaunchSpec, quote: Quote, attempt: int) -> Plan: ...

    @abstractmethod
    def _submit(self, plan: Plan) -> RunHandle: ...

    @abstractmethod
    def _wait(self, handle: RunHandle, timeout_s: float) -> RunState: ...

    @abstractmethod
    def _cancel(self, handle: RunHandle, reason: str, now: bool) -> None: ...

    @abstractmethod
    def _clean_up(self, handle: RunHandle) -> None: ...
