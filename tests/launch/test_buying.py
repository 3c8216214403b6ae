"""What ends the search for a host and what it waits out; and what a stop in the middle of it leaves behind: nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from runctl import buying
from runctl.buying import Buyer
from runctl.cost import Rates
from runctl.errors import (
    ConfigError,
    MarketClosed,
    NoCapacity,
    NotAllowed,
    OfferRefused,
    PlatformError,
    RunctlError,
    StorageError,
    Vetoed,
)
from runctl.platforms.base import Terms
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, Offer, Plan, Program, Quote, RunHandle, RunIdentity, RunState
from runctl.supervisor import Supervisor

HOUR = 3600.0
OFFERS = (Offer("aws", "g6.xlarge", "spot", "r", "ra", 0.3), Offer("aws", "g6.xlarge", "on_demand", "r", "ra", 0.8))
NONE_NOW = OfferRefused("InsufficientInstanceCapacity")
CUT_OFF = PlatformError("could not connect")


def granted(attempt: int = 1) -> RunHandle:
    return RunHandle("aws", "run", attempt, {"instance": f"i-{attempt}", "launched_at": 0.0})


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the waits of a test took, none of which is waited for."""
    now = [1000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(buying, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    monkeypatch.setattr(buying, "_wait", sleep)
    return now


class Cloud:
    """A platform that does what a test says, one answer after the other; once there are no more, the last one.

    Args:
        submits: what submitting does.
        looks: what looking does: None succeeds, and what is told besides is not known.
        finds: what is found where an answer was lost.
    """

    kind = "aws"
    berth = None

    def __init__(
        self,
        *,
        submits: Sequence[Any],
        looks: Sequence[Any] = (None,),
        finds: Sequence[Any] = (None,),
        **of_terms: Any,
    ) -> None:
        given = {"markets": ("spot",), "wait_for_capacity_s": 8 * HOUR, "max_attempts": 3, **of_terms}
        self.terms = Terms(rented=True, **given)
        self.answers = {"look": list(looks), "submit": list(submits), "find": list(finds)}
        self.done: list[str] = []
        self.ended: list[str] = []
        self.states = [RunState.SUCCEEDED]

    def _answer(self, what: str) -> Any:
        self.done.append(what)
        answers = self.answers[what]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(answer):
            answer = answer()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def quote(self, spec: LaunchSpec) -> Quote:
        unknown: tuple[str, ...] | None = self._answer("look")
        return Quote(OFFERS, None, {}, unknown or ())

    def plan(self, spec: LaunchSpec, quote: Quote, attempt: int) -> Plan:
        return Plan("run", attempt, "aws", (), {}, 1, 1, ".", "runs/run", offers=quote.offers, notes=quote.unknown)

    def submit(self, plan: Plan) -> RunHandle:
        handle: RunHandle = self._answer("submit")
        return handle

    def find(self, plan: Plan) -> RunHandle | None:
        handle: RunHandle | None = self._answer("find")
        return handle

    def clean_up(self, handle: RunHandle, *, keep_s: float = 0.0) -> bool:
        self.ended.append(handle.address["instance"])
        return False

    def wait(self, handle: RunHandle, timeout_s: float) -> RunState:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def why(self, handle: RunHandle) -> str:
        return "AWS took it back"

    def offer(self, plan: Plan, handle: RunHandle) -> Offer:
        return plan.offers[0]

    def rates(self, *_: Any) -> Rates:
        return Rates()


class Launch:
    """A launch on such a platform."""

    def __init__(self, cloud: Cloud, folder: Path, rundir: RunDir | None = None) -> None:
        self.cloud: Any = cloud
        self.told: list[str] = []
        self.rundir = rundir or RunDir(str(folder / "run"))
        self.spec = LaunchSpec(RunIdentity("run", "run", str(folder)), Program("train.py", None))

    def buy(self, *, lost: Sequence[Offer] = (), detach: bool = False) -> RunHandle:
        buyer = Buyer(self.spec, self.cloud, self.rundir, approve=self._approve, tell=self.told.append,
                      agree=lambda text: not self.told.append(text))  # fmt: skip
        plan = buyer.plan(1, list(lost))
        return buyer.buy(plan, list(lost), detach=detach)[1]

    def run(self) -> Any:
        hooks: Any = SimpleNamespace(require=lambda *_, **__: None, notify=lambda *_, **__: None)
        supervisor = Supervisor(
            self.spec, self.cloud, hooks, self.rundir, self.told.append, output=None, attended=False
        )
        return supervisor.run(supervisor.first_plan(1))

    def _approve(self, plan: Plan) -> None:
        """As a budget does, which must know what things cost."""
        if "prices" in plan.notes:
            raise Vetoed("what this launch costs is not known")


# --- what passes by itself ---


def test_a_look_that_fails_ends_no_waiting_for_capacity(tmp_path: Path) -> None:
    cloud = Cloud(looks=[None, None, CUT_OFF, CUT_OFF, None], submits=[NONE_NOW, NONE_NOW, granted()])
    launch = Launch(cloud, tmp_path)
    assert launch.buy() == granted()
    assert "could not connect; asking again in 15 s" in launch.told
    assert "could not connect; asking again in 30 s" in launch.told


@pytest.mark.parametrize(
    "error",
    [NotAllowed("no right"), ConfigError("no such type"), Vetoed("too dear"), NoCapacity("waited enough")],
    ids=lambda error: type(error).__name__,
)
def test_what_does_not_pass_by_itself_ends_the_waiting_at_once(tmp_path: Path, error: RunctlError) -> None:
    cloud = Cloud(looks=[None, None, error], submits=[NONE_NOW])
    with pytest.raises(type(error), match=str(error)):
        Launch(cloud, tmp_path).buy()
    assert cloud.done.count("look") == 3


def test_a_veto_for_what_one_look_did_not_find_out_ends_no_waiting(tmp_path: Path) -> None:
    cloud = Cloud(looks=[None, ("prices",), None], submits=[NONE_NOW, granted()])
    launch = Launch(cloud, tmp_path)
    assert launch.buy() == granted()
    assert "prices: what this launch costs is not known; asking again in 15 s" in launch.told
    with pytest.raises(Vetoed, match="not known"):
        Launch(Cloud(looks=[("prices",)], submits=[granted()]), tmp_path).buy()


@pytest.mark.parametrize(("wait_s", "at_most_s"), [(8 * HOUR, 2700.0), (60.0, 60.0)])
def test_what_fails_for_too_long_ends_the_waiting(
    tmp_path: Path, clock: list[float], wait_s: float, at_most_s: float
) -> None:
    cloud = Cloud(looks=[None, CUT_OFF], submits=[NONE_NOW], wait_for_capacity_s=wait_s)
    began = clock[0]
    with pytest.raises(PlatformError, match="could not connect"):
        Launch(cloud, tmp_path).buy()
    assert at_most_s / 3 < clock[0] - began < at_most_s + 15, "the first refusal was waited on as well"


def test_a_request_that_fails_is_sent_again_once_requests_were_answered(tmp_path: Path) -> None:
    cloud = Cloud(submits=[NONE_NOW, CUT_OFF, granted()])
    assert Launch(cloud, tmp_path).buy() == granted()
    assert cloud.done == ["look", "submit", "look", "submit", "find", "look", "submit"]
    with pytest.raises(PlatformError, match="could not connect"):
        Launch(Cloud(submits=[CUT_OFF, granted()]), tmp_path).buy()


def test_what_an_answer_that_was_lost_has_granted_is_taken_and_nothing_else_asked_for(tmp_path: Path) -> None:
    cloud = Cloud(submits=[NONE_NOW, CUT_OFF], finds=[CUT_OFF, granted()])
    launch = Launch(cloud, tmp_path)
    assert launch.buy() == granted()
    assert cloud.done.count("submit") == 2
    submitted = launch.rundir.submission(1)
    assert submitted is not None and submitted[1] == granted()


def test_the_first_request_in_another_market_may_be_wrong(tmp_path: Path) -> None:
    wrong = PlatformError("InvalidParameterCombination")
    cloud = Cloud(submits=[MarketClosed("no spot"), wrong], markets=("spot", "on_demand"))
    with pytest.raises(PlatformError, match="InvalidParameterCombination"):
        Launch(cloud, tmp_path).buy()
    assert cloud.done.count("submit") == 2


def test_a_launch_that_leaves_submits_a_host_that_did_not_come_up_once(tmp_path: Path) -> None:
    cloud = Cloud(submits=[NONE_NOW, PlatformError("its host could not be brought up")])
    with pytest.raises(PlatformError, match="brought up"):
        Launch(cloud, tmp_path).buy(detach=True)
    assert cloud.done.count("submit") == 2


def test_time_without_an_answer_is_no_time_without_capacity(tmp_path: Path) -> None:
    """Or an outage would go over to the dearer market by itself."""
    terms: dict[str, Any] = {"markets": ("spot", "on_demand"), "fallback_after_s": 900.0}
    cloud = Cloud(looks=[None, *[CUT_OFF] * 9, None], submits=[NONE_NOW, NONE_NOW, granted()], **terms)
    launch = Launch(cloud, tmp_path)
    assert launch.buy() == granted()
    assert not any("on demand" in line for line in launch.told)
    launch = Launch(Cloud(submits=[NONE_NOW] * 9 + [granted()], **terms), tmp_path)
    launch.buy()
    assert any("going on demand, 0.80 USD an hour instead of 0.30 USD" in line for line in launch.told)


def test_a_look_at_the_next_market_that_fails_is_repeated_and_skips_none(tmp_path: Path) -> None:
    cloud = Cloud(
        looks=[None, CUT_OFF, None], submits=[MarketClosed("no spot"), granted()], markets=("spot", "on_demand")
    )
    launch = Launch(cloud, tmp_path)
    assert launch.buy() == granted()
    submitted = launch.rundir.submission(1)
    assert submitted is not None and [one.market for one in submitted[0].offers] == ["on_demand"]


class Shaky(RunDir):
    """A run directory whose storage raises what a test says when it is told of the n-th submission."""

    def __init__(self, url: str, at: int, act: Callable[[], Any]) -> None:
        super().__init__(url)
        self._left, self._act = at, act

    def write_submission(self, plan: Plan, handle: RunHandle | None) -> None:
        self._left -= 1
        if self._left == 0:
            self._act()
        super().write_submission(plan, handle)


def test_storage_that_cannot_be_written_for_a_while_ends_no_waiting_either(tmp_path: Path) -> None:
    def fails() -> NoReturn:
        raise StorageError("no connection")

    cloud = Cloud(submits=[NONE_NOW, granted()])
    assert Launch(cloud, tmp_path, Shaky(str(tmp_path / "run"), 2, fails)).buy() == granted()
    assert cloud.done.count("submit") == 2, "nothing is asked for that is not written down"

    def forbids() -> NoReturn:
        raise StorageError("access denied") from PermissionError()

    cloud = Cloud(submits=[NONE_NOW, granted()])
    with pytest.raises(StorageError, match="access denied"):
        Launch(cloud, tmp_path, Shaky(str(tmp_path / "run"), 2, forbids)).buy()


def test_a_look_that_fails_after_an_interruption_ends_no_run(tmp_path: Path) -> None:
    cloud = Cloud(looks=[None, CUT_OFF, None], submits=[granted(1), CUT_OFF, granted(2)])
    cloud.states = [RunState.INTERRUPTED, RunState.SUCCEEDED]
    launch = Launch(cloud, tmp_path)
    outcome = launch.run()
    assert (outcome.state, [one.number for one in outcome.attempts]) == (RunState.SUCCEEDED, [1, 2]), launch.told


def test_a_stop_while_such_a_look_is_repeated_is_heard(tmp_path: Path) -> None:
    def stopped() -> NoReturn:
        signal.raise_signal(signal.SIGTERM)
        raise CUT_OFF

    cloud = Cloud(looks=[None, CUT_OFF, stopped], submits=[granted(1)])
    cloud.states = [RunState.INTERRUPTED]
    outcome = Launch(cloud, tmp_path).run()
    assert "stopped before another host was found" in outcome.reason
    assert cloud.ended == ["i-1"], "what has ended is not ended again"


# --- a stop in the middle of it ---


def interrupted() -> None:
    signal.raise_signal(signal.SIGINT)


def test_a_host_that_was_granted_and_not_written_down_yet_is_ended_by_ctrl_c(tmp_path: Path) -> None:
    cloud = Cloud(submits=[granted()])
    with pytest.raises(KeyboardInterrupt):
        Launch(cloud, tmp_path, Shaky(str(tmp_path / "run"), 2, interrupted)).run()
    assert cloud.ended == ["i-1"] and "find" not in cloud.done


def test_a_host_whose_grant_was_cut_off_is_looked_for_until_it_is_listed(tmp_path: Path) -> None:
    cloud = Cloud(submits=[interrupted], finds=[None, CUT_OFF, granted()])
    with pytest.raises(KeyboardInterrupt):
        Launch(cloud, tmp_path).run()
    assert cloud.ended == ["i-1"]


def test_a_second_ctrl_c_keeps_nobody_from_ending_it(tmp_path: Path) -> None:
    def impatient() -> RunHandle:
        interrupted()
        return granted()

    class Slow(Cloud):
        def clean_up(self, handle: RunHandle, *, keep_s: float = 0.0) -> bool:
            interrupted()
            return super().clean_up(handle)

    cloud = Slow(submits=[interrupted], finds=[impatient])
    with pytest.raises(KeyboardInterrupt):
        Launch(cloud, tmp_path).run()
    assert cloud.ended == ["i-1"]


def test_what_may_be_left_is_said(tmp_path: Path) -> None:
    class Stuck(Cloud):
        def clean_up(self, handle: RunHandle, *, keep_s: float = 0.0) -> bool:
            raise CUT_OFF

    stuck = Launch(Stuck(submits=[granted()]), tmp_path, Shaky(str(tmp_path / "run"), 2, interrupted))
    with pytest.raises(KeyboardInterrupt):
        stuck.run()
    assert "i-1 may be left: could not connect; runctl cleanup shows it" in stuck.told
    unseen = Launch(Cloud(submits=[interrupted], finds=[CUT_OFF]), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        unseen.run()
    assert "a host of run may be left: could not connect; runctl cleanup shows it" in unseen.told


def test_a_stop_between_two_rounds_has_nothing_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buying, "_wait", lambda _: interrupted())
    cloud = Cloud(submits=[NONE_NOW])
    with pytest.raises(KeyboardInterrupt):
        Launch(cloud, tmp_path).run()
    assert cloud.done == ["look", "submit"] and cloud.ended == []
