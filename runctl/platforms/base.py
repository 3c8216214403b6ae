"""The base of every platform: public guards around each plugin's own part."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from runctl.config.platform import PlatformConfig
from runctl.cost import Rates
from runctl.errors import NotBuiltYet, PlatformError
from runctl.platforms.holdings import Holding
from runctl.spec import LaunchSpec, Offer, Plan, Quote, RunHandle, RunState


@dataclass(frozen=True)
class Terms:
    """On what terms a platform's hosts are to be had; as they stand here, on one's own machine.

    Attributes:
        rented: whether a host is somebody else's: it lives without its launcher, and is given back at the end.
        markets: in the order in which they are tried: `spot`, `on_demand`, `own`.
        fallback_after_s: how long the first market may have nothing before the next one is tried.
        wait_for_capacity_s: how long no market may have anything before the launch is given up.
        spot_attempts: interruptions after which the next attempt is on demand, if that is among the markets.
        max_attempts: attempts of one launch.
        keep_on_failure_s: how long a host stays after a failure, for whoever wants to look.
    """

    rented: bool = False
    markets: tuple[str, ...] = ("own",)
    fallback_after_s: float = 0.0
    wait_for_capacity_s: float = 0.0
    spot_attempts: int = 1
    max_attempts: int = 1
    keep_on_failure_s: float = 0.0


class Shelf(Protocol):
    """Where it stands written which hosts wait: who finds the wait of a host there no more has lost it to another."""

    def take(self, serves: Callable[[RunHandle], bool]) -> tuple[RunHandle, float] | None:
        """One that an earlier launch has left and that serves, by the handle of its last attempt, and since when it
        waits; nobody else gets it then."""

    def put(self, host: RunHandle, free_since: float, until: float) -> None:
        """It waits for this launch's next run; or has waited, for nobody."""

    def drop(self, host: RunHandle, free_since: float) -> bool:
        """It waits no more; whether it was still there for whoever had put it."""


@dataclass
class Berth:
    """A place for one rented host that outlives its attempts: one run after the other is brought to it.

    Attributes:
        keep_s: how long a host waits for the next run before it ends itself.
        shelf: where one comes from that an earlier launch has left, and where waits are written down.
        host: what waits there now, by the handle of its last attempt; None if nothing does.
        free_since: since when it waits (seconds since the epoch); whoever comes next pays from then on.
    """

    keep_s: float
    shelf: Shelf
    host: RunHandle | None = None
    free_since: float = 0.0

    def keep(self, host: RunHandle, free_since: float) -> None:
        """Have a host wait here."""
        self.host, self.free_since = host, free_since
        self.shelf.put(host, free_since, self.until)

    @property
    def until(self) -> float:
        """When what waits here ends itself (seconds since the epoch), or its platform ends it."""
        ends_at = None if self.host is None else self.host.address.get("ends_at")
        return min(self.free_since + self.keep_s, float("inf") if ends_at is None else ends_at)

    def take(self, serves: Callable[[RunHandle], bool]) -> tuple[RunHandle, float] | None:
        """What waits here, or else on the shelf, if it serves; and since when it waits."""
        if self.host is not None:
            if not serves(self.host):
                return None
            found, self.host = (self.host, self.free_since), None
            if self.shelf.drop(*found):
                return found
        return self.shelf.take(serves)

    def give_up(self) -> bool:
        """Let go of what waits here, for it has ended or is to end; whether it was not another launch's by now."""
        if self.host is None:
            return False
        host, until, self.host = self.host, min(time.time(), self.until), None
        ours = self.shelf.drop(host, self.free_since)
        if ours:
            self.shelf.put(host, self.free_since, until)
        return ours


