"""Renting one instance: the plan's requests in their order, until one is granted.

Nothing here waits for capacity; whoever wants to wait asks again. Who retries: this module alone, for the client it
launches with repeats nothing by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from runctl.errors import MarketClosed, NotAllowed, OfferRefused, PlatformError
from runctl.platforms.aws.clients import NOT_ALLOWED, Clients, code_of, said, translated
from runctl.platforms.aws.instances import Instances, only
from runctl.platforms.aws.refusals import Reaction, quota_of, reaction
from runctl.platforms.aws.requests import TO_BE_MADE, UNKNOWN, UNKNOWN_IMAGE, likeness, root_told
from runctl.platforms.rented import pause
from runctl.spec import Offer, Plan, RunHandle

#: A request whose answer was lost is sent again with its token, so many times altogether.
_TRIES = 4
#: How long the same request is refused for something that passes by itself, such as a profile only just made; and
#: however slow the answers are, it is sent _TRIES times before it is given up.
_PASSES_S = 120.0
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 15.0
#: `Unsupported` is no answer to wait on, nor to collect from every zone there is.
_UNSUPPORTED_AT_MOST = 12


@dataclass
class _Closed:
    """What need not be asked for any more in this round."""

    markets: set[tuple[str | None, str]] = field(default_factory=set)
    types: set[tuple[str | None, str, str]] = field(default_factory=set)
    quotas: set[tuple[str | None, str, str]] = field(default_factory=set)

    def has(self, offer: Offer) -> bool:
        return (
            (offer.region, offer.market) in self.markets
            or (offer.region, offer.market, offer.machine) in self.types
            or (offer.region, offer.market, quota_of(offer.machine)) in self.quotas
        )


class Purchase:
    """Sends a plan's requests.

    Args:
        clients: AWS's clients.
        tell: takes lines for the user.
    """

    def __init__(self, clients: Clients, tell: Callable[[str], None]) -> None:
        self._clients = clients
        self._tell = tell

    def make(self, plan: Plan) -> RunHandle:
        """Rent what the plan asks for, once.

        Raises:
            OfferRefused: if no offer is to be had now; MarketClosed if waiting would not help.
            NotAllowed: if account, rights or credentials are in the way.
            PlatformError: if AWS refuses for another reason, or cannot be reached.
        """
        closed, for_good = _Closed(), True
        refused: dict[str, list[str]] = {}
        groups: dict[str, str] = {}
        unsupported = 0
        _check_images(plan)
        for request in plan.requests:
            if request["call"] == "CreateSecurityGroup":
                groups[request["region"]] = self._security_group(request)
                continue
            if request["call"] != "RunInstances":
                continue
            offer = plan.offers[request["offer"]]
            if closed.has(offer) or request["arguments"]["ImageId"] == UNKNOWN_IMAGE:
                continue
            answer = self._send(plan, offer, _completed(request, groups))
            if isinstance(answer, RunHandle):
                self._tell(_granted(answer))
                return answer
            next_step, why = answer
            refused.setdefault(why, []).append(f"{offer.machine} in {offer.zone or offer.region}")
            if next_step is Reaction.NEXT_MARKET:
                closed.markets.add((offer.region, offer.market))
            elif next_step is Reaction.NEXT_FAMILY:
                closed.quotas.add((offer.region, offer.market, quota_of(offer.machine)))
            elif next_step is Reaction.NEXT_TYPE:
                closed.types.add((offer.region, offer.market, offer.machine))
                for_good = False
            elif "Unsupported" in why:
                unsupported += 1
                if unsupported >= _UNSUPPORTED_AT_MOST:
                    break
            else:
                for_good = False
        told = [f"{why} ({', '.join(dict.fromkeys(offers))})" for why, offers in refused.items()]
        last = "; ".join(told) or "nothing is offered"
        if for_good:
            raise MarketClosed(last)
        raise OfferRefused(last)

    def _send(self, plan: Plan, offer: Offer, request: dict[str, Any]) -> RunHandle | tuple[Reaction, str]:
        """One request until it is granted or refused for good; the same token each time."""
        from botocore.exceptions import BotoCoreError, ClientError

        what = f"launching {offer.machine} in {offer.zone or offer.region}"
        began, renewed = time.monotonic(), False
        tries = 0
        while True:
            tries += 1
            try:
                answer = self._clients.launch(request["region"]).run_instances(**request["arguments"])
                granted = answer["Instances"][0]
                zone = granted.get("Placement", {}).get("AvailabilityZone") or offer.zone
                return _handle(
                    plan, replace(offer, zone=zone), granted["InstanceId"], granted["LaunchTime"].timestamp()
                )
            except (ClientError, BotoCoreError) as error:
                code = code_of(error)
                next_step = reaction(code, str(error))
                over = time.monotonic() - began > _PASSES_S and tries >= _TRIES
                if next_step is Reaction.AGAIN_AT_ONCE and tries < _TRIES:  # noqa: SIM114 (each has a bound of its own)
                    pause(tries, _PAUSE_S, _LONGEST_PAUSE_S)
                elif next_step is Reaction.AGAIN and not over:
                    pause(tries, _PAUSE_S, _LONGEST_PAUSE_S)
                elif next_step is Reaction.RENEW and not renewed:
                    renewed = True
                    self._clients.renew()
                elif next_step in (Reaction.ADOPT, Reaction.AGAIN_AT_ONCE):
                    # Whether it was carried out, its tags tell.
                    if (handle := self.find(plan)) is not None:
                        return handle
                    if next_step is Reaction.ADOPT:
                        return Reaction.NEXT, said(error)
                    with translated(what):
                        raise
                elif next_step in (Reaction.STOP, Reaction.RENEW, Reaction.AGAIN):
                    with translated(what):
                        raise
                else:
                    return next_step, said(error)

    def find(self, plan: Plan) -> RunHandle | None:
        """The living instance of a plan's run and attempt, wherever the plan might have launched it."""
        offers = {(one.region, one.machine, one.market): one for one in reversed(plan.offers)}
        for region in dict.fromkeys(one.region for one in plan.offers if one.region is not None):
            found = only(
                Instances(self._clients, region).of_attempt(plan.run_id, plan.attempt, root_told(plan)),
                f"attempt {plan.attempt} of run {plan.run_id}",
            )
            if found is None:
                continue
            alike = offers.get((region, found.machine, found.market))
            exact = [one for one in plan.offers if (one.region, one.machine, one.market, one.zone)
                     == (region, found.machine, found.market, found.zone)]  # fmt: skip
            price = next((one.price_usd_per_hour for one in (*exact, alike) if one is not None), None)
            offer = Offer("aws", found.machine, found.market, region, found.zone, price)
            return _handle(plan, offer, found.id, found.launched_at)
        return None

    def _security_group(self, request: dict[str, Any]) -> str:
        """The group's id; one that somebody made meanwhile is as good."""
        from botocore.exceptions import ClientError

        ec2 = self._clients.ec2(request["region"])
        arguments = request["arguments"]
        with translated(f"making security group {arguments['GroupName']} (platform.security_group names another)"):
            try:
                group: str = ec2.create_security_group(**arguments)["GroupId"]
            except ClientError as error:
                if code_of(error) != "InvalidGroup.Duplicate":
                    raise
                filters = [{"Name": "group-name", "Values": [arguments["GroupName"]]}]
                if "VpcId" in arguments:
                    filters.append({"Name": "vpc-id", "Values": [arguments["VpcId"]]})
                group = ec2.describe_security_groups(Filters=filters)["SecurityGroups"][0]["GroupId"]
        return group


