"""Getting a host for an attempt: look, plan, submit, and again, until there is one or the waiting is over."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from runctl.errors import (
    MarketClosed,
    NoCapacity,
    NotAllowed,
    OfferRefused,
    PlatformError,
    RunctlError,
    StorageError,
    Vetoed,
)
from runctl.platforms.base import Platform
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, Offer, Plan, Quote, RunHandle

#: Between two rounds over all offers (seconds): capacity comes back in minutes, and questions cost patience only.
_FIRST_PAUSE_S = 15.0
_LONGEST_PAUSE_S = 300.0
_NAP_S = 0.5
#: What may pass by itself: a connection that is down, a platform or storage that asks to slow down or gives no answer.
#: Where it means that something is in the way for good, `_passes` says so; a ConfigError is none of them.
_MAY_PASS = (PlatformError, StorageError)
#: For so long in a row nothing else is put up with (nor for longer than the terms wait for capacity): less than the
#: hour after which a run of which nothing is heard counts as lost (`standing`).
_FAILS_S = 2700.0
#: After a stop in the middle of a request: what it may have been granted need not be listed yet.
_UNDO_TRIES = 3
_UNDO_PAUSE_S = 2.0

T = TypeVar("T")


class Buyer:
    """Gets a host for each attempt of one launch.

    Args:
        spec: what is to run.
        platform: where.
        rundir: keeps what was asked for before it is.
        approve: called with each plan before it is submitted; may raise.
        tell: takes lines for the user.
        agree: asks the user for a yes, and gets one where nobody can be asked.
    """

    def __init__(
        self,
        spec: LaunchSpec,
        platform: Platform,
        rundir: RunDir,
        *,
        approve: Callable[[Plan], None],
        tell: Callable[[str], None],
        agree: Callable[[str], bool],
    ) -> None:
        self._spec = spec
        self._platform = platform
        self._rundir = rundir
        self._approve = approve
        self._tell = tell
        self._agree = agree
        self._market = 0
        self._lacks: int | None = None
        self._answered: set[str] = set()
        self._failing: tuple[float, int] | None = None
        self._open: tuple[Plan, RunHandle | None] | None = None

    def plan(self, attempt: int, lost: list[Offer]) -> Plan:
        """A plan for an attempt in the market whose turn it is.

        Args:
            attempt: its number.
            lost: offers that were interrupted in this launch, the last one last: others come first.

        Raises:
            RunctlError: what looking and planning raise, and `approve`.
        """
        terms = self._platform.terms
        if len([one for one in lost if one.market == "spot"]) >= terms.spot_attempts and self._has_next:
            self._market += 1
            self._tell(f"{len(lost)} interruptions; from now on {self._word()}")
        quote = of_market(self._platform.quote(self._spec), terms.markets[self._market])
        plan = self._platform.plan(self._spec, _rested(quote, lost), attempt)
        lacks = len(quote.unknown)
        try:
            self._approve(plan)
        except Vetoed as error:
            if self._lacks is None or lacks <= self._lacks:
                raise
            # What was approved before, and is not now that less is known of it, has met a look that failed.
            raise PlatformError(f"{'; '.join(quote.unknown)}: {error}") from error
        self._lacks = lacks if self._lacks is None else min(lacks, self._lacks)
        return plan

    def plan_again(self, attempt: int, lost: list[Offer]) -> Plan:
        """As `plan`, for a launch that had a plan before: a look that fails for a while ends none of its waiting.

        Raises:
            RunctlError: what does not pass by itself, or has not passed for too long.
        """
        return self._patiently(lambda: self.plan(attempt, lost))

    def buy(self, plan: Plan, lost: list[Offer], *, detach: bool = False) -> tuple[Plan, RunHandle]:
        """Submit a plan, or the ones that come after it, until a host is granted.

        Args:
            plan: the first.
            lost: as for `plan`.
            detach: whether the launch leaves: then submitting sees the host come up too.

        Returns:
            The plan that was granted, and where its attempt is.

        Raises:
            NoCapacity: if there was nothing for as long as the terms wait.
            RunctlError: what else submitting raises; where the platform has answered before, only what does not pass
                by itself, or has not passed for too long.
        """
        terms = self._platform.terms
        began = in_market = time.monotonic()
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return plan, self._granted(plan)
            except OfferRefused as error:
                self._open = None
                in_market += self._heard()
                waited_s = time.monotonic() - began
                closed = isinstance(error, MarketClosed)
                if self._has_next and (closed or time.monotonic() - in_market >= terms.fallback_after_s):
                    if self._falls_back(plan, error):
                        in_market = time.monotonic()
                        plan = self.plan_again(plan.attempt, lost)
                        continue
                    in_market = time.monotonic()  # asked again after as long a wait
                elif closed:
                    raise NotAllowed(f"{self._platform.kind}: {error}") from error
                if waited_s + pause_s > terms.wait_for_capacity_s:
                    raise NoCapacity(
                        f"{self._platform.kind}: nothing to be had within platform.wait_for_capacity="
                        f"{terms.wait_for_capacity_s / 3600:g}h: {error}"
                    ) from error
                self._tell(f"no {self._word()} capacity: {error}; looking again in {pause_s:.0f} s")
                _wait(pause_s * random.uniform(0.8, 1.0))
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            except _MAY_PASS as error:
                if detach or not self._has_answered(lost):
                    raise  # what was never understood may be wrong; and a host that did not come up has been ended
                self._put_up_with(error)
                # Its answer may have been lost: before anything else is asked for, what it was granted is looked for.
                handle = self._patiently(lambda plan=plan: self._platform.find(plan))  # type: ignore[misc]
                if handle is not None:
                    self._write_down(plan, handle)
                    return plan, handle
                self._open = None
            plan = self.plan_again(plan.attempt, lost)

    def undo(self, plan: Plan) -> None:
        """End what may have been granted for a plan's attempt, after a stop in the middle of buying.

        Nothing is raised: whoever stopped a launch hears what may have been left, and nothing more.

        Args:
            plan: of that attempt.
        """
        if self._open is None or self._open[0].attempt != plan.attempt:
            return
        plan, handle = self._open
        self._tell("stopping: what may just have been granted is ended first")
        trouble = ""
        for tries in range(_UNDO_TRIES):
            time.sleep(_UNDO_PAUSE_S if tries else 0.0)
            try:
                handle = handle or self._platform.find(plan)
                if handle is not None:
                    self._platform.clean_up(handle)
                    return
                trouble = ""
            except (RunctlError, OSError) as error:
                trouble = str(error)
        if trouble:
            what = f"a host of {plan.run_id}" if handle is None else handle.address.get("instance")
            self._tell(f"{what} may be left: {trouble}; runctl cleanup shows it")

    def _granted(self, plan: Plan) -> RunHandle:
        """Write down what is asked for, submit it once, and write down what was granted."""
        if self._platform.terms.rented:
            self._rundir.write_submission(plan, None)
        self._open = plan, None
        handle = self._platform.submit(plan)
        self._write_down(plan, handle)
        return handle

    def _write_down(self, plan: Plan, handle: RunHandle) -> None:
        self._open = plan, handle
        self._heard()
        if self._platform.terms.rented:
            try:
                self._rundir.write_submission(plan, handle)
            except StorageError as error:
                # A host that lives must not be left alone for that: it is found without it.
                self._tell(f"{error} (the run goes on)")

    # --- what fails, and may pass by itself ---

    def _patiently(self, ask: Callable[[], T]) -> T:
        """An answer, asked for again as long as asking fails."""
        while True:
            try:
                return ask()
            except _MAY_PASS as error:
                self._put_up_with(error)

    def _put_up_with(self, error: RunctlError) -> None:
        """Wait after a failure; one that does not pass by itself, or has not for too long, is raised."""
        now = time.monotonic()
        since, tries = self._failing or (now, 0)
        self._failing = since, tries + 1
        pause_s: float = min(_FIRST_PAUSE_S * 2**tries, _LONGEST_PAUSE_S)
        if not _passes(error) or now + pause_s - since > min(_FAILS_S, self._platform.terms.wait_for_capacity_s):
            raise error
        self._tell(f"{error}; asking again in {pause_s:.0f} s")
        _wait(pause_s * random.uniform(0.8, 1.0))

    def _heard(self) -> float:
        """The platform has answered what was submitted; for how long it had not (seconds)."""
        self._answered.add(self._platform.terms.markets[self._market])
        failing, self._failing = self._failing, None
        return 0.0 if failing is None else time.monotonic() - failing[0]

    def _has_answered(self, lost: list[Offer]) -> bool:
        """Whether requests of this market have been answered in this launch, so that they are understood."""
        return self._platform.terms.markets[self._market] in self._answered | {one.market for one in lost}

    # --- markets ---

    @property
    def _has_next(self) -> bool:
        return self._market + 1 < len(self._platform.terms.markets)

    def _word(self, further: int = 0) -> str:
        return self._platform.terms.markets[self._market + further].replace("_", " ")

    def _falls_back(self, plan: Plan, error: OfferRefused) -> bool:
        """Say what the next market costs against this one, and go over to it unless the user says no."""
        price = plan.offers[0].price_usd_per_hour if plan.offers else None
        quote = self._patiently(lambda: self._platform.quote(self._spec))
        offers = of_market(quote, self._platform.terms.markets[self._market + 1]).offers
        then = offers[0].price_usd_per_hour if offers else None
        usd = f"{_usd(then)} an hour instead of {_usd(price)}"
        if not self._agree(f"no {self._word()} capacity ({error}): going {self._word(1)}, {usd}"):
            return False
        self._market += 1
        return True


def _passes(error: RunctlError) -> bool:
    """Whether a failure may pass by itself: not where rights or the account are in the way, or the waiting is over."""
    return not isinstance(error, (NotAllowed, NoCapacity)) and not isinstance(error.__cause__, PermissionError)


def _wait(seconds: float) -> None:
    """Sleep in naps: what is raised in a thread, for one run of several that is to stop, comes only between two."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _NAP_S))


def of_market(quote: Quote, market: str) -> Quote:
    """A quote's offers in one market."""
    return replace(quote, offers=tuple(offer for offer in quote.offers if offer.market in (market, "own")))


def _rested(quote: Quote, lost: list[Offer]) -> Quote:
    """Offers that were interrupted go last, the one interrupted last at the very end."""

    def when(offer: Offer) -> int:
        same = [n for n, one in enumerate(lost, 1) if (one.machine, one.zone) == (offer.machine, offer.zone)]
        return max(same, default=0)

    return replace(quote, offers=tuple(sorted(quote.offers, key=when)))


def _usd(price: float | None) -> str:
    return "an unknown price" if price is None else f"{price:.2f} USD"
