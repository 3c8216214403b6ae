"""What to do when RunInstances is refused: every error has one reaction, and none of them loops.

The list is of failures that launchers of others met in the wild; the codes are EC2's
(docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html).
"""

from __future__ import annotations

from enum import Enum

from runctl.platforms.aws.clients import LOST, NOT_ALLOWED, THROTTLED
from runctl.storage.s3 import EXPIRED


class Reaction(Enum):
    """What comes after a refusal.

    Attributes:
        NEXT: the next offer; another zone or subnet may have it.
        NEXT_TYPE: the next type of instance in this market.
        NEXT_FAMILY: no more of this family in this region and market: a quota is used up.
        NEXT_MARKET: no more of this market in this region.
        STOP: no offer at all, for each would meet the same.
        AGAIN: the same request after a while: what it names was only just made, or AWS asks to slow down.
        AGAIN_AT_ONCE: the same request with the same token: it may have been carried out.
        RENEW: the same request under credentials that are read anew.
        ADOPT: there is an instance of this token already.
    """

    NEXT = "next"
    NEXT_TYPE = "next type"
    NEXT_FAMILY = "next family"
    NEXT_MARKET = "next market"
    STOP = "stop"
    AGAIN = "again"
    AGAIN_AT_ONCE = "again at once"
    RENEW = "renew"
    ADOPT = "adopt"


_REACTIONS = {
    "InsufficientInstanceCapacity": Reaction.NEXT,
    "UnfulfillableCapacity": Reaction.NEXT,
    "InsufficientHostCapacity": Reaction.NEXT,
    "InsufficientFreeAddressesInSubnet": Reaction.NEXT,
    "Unsupported": Reaction.NEXT,
    "UnsupportedOperation": Reaction.NEXT,
    "SpotMaxPriceTooLow": Reaction.NEXT_TYPE,
    "MaxSpotInstanceCountExceeded": Reaction.NEXT_MARKET,
    "VcpuLimitExceeded": Reaction.NEXT_FAMILY,
    "InstanceLimitExceeded": Reaction.NEXT_FAMILY,
    "IdempotentParameterMismatch": Reaction.ADOPT,
    "IdempotentInstanceTerminated": Reaction.NEXT,
    **dict.fromkeys(NOT_ALLOWED, Reaction.STOP),
    **dict.fromkeys(THROTTLED, Reaction.AGAIN),
    **dict.fromkeys(LOST, Reaction.AGAIN_AT_ONCE),
    **dict.fromkeys(EXPIRED, Reaction.RENEW),
}


def reaction(code: str, message: str) -> Reaction:
    """What to do about a refusal.

    Args:
        code: EC2's code; empty if no answer came.
        message: EC2's words.
    """
    if not code:
        return Reaction.AGAIN_AT_ONCE
    # A profile that was made a moment ago is not known everywhere yet.
    if code == "InvalidParameterValue" and "iaminstanceprofile" in message.lower().replace(" ", ""):
        return Reaction.AGAIN
    return _REACTIONS.get(code, Reaction.STOP)


def quota_of(instance_type: str) -> str:
    """Which quota of vCPUs a type counts against: of G and VT together, of P, X or F, or of all standard ones."""
    letter = instance_type[0]
    return {"v": "g"}.get(letter, letter) if letter in "gvpxf" else "standard"