def _check_images(plan: Plan) -> None:
    """Check that there is something that could be launched.

    Raises:
        NotAllowed: if no image is known for any offer, for want of rights.
        PlatformError: if that has another reason.
    """
    asked = [one["arguments"]["ImageId"] for one in plan.requests if one["call"] == "RunInstances"]
    if asked and set(asked) == {UNKNOWN_IMAGE}:
        unknown = "; ".join(note for note in plan.notes if note.startswith(UNKNOWN))
        denied = any(code in unknown for code in NOT_ALLOWED)
        kind = NotAllowed if denied else PlatformError
        raise kind(f"no image to launch could be found ({unknown}); launch again, or name one: platform.ami")


def _completed(request: dict[str, Any], groups: dict[str, str]) -> dict[str, Any]:
    """A request with the id of the group that was made for it."""
    arguments = dict(request["arguments"])
    if arguments["SecurityGroupIds"] == [TO_BE_MADE]:
        if request["region"] not in groups:
            raise PlatformError(f"there is no security group in {request['region']}; launch again")
        arguments["SecurityGroupIds"] = [groups[request["region"]]]
    return {**request, "arguments": arguments}


def _handle(plan: Plan, offer: Offer, instance: str, launched_at: float) -> RunHandle:
    address = {
        "instance": instance,
        "region": offer.region,
        "zone": offer.zone,
        "machine": offer.machine,
        "market": offer.market,
        "launched_at": launched_at,
        "price_usd_per_hour": offer.price_usd_per_hour,
        "like": likeness(plan, offer),
    }
    return RunHandle("aws", plan.run_id, plan.attempt, address)


def _granted(handle: RunHandle) -> str:
    where = handle.address
    price = where["price_usd_per_hour"]
    usd = "at a price that is not known" if price is None else f"at {price:.4f} USD an hour"
    return f"{where['instance']} · {where['machine']} {where['market'].replace('_', ' ')} in {where['zone']} {usd}"