class Platform(ABC):
    """Where an attempt can run. Subclasses fill in the methods with an underscore.

    Args:
        project_dir: the root of the user's project on this machine.
        config: the platform's options, as objects of `options`; None for its defaults.
        tell: takes lines for the user.
        attached: whether somebody stays to see what becomes of the launch.
    """

    kind: ClassVar[str]
    #: What stands below `platform` in the configuration.
    options: ClassVar[type[PlatformConfig]] = PlatformConfig
    terms: Terms = Terms()
    #: Whether it starts the agent in a container if that is asked for (`python_env=docker`).
    containers: ClassVar[bool] = False
    #: Whether its hosts can outlive their attempts.
    has_berths: ClassVar[bool] = False
    #: Where hosts are taken from, and kept, while several runs follow each other; None for a host for each attempt.
    berth: Berth | None = None

    def __init__(
        self,
        project_dir: Path,
        config: PlatformConfig | None = None,
        tell: Callable[[str], None] = lambda _: None,
        *,
        attached: bool = True,
    ) -> None:
        self._project_dir = str(project_dir)
        self._config = config if config is not None else self.options(kind=self.kind)
        self._tell = tell
        self._attached = attached

    @classmethod
    def default_root(cls) -> str:
        """Where runs lie if nothing is said: `run.root`.

        Raises:
            ConfigError: if what was chosen earlier cannot be read.
        """
        return "runs"

    def completed(self, spec: LaunchSpec) -> LaunchSpec:
        """The spec with what the platform fills in where nothing was said.

        Raises:
            NotBuiltYet: for a container where the platform starts none.
        """
        if spec.environment.kind == "docker" and not self.containers:
            raise NotBuiltYet(
                f"python_env=docker: platform={self.kind} starts no containers, platform=aws does; leave it out, or "
                "have one of the other kinds: auto, uv, conda, system"
            )
        return self._completed(spec)

    def staged(self, spec: LaunchSpec) -> LaunchSpec:
        """Put what lies on this machine and is to be brought to the host where the host can get it.

        Returns:
            The spec with the places where it lies then.

        Raises:
            RunctlError: if that fails.
        """
        return self._staged(spec)

    def check_ready(self, spec: LaunchSpec) -> None:
        """Check, before anything is written, that this can be launched there from here: what `dry_run` does not need.

        Raises:
            ConfigError: saying what is missing and how to get it.
        """
        self._check_ready(spec)

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

    def find(self, plan: Plan) -> RunHandle | None:
        """The host of an attempt that an earlier launcher submitted, or None if none lives any more.

        Args:
            plan: as it was submitted then.
        """
        return self._find(plan)

    def wait(self, handle: RunHandle, timeout_s: float) -> RunState:
        """Where the attempt stands, after waiting for its end at most `timeout_s`."""
        return self._wait(handle, timeout_s)

    def cancel(self, handle: RunHandle, reason: str, *, now: bool = False) -> None:
        """Ask the attempt to end, gracefully or `now`. An attempt that has ended is left as it is."""
        self._cancel(handle, reason, now)

    def clean_up(self, handle: RunHandle, *, keep_s: float = 0.0) -> bool:
        """After an attempt's end: see to it that nothing of it is left running.

        Args:
            handle: the attempt.
            keep_s: a host that is rented may end itself within so many seconds.

        Returns:
            Whether it does: one that nobody told when to end is ended at once.
        """
        return self._clean_up(handle, keep_s)

    def why(self, handle: RunHandle) -> str:
        """Why an attempt ended that could leave no record of its own."""
        return self._why(handle)

    def offer(self, plan: Plan, handle: RunHandle) -> Offer | None:
        """What the attempt was granted of the plan's offers; None where that is not known."""
        return self._offer(plan, handle)

    def holdings(self, roots: Sequence[str]) -> Iterable[Holding]:
        """Everything in the account that carries runctl's mark, whoever made it; what could not be looked at is told.

        Args:
            roots: below which run directories lie.

        Raises:
            RunctlError: if nothing could be looked at.
        """
        return self._holdings(roots)

    def release(self, holding: Holding) -> None:
        """End one of them; one that has ended is left as it is.

        Raises:
            RunctlError: whatever went wrong, translated.
        """
        if holding.platform != self.kind:
            raise PlatformError(f"platform {self.kind} cannot end what is {holding.platform}'s")
        self._release(holding)

    def extend(self, plan: Plan, handle: RunHandle, deadline: float) -> None:
        """Let a host live for longer, as far as that is the platform's business; its agent does the rest.

        Args:
            plan: as it was submitted.
            handle: what was granted.
            deadline: until when (seconds since the epoch).

        Raises:
            ConfigError: if it cannot, with what to do instead.
        """
        self._extend(plan, handle, deadline)

    def rates(self, plan: Plan, handle: RunHandle, begin: float, end: float) -> Rates:
        """What there is to pay for an attempt besides its host at the price of the offer; asked for afterwards.

        Args:
            plan: as it was submitted.
            handle: what was granted.
            begin, end: between which the host was billed (seconds since the epoch).
        """
        return self._rates(plan, handle, begin, end)

    def gpus(self, offer: Offer) -> str:
        """Which GPUs what is offered has, such as `L4`; empty where that is not known."""
        return ""

    def _completed(self, spec: LaunchSpec) -> LaunchSpec:
        return spec

    def _staged(self, spec: LaunchSpec) -> LaunchSpec:
        return spec

    def _check_ready(self, spec: LaunchSpec) -> None:  # noqa: B027 (most platforms need nothing)
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
    def _clean_up(self, handle: RunHandle, keep_s: float) -> bool: ...

    def _offer(self, plan: Plan, handle: RunHandle) -> Offer | None:
        return plan.offers[0] if plan.offers else None

    def _holdings(self, roots: Sequence[str]) -> Iterable[Holding]:
        return ()

    def _release(self, holding: Holding) -> None:
        raise PlatformError(f"platform {self.kind} holds nothing that could be ended")

    def _extend(self, plan: Plan, handle: RunHandle, deadline: float) -> None:  # noqa: B027 (most need nothing)
        pass

    def _rates(self, plan: Plan, handle: RunHandle, begin: float, end: float) -> Rates:
        return Rates()

    def _why(self, handle: RunHandle) -> str:
        return "the agent was killed"

    def _find(self, plan: Plan) -> RunHandle | None:
        return None
