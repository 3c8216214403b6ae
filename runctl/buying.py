"""Getting a host for an attempt: look, plan, submit, and again, until there is one or the waiting is over."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import replace

from runctl.errors import MarketClosed, NoCapacity, NotAllowed, OfferRefused, StorageError
from runctl.platforms.base import Platform
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, Offer, Plan, Quote, RunHandle

#: Between two rounds over all offers (seconds): capacity comes back in minutes, and questions cost patience only.
_FIRST_PAUSE_S = 15.0
_LONGEST_PAUSE_S = 300.0
_NAP_S = 0.5


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
        self._approve(plan)
        return plan

    def buy(self, plan: Plan, lost: list[Offer]) -> tuple[Plan, RunHandle]:
        """Submit a plan, or the ones that come after it, until a host is granted.

        Args:
            plan: the first.
            lost: as for `plan`.

        Returns:
            The plan that was granted, and where its attempt is.

        Raises:
            NoCapacity: if there was nothing for as long as the terms wait.
            RunctlError: what else submitting raises.
        """
        terms = self._platform.terms
        began = in_market = time.monotonic()
        pause_s = _FIRST_PAUSE_S
        while True:
            if terms.rented:
                self._rundir.write_submission(plan, None)
            try:
                handle = self._submit(plan)
            except OfferRefused as error:
                waited_s = time.monotonic() - began
                closed = isinstance(error, MarketClosed)
                if self._has_next and (closed or time.monotonic() - in_market >= terms.fallback_after_s):
                    if self._falls_back(plan, error):
                        in_market = time.monotonic()
                        plan = self.plan(plan.attempt, lost)
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
                plan = self.plan(plan.attempt, lost)
            else:
                if terms.rented:
                    try:
                        self._rundir.write_submission(plan, handle)
                    except StorageError as error:
                        # A host that lives must not be left alone for that: it is found without it.
                        self._tell(f"{error} (the run goes on)")
                return plan, handle

    def _submit(self, plan: Plan) -> RunHandle:
        """Submit once. Whoever stops the launch meanwhile must not leave behind what may have been granted."""
        try:
            return self._platform.submit(plan)
        except KeyboardInterrupt:
            with contextlib.suppress(Exception):
                if (handle := self._platform.find(plan)) is not None:
                    self._platform.clean_up(handle)
            raise

    @property
    def _has_next(self) -> bool:
        return self._market + 1 < len(self._platform.terms.markets)

    def _word(self) -> str:
        return self._platform.terms.markets[self._market].replace("_", " ")

    def _falls_back(self, plan: Plan, error: OfferRefused) -> bool:
        """Say what the next market costs against this one, and go over to it unless the user says no."""
        before, price = self._word(), plan.offers[0].price_usd_per_hour if plan.offers else None
        self._market += 1
        offers = of_market(self._platform.quote(self._spec), self._platform.terms.markets[self._market]).offers
        then = offers[0].price_usd_per_hour if offers else None
        text = f"no {before} capacity ({error}): going {self._word()}, {_usd(then)} an hour instead of {_usd(price)}"
        if self._agree(text):
            return True
        self._market -= 1
        return False


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
