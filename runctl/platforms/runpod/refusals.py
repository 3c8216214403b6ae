"""What RunPod says when it refuses, and what that means: it has no codes, only words.

The words of no capacity are those that launchers of others met, as public code and issues have them; those of money and
rights are read by what they are about, without a source, and anything else ends the launch.
"""

from __future__ import annotations

import re

from runctl.errors import NotAllowed, OfferRefused, PlatformError

#: The next offer may have it.
_NO_CAPACITY = re.compile(
    r"no (longer any )?instances( are)?( currently)? available|no longer any instances"
    r"|does not have the resources|not enough (free )?(gpus?|resources|capacity)|out of (stock|capacity)"
    r"|insufficient (capacity|resources)|\bbid\b.*(low|minimum|below|higher)|no machines? (is |are )?available",
    re.IGNORECASE,
)
#: Every offer would meet the same.
_NOT_ALLOWED = re.compile(
    r"unauthori[sz]ed|not authori[sz]ed|forbidden|permission|api key|may not|access denied"
    r"|funds|balance|spend(ing)? limit|billing|payment|suspended|quota|too many pods",
    re.IGNORECASE,
)
#: The same again, after a look.
_PASSES = re.compile(
    r"something went wrong|internal (server )?error|try again (later|in)|timed? ?out|rate limit|too many requests"
    r"|temporarily|service unavailable|bad gateway",
    re.IGNORECASE,
)


class Transient(PlatformError):
    """What may pass by itself; the request may have been carried out all the same."""


def refused(what: str, words: str) -> PlatformError:
    """The error of ours that RunPod's words mean.

    Args:
        what: was asked for.
        words: RunPod's.
    """
    if _NO_CAPACITY.search(words):
        return OfferRefused(words)
    if _NOT_ALLOWED.search(words):
        return NotAllowed(f"{what}: {words}; look at https://console.runpod.io")
    if _PASSES.search(words):
        return Transient(f"{what}: {words}")
    return PlatformError(f"{what}: {words}")
