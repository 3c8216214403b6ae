"""How long a stop leaves to the ranks, and to what follows them."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from runctl.agent.inbox import Inbox, Request
from runctl.agent.ranks import Ranks
from runctl.agent.stopping import MARGIN_S, Stopping


class Asked:
    """Checkpoints of ranks that look out for a stop, or do not."""

    upload_pid = None

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


def wait_s(one: Stopping) -> float:
    assert one.stop is not None
    return one.stop.deadline - time.monotonic()


def test_without_a_stop_there_is_no_hurry() -> None:
    assert stopping().left_s() == math.inf


def test_ranks_have_the_grace_and_a_notice_that_is_nearer_shortens_it() -> None:
    for notice_s, expected in ((None, 60), (120, 60), (40, 40 - MARGIN_S), (5, 0), (-10, 0)):
        one = stopping()
        at = None if notice_s is None else time.time() + notice_s
        one.ask(Rank(), Request("spot_notice", host_ends_at=at))
        assert wait_s(one) == pytest.approx(expected, abs=2)


def test_the_last_upload_has_until_the_host_goes() -> None:
    one = stopping()
    one.ask(Rank(), Request("spot_notice", host_ends_at=time.time() + 120))
    assert one.left_s() == pytest.approx(120 - MARGIN_S, abs=2)


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
    assert wait_s(one) == pytest.approx(30 - MARGIN_S, abs=2)
    assert one.left_s() == pytest.approx(30 - MARGIN_S, abs=2)


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
