"""The platform `runpod`: a RunPod pod. For now it looks, plans and explains; it cannot launch yet.

options      what can be told, checked
api          RunPod's GraphQL through its SDK, and what it raises in our words
refusals     what its words mean
market       what there is to rent just now → Quote
requests     the exact requests → Plan
purchase     the requests sent, each with a look before it
pods         pods that exist
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from runctl.config.platform import PlatformConfig
from runctl.environment import note
from runctl.platforms.planned import PlannedPlatform, planned
from runctl.platforms.rented import bounded, chosen, lifetime_s
from runctl.platforms.runpod import market, requests
from runctl.platforms.runpod.api import Api
from runctl.platforms.runpod.options import RunpodConfig, RunpodOptions
from runctl.spec import LaunchSpec, Plan, Quote


class RunpodPlatform(PlannedPlatform):
    """A RunPod pod for each attempt, as far as a plan goes."""

    kind = "runpod"
    options: ClassVar[type[PlatformConfig]] = RunpodConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert isinstance(self._config, RunpodConfig)
        self._options = RunpodOptions.of(self._config, attached=self._attached)
        self._api = Api()
        self.terms = self._options.terms

    def _completed(self, spec: LaunchSpec) -> LaunchSpec:
        return replace(spec, limits=bounded(spec.limits))

    def _quote(self, spec: LaunchSpec) -> Quote:
        found = market.look(self._options, self._api, spec.resources)
        facts = {
            "gpu_count": found.gpu_count,
            "bids": found.bids,
            "volume": found.volume,
            "fitting": found.fitting,
            "balance_usd": found.balance_usd,
            "spent_usd_per_hour": found.spent_usd_per_hour,
        }
        return Quote(found.offers, None, facts, found.unknown)

    def _plan(self, spec: LaunchSpec, quote: Quote, attempt: int) -> Plan:
        spec = self._completed(spec)
        lives_s = lifetime_s(spec, self._options.bring_up_s)
        asked = tuple(
            {**requests.rent(spec, self._options, attempt, offer, quote.facts), "offer": number}
            for number, offer in enumerate(quote.offers)
        )
        prices = [one.price_usd_per_hour for one in quote.offers]
        dearest = max((price for price in prices if price is not None), default=None)
        return replace(
            planned(spec, quote, attempt, self.kind),
            requests=asked,
            estimate_usd_per_hour=prices[0] if prices else None,
            estimate_usd=None if dearest is None or None in prices else round(dearest * lives_s / 3600, 2),
            notes=(
                *chosen(quote),
                *_of_bid(quote, self._options.bid_usd_per_hour),
                *_of_balance(quote, dearest, lives_s),
                note(spec.environment, self._options.python, ()),
                *(requests.UNKNOWN + one for one in quote.unknown),
            ),
        )


def _of_bid(quote: Quote, bid: float | None) -> tuple[str, ...]:
    """Where a bid is too low just now."""
    if bid is None:
        return ()
    of_gpu = bid / quote.facts["gpu_count"]
    low = [f"{where} at {least:g} USD a GPU" for where, least in quote.facts["bids"].items() if (least or 0.0) > of_gpu]
    return (f"platform.bid_usd_per_hour={bid:g} is below the lowest bid for {', '.join(low)}",) if low else ()


def _of_balance(quote: Quote, price: float | None, lives_s: float) -> tuple[str, ...]:
    """What the account has left, and whether that lasts: when it is used up, RunPod stops every pod."""
    balance = quote.facts["balance_usd"]
    if balance is None:
        return ()
    has = f"balance: {balance:.2f} USD"
    per_hour = (price or 0.0) + (quote.facts["spent_usd_per_hour"] or 0.0)
    if per_hour <= 0 or per_hour * lives_s / 3600 <= balance:
        return (has,)
    return (
        f"{has}, which lasts for {balance / per_hour:.1f} h at {per_hour:.2f} USD an hour and not for the "
        f"{lives_s / 3600:.1f} h of limits.max_time and what goes with it: then RunPod stops every pod; add to it",
    )
