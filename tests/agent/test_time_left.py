"""How long a stop leaves to the ranks, and to what follows them."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from runctl.agent.inbox import Inbox, Request
from runctl.agent.ranks import Ranks
from runctl.agent.stopping import Stopping

#: What a notice leaves to the host's own end: a quarter of its time, and never more than 15 s.
MARGINS_S = {120: 15, 40: 10, 30: 7.5, 5: 1.25, -10: -10}


class Asked:
    """Checkpoints of ranks that look out for a stop, or do not."""

    upload_pid = None
    writer_at_work = None

    def __init__(self, polling: bool) -> None:
        self._polling = polling

    def ask_to_stop(self) -> bool:
        return self._polling


class Rank(Ranks):
    """Ranks that note that they were signalled."""

    signals = 0

    def start(self, argv: list[str], env: dict[str, str], cwd: str, kill_after_s: float) -> None:
        raise NotImplementedError

    def report(self) -> Any:
        raise NotImplementedError

    def stop(self) -> None:
        self.signals += 1


def stopping(polling: bool = True, *, attached: bool = False, grace_s: float = 60.0) -> Stopping:
    asked: Any = Asked(polling)
    return Stopping(Inbox(None), asked, attached=attached, grace_s=grace_s, announce=lambda reason: None)


def ranks_have_s(one: Stopping) -> float:
    """How long ranks have that were asked, until they are killed."""
    assert one.stop is not None
    return one.stop.kill_at - time.monotonic()


def test_without_a_stop_there_is_no_hurry() -> None:
    assert stopping().left_s() == math.inf


def test_ranks_have_the_grace_and_a_notice_that_is_nearer_shortens_it() -> None:
    for notice_s, whole_s in ((None, 60), (120, 60), *((n, n - MARGINS_S[n]) for n in (40, 5, -10))):
        one = stopping()
        at = None if notice_s is None else time.time() + notice_s
        one.ask(Rank(), Request("spot_notice", host_ends_at=at))
        assert ranks_have_s(one) == pytest.approx(whole_s - min(5, whole_s / 4), abs=1)


def test_the_last_upload_has_until_the_host_goes() -> None:
    one = stopping()
    one.ask(Rank(), Request("spot_notice", host_ends_at=time.time() + 120))
    assert one.left_s() == pytest.approx(120 - MARGINS_S[120], abs=2)


def test_a_rented_host_waits_for_the_last_upload_and_ones_own_machine_keeps_to_the_grace() -> None:
    for attached, expected in ((False, math.inf), (True, 60)):
        one = stopping(attached=attached)
        one.ask(Rank(), Request("user"))
        assert one.left_s() == pytest.approx(expected, abs=2)
        one.ask(Rank(), Request("user", now=True))
        assert one.left_s() <= 0


def test_a_notice_during_a_stop_shortens_it_and_keeps_its_reason() -> None:
    one = stopping()
    one.ask(Rank(), Request("max_usd"))
    one.ask(Rank(), Request("spot_notice", host_ends_at=time.time() + 30))
    assert one.stop is not None and one.stop.reason == "max_usd"
    left_s = 30 - MARGINS_S[30]
    assert ranks_have_s(one) == pytest.approx(left_s - 5, abs=1)
    assert one.left_s() == pytest.approx(left_s, abs=1)


def test_ranks_that_were_only_asked_are_signalled_at_the_deadline_and_others_at_once() -> None:
    rank = Rank()
    one = stopping()
    one.ask(rank, Request("spot_notice", host_ends_at=time.time()))
    assert rank.signals == 0
    time.sleep(0.01)
    one.enforce(rank)
    assert rank.signals == 1
    deaf = Rank()
    stopping(polling=False).ask(deaf, Request("user"))
    assert deaf.signals == 1
