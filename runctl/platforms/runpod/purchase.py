"""Renting one pod: the plan's requests in their order, until one is granted.

RunPod takes no token that makes a request idempotent, and lets names repeat. So a pod's name tells its run, attempt and
run directory, that directory says before the first request that it was asked for, and before every request we look for
a living pod of that name. Nothing here waits for capacity; whoever wants to wait asks again. Who retries: this module
alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from runctl.errors import OfferRefused, PlatformError
from runctl.platforms.rented import pause, plain
from runctl.platforms.runpod.api import Api, mutation
from runctl.platforms.runpod.keys import RENTED_FOR
from runctl.platforms.runpod.pods import FIELDS, Pod, Pods, only
from runctl.platforms.runpod.refusals import Transient
from runctl.platforms.runpod.requests import CALLS, UNKNOWN, completed, is_known, likeness, name_of, of_offer
from runctl.rundir import RunDir
from runctl.spec import Offer, Plan, RunHandle

#: One request is sent so often if its answer is lost or RunPod says that something went wrong.
_TRIES = 4
#: A look is repeated so often; without one nothing is sent.
_LOOKS = 4
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 15.0
#: An argument that is no part of what RunPod documents for its SDK: if it is unknown, the launch goes on without.
_OPTIONAL = "terminateAfter"


class Purchase:
    """Sends a plan's requests.

    Args:
        api: RunPod's.
        tell: takes lines for the user.
    """

    def __init__(self, api: Api, tell: Callable[[str], None]) -> None:
        self._api = api
        self._pods = Pods(api)
        self._tell = tell
        self._without: set[str] = set()
        self._is_unsure = False

    def make(self, plan: Plan, made: Mapping[str, str]) -> RunHandle:
        """Rent what the plan asks for, once.

        Args:
            plan: the requests.
            made: what stands for the placeholders of `requests`.

        Raises:
            OfferRefused: if no offer is to be had now.
            NotAllowed: if account, rights or key are in the way.
            PlatformError: if RunPod refuses for another reason, or cannot be reached.
        """
        refused: dict[str, list[str]] = {}
        asked = [one for one in plan.requests if one["call"] in CALLS.values()]
        known = [one for one in asked if is_known(one)]
        if asked and not known:
            unknown = "; ".join(note for note in plan.notes if note.startswith(UNKNOWN))
            raise PlatformError(
                f"no GPU or no price could be looked up ({unknown}); launch again, or name platform.gpu_type and "
                "platform.bid_usd_per_hour"
            )
        for request in known:
            offer = plan.offers[request["offer"]]
            answer = self._send(plan, offer, request, made)
            if isinstance(answer, RunHandle):
                self._tell(_granted(answer))
                return answer
            refused.setdefault(answer, []).append(_shown(offer))
        # The last refusal may have been one of a pod that was made all the same.
        if refused and (handle := self._look(plan)) is not None:
            return handle
        told = [f"{why} ({', '.join(dict.fromkeys(offers))})" for why, offers in refused.items()]
        raise OfferRefused("; ".join(told) or "nothing is offered")

    def find(self, plan: Plan) -> RunHandle | None:
        """The living pod of a plan's run and attempt.

        Raises:
            PlatformError: if RunPod cannot be asked, or there are several.
        """
        found = only(self._pods.named(name_of(plan)), f"attempt {plan.attempt} of run {plan.run_id}")
        return None if found is None else _handle(plan, _offer_of(plan, found), found.id, time.time() - found.uptime_s)

    def _send(self, plan: Plan, offer: Offer, request: dict[str, Any], made: Mapping[str, str]) -> RunHandle | str:
        """One request until it is granted or refused; why it was refused."""
        what = f"renting {_shown(offer)}"
        for tries in range(1, _TRIES + 1):
            if (handle := self._look(plan)) is not None:
                return handle
            arguments = completed(request, made)
            for name in self._without:
                arguments.pop(name, None)
            try:
                told = self._api.ask(what, mutation(request["call"], arguments, FIELDS)).get(request["call"])
            except OfferRefused as error:
                return str(error)
            except Transient:
                self._is_unsure = True
                if tries == _TRIES:
                    if (handle := self._look(plan)) is not None:
                        return handle
                    raise
                pause(tries, _PAUSE_S, _LONGEST_PAUSE_S)
            except PlatformError as error:
                if _OPTIONAL not in str(error) or _OPTIONAL in self._without:
                    raise
                self._without.add(_OPTIONAL)
                self._tell(f"RunPod does not know {_OPTIONAL}: the pod's end is its agent's alone")
            else:
                if not told or not told.get("id"):
                    self._is_unsure = True
                    return "RunPod made no pod and did not say why"
                return self._only_one(plan, _handle(plan, offer, str(told["id"]), time.time()))
        raise PlatformError(f"{what}: asked {_TRIES} times in vain; launch again")

    def _look(self, plan: Plan) -> RunHandle | None:
        """`find`, again if there is no answer: nothing is asked for blindly."""
        for tries in range(1, _LOOKS):
            try:
                return self.find(plan)
            except Transient:
                pause(tries, _PAUSE_S, _LONGEST_PAUSE_S)
        return self.find(plan)

    def _only_one(self, plan: Plan, granted: RunHandle) -> RunHandle:
        """After a lost answer, to whichever offer: end those of our name that an earlier request made late."""
        if self._is_unsure:
            for one in self._pods.named(name_of(plan)):
                if one.id != granted.address["instance"]:
                    self._tell(f"pod {one.id} was made twice; ending it")
                    self._pods.terminate(one.id)
        return granted


def _offer_of(plan: Plan, pod: Pod) -> Offer:
    """Which of the plan's offers a pod is, as far as RunPod tells."""
    alike = [one for one in plan.offers if one.market == pod.market]
    exact = [one for one in alike if pod.gpu and plain(one.machine).endswith(plain(pod.gpu))]
    found = next(iter([*exact, *alike, *plan.offers]), None)
    price = pod.price_usd_per_hour
    if found is None:
        return Offer("runpod", pod.gpu, pod.market, None, None, price)
    return Offer("runpod", found.machine, pod.market, found.region, found.zone, price or found.price_usd_per_hour)


def _handle(plan: Plan, offer: Offer, pod: str, launched_at: float) -> RunHandle:
    request = of_offer(plan, offer)
    address = {
        "instance": pod,
        "machine": offer.machine,
        "market": offer.market,
        "cloud": offer.region,
        "zone": offer.zone,
        "launched_at": launched_at,
        "price_usd_per_hour": offer.price_usd_per_hour,
        "like": likeness(plan, offer),
        "ends_at": launched_at + request["lives_s"] if request is not None else None,
        RENTED_FOR: [RunDir(plan.run_dir).url, plan.attempt],
    }
    return RunHandle("runpod", plan.run_id, plan.attempt, address)


def _shown(offer: Offer) -> str:
    return f"{offer.machine} {offer.market.replace('_', ' ')} in {offer.zone or f'the {offer.region} cloud'}"


def _granted(handle: RunHandle) -> str:
    where = handle.address
    price = where["price_usd_per_hour"]
    usd = "at a price that is not known" if price is None else f"at {price:.4f} USD an hour"
    market = where["market"].replace("_", " ")
    return f"{where['instance']} · {where['machine']} {market} in the {where['cloud']} cloud {usd}"
