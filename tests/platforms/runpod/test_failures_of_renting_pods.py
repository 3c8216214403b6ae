"""What RunPod may answer to whoever looks around and rents, and what must come of each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from renting import A5000, L4, MADE, Desk, with_requests

from runctl.drill.faults import Fault
from runctl.drill.runpod.cloud import KEY
from runctl.errors import NoCapacity, NotAllowed, OfferRefused, PlatformError, RunctlError
from runctl.platforms.rented import Market
from runctl.platforms.runpod import purchase, requests
from runctl.platforms.runpod.api import Api, mutation
from runctl.platforms.runpod.pods import Pod, Pods
from runctl.platforms.runpod.requests import name_of
from runctl.spec import Offer

ALWAYS = 10_000
SPOT, ON_DEMAND = "podRentInterruptable", "podFindAndDeployOnDemand"
TERMINATE = "podTerminate"
#: Offers of two types: one in two clouds, one in one.
OFFERS = 3


@dataclass(frozen=True)
class Case:
    """A failure of renting and what must come of it.

    Attributes:
        asked: requests for spot and on demand: exactly, or at most if negative.
        granted: type, market and cloud; None if there is an error.
    """

    code: str
    asked: tuple[int, int]
    granted: tuple[str, str, str] | None = (A5000, "spot", "community")
    times: int = 1
    status: int = 200
    message: str = ""
    call: str = SPOT
    after: bool = False
    error: type[RunctlError] = RunctlError
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        how_often = "always" if self.times == ALWAYS else f"{self.times}x"
        words = self.message.split(".")[0].replace(" ", "_")[:40]
        return f"{self.code or 'lost'}-{self.status}-{words}-{self.call[3:7]}-{how_often}{'-after' * self.after}"


NEXT = (A5000, "spot", "secure")
LAST = (A5000, "on_demand", "community")
FULL = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again.",
    "There are no instances currently available",
    "This machine does not have the resources to deploy your pod. Please try a different machine",
    "There are no longer any instances available with enough disk space.",
)
STOPS = (
    "You do not have enough funds in your account",
    "You have reached your spend limit of 80 USD per hour",
    "Unauthorized",
)
CASES = [
    *(Case("full", (2, 0), NEXT, message=words) for words in FULL),
    *(Case("full", (-30, 1), LAST, ALWAYS, message=words) for words in FULL[:1]),
    Case("null", (2, 0), NEXT),
    Case("null", (1, 0), after=True),
    Case("null", (-30, 1), LAST, ALWAYS),
    Case("full", (1, 0), message=FULL[1], after=True),
    Case("full", (-30, 0), None, ALWAYS, message=FULL[0], error=NoCapacity, options={"market": Market.spot}),
    Case("null", (-30, 0), None, ALWAYS, error=NoCapacity, options={"market": Market.spot}),
    *(
        Case("no", (1, 0), None, ALWAYS, message=words, error=NotAllowed, options={"market": market})
        for words in STOPS
        for market in (Market.spot, Market.spot_then_on_demand)
    ),
    Case("key", (1, 0), None, ALWAYS, 401, error=NotAllowed),
    Case("key", (0, 1), None, ALWAYS, 401, call=ON_DEMAND, error=NotAllowed, options={"market": Market.on_demand}),
    *(
        case
        for code, status, message in (
            ("", 200, ""),
            ("html", 502, ""),
            ("html", 504, ""),
            ("wrong", 200, "Something went wrong. Please try again later or contact support."),
        )
        for case in (
            Case(code, (2, 0), times=1, status=status, message=message),
            Case(code, (4, 0), times=3, status=status, message=message),
            Case(code, (1, 0), times=1, status=status, message=message, after=True),
            Case(code, (1, 0), times=ALWAYS, status=status, message=message, after=True),
            Case(code, (4, 0), None, ALWAYS, status, message, error=PlatformError),
            Case(code, (0, 1), LAST, ALWAYS, status, message, ON_DEMAND, after=True,
                 options={"market": Market.on_demand}),
        )
    ),
    Case("bad", (1, 0), None, ALWAYS, 400, 'Field "gpuTypeIdd" is not defined', error=PlatformError),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_refusal_has_its_reaction(runpod: Desk, case: Case) -> None:
    fault = Fault(case.call, case.code, case.status, case.message, case.times, after=case.after)
    rented = runpod.rent(fault, **case.options)
    assert rented.injected
    for call, wanted in zip((SPOT, ON_DEMAND), case.asked, strict=True):
        asked = rented.count(call)
        assert asked == wanted if wanted >= 0 else 0 < asked <= -wanted, (asked, rented.error, rented.told)
    if case.granted is None:
        assert isinstance(rented.error, case.error), rented.error
        assert KEY not in str(rented.error)
        assert "\n" not in str(rented.error)
        assert not rented.pods
    else:
        assert rented.error is None, rented.error
        assert rented.handle is not None
        where = rented.handle.address
        assert (where["machine"], where["market"], where["cloud"]) == case.granted
        assert [one["id"] for one in rented.pods] == [where["instance"]]
    assert not rented.living
    assert rented.took_s < 10


@pytest.mark.parametrize("query", ["gpuTypes", "myself"])
@pytest.mark.parametrize(("code", "status"), [("", 200), ("html", 502), ("wrong", 200)])
def test_what_cannot_be_looked_up_for_a_moment_is_looked_up_again(
    runpod: Desk, query: str, code: str, status: int
) -> None:
    # The first question is the plan's; where prices are unknown to a plan without a bid, the next round has them.
    bid = {"bid_usd_per_hour": 0.5} if query == "gpuTypes" else {}
    rented = runpod.rent(Fault(query, code, status, "Something went wrong", times=2), **bid)
    assert rented.error is None, rented.error
    assert rented.injected
    assert len(rented.pods) == 1


def test_without_prices_nothing_is_asked_for_blindly(runpod: Desk) -> None:
    rented = runpod.rent(Fault("gpuTypes", "html", 502, times=ALWAYS))
    assert isinstance(rented.error, PlatformError)
    assert "no price could be looked up" in str(rented.error)
    assert rented.count(SPOT) == 0


def test_nothing_is_rented_while_there_is_no_way_to_look_whether_it_was(runpod: Desk) -> None:
    rented = runpod.rent(Fault("myself", "html", 502, times=ALWAYS))
    assert isinstance(rented.error, PlatformError)
    assert rented.count(SPOT) == 0
    assert rented.count("myself") <= 6


def test_a_second_submit_of_the_same_attempt_finds_the_first_ones_pod(runpod: Desk) -> None:
    rented = runpod.rent(keep=True)
    assert rented.plan is not None and rented.handle is not None
    for again in (rented.plan, replace(rented.plan, offers=(Offer("runpod", L4, "spot"),), requests=())):
        found = runpod.platform().purchase.find(again)
        assert found is not None
        assert found.address["instance"] == rented.handle.address["instance"]
    told = runpod.platform().submit(rented.plan).address
    times = {"launched_at": 0, "ends_at": 0}  # by what the pod tells of its age
    assert {**told, **times} == {**rented.handle.address, **times}
    assert abs(told["launched_at"] - rented.handle.address["launched_at"]) < 3
    assert runpod.platform().purchase.find(replace(rented.plan, attempt=2, requests=())) is None
    assert len(rented.pods) == 1


@pytest.mark.parametrize("other", ["machine", "root"])
def test_a_run_of_the_same_id_elsewhere_has_a_pod_of_its_own(
    runpod: Desk, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    spec = runpod.spec()
    first = runpod.plan(spec=spec)
    theirs = runpod.platform().purchase.make(first, MADE)
    if other == "machine":
        monkeypatch.setattr(requests, "_HERE", "another")
    else:
        spec = replace(spec, run=replace(spec.run, root=f"{spec.run.root}-others"))
    second = runpod.plan(spec=spec)
    assert runpod.platform().purchase.find(second) is None
    ours = runpod.platform().purchase.make(second, MADE)
    assert ours.address["instance"] != theirs.address["instance"]
    for plan, handle in ((first, theirs), (second, ours)):
        found = runpod.platform().purchase.find(plan)
        assert found is not None and found.address["instance"] == handle.address["instance"]


def test_a_pod_that_an_earlier_runctl_asked_for_is_found_by_the_name_in_its_plan(runpod: Desk) -> None:
    plan = runpod.plan()
    earlier = with_requests(plan, name=f"runctl-{plan.run_id}-a1")
    handle = runpod.platform().purchase.make(earlier, MADE)
    found = runpod.platform().purchase.find(earlier)
    assert found is not None and found.address["instance"] == handle.address["instance"]
    [pod] = [one for one in Pods(Api()).ours() if one.id == handle.address["instance"]]
    assert pod.made_for == (plan.run_id, 1)


def test_a_pod_that_exited_is_no_living_one(runpod: Desk) -> None:
    rented = runpod.rent(keep=True)
    assert rented.plan is not None and rented.handle is not None
    pods = Pods(Api())
    Api().ask("stopping it", mutation("podStop", {"podId": rented.handle.address["instance"]}, "id"))
    assert pods.get(rented.handle.address["instance"]).state == "EXITED"
    assert runpod.platform().purchase.find(rented.plan) is None
    [left] = pods.named(name_of(rented.plan))
    assert not left.alive
    pods.terminate(left.id)
    assert pods.named(left.name) == []


def test_two_pods_of_one_attempt_are_said(runpod: Desk) -> None:
    rented = runpod.rent(keep=True)
    assert rented.plan is not None
    twin = mutation("podFindAndDeployOnDemand", {"name": name_of(rented.plan), "gpuTypeId": L4}, "id")
    Api().ask("renting a second one", twin)
    with pytest.raises(PlatformError, match=f"attempt 1 of run {rented.run_id} has 2 pods: .*; end those that should"):
        runpod.platform().submit(rented.plan)
    assert len(rented.living) == 2


def test_a_pod_that_an_earlier_request_makes_late_is_ended(runpod: Desk) -> None:
    """Its answer was lost, a look does not show it yet, and so another one is asked for."""
    rented = runpod.rent(keep=True)
    assert rented.plan is not None and rented.handle is not None
    late = rented.handle.address["instance"]
    purchase = runpod.platform().purchase
    looked = iter([None, None])
    purchase._look = lambda plan: next(looked)  # type: ignore[method-assign]
    runpod.cloud.inject(Fault(SPOT, "html", 502))
    handle = purchase.make(rented.plan, MADE)
    assert handle.address["instance"] != late
    assert rented.living == [handle.address["instance"]]


def test_an_argument_that_runpod_does_not_know_is_left_out(runpod: Desk) -> None:
    rented = runpod.rent(Fault(SPOT, "bad", 400, 'Field "terminateAfter" is not defined by type'))
    assert rented.error is None, rented.error
    assert any("RunPod does not know terminateAfter" in line for line in rented.told)
    assert "terminateAfter" not in rented.pods[0]["asked"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(TERMINATE, times=2),
        Fault(TERMINATE, after=True),
        Fault(TERMINATE, "html", 502, times=2),
        Fault(TERMINATE, "wrong", 200, "Something went wrong", times=2),
        Fault("pod", "html", 502, times=2),
    ],
    ids=["lost", "lost-after", "html", "wrong", "look"],
)
def test_a_pod_is_ended_although_requests_are_lost(runpod: Desk, fault: Fault) -> None:
    rented = runpod.rent(keep=True)
    assert rented.handle is not None
    runpod.cloud.inject(fault)
    Pods(Api()).terminate(rented.handle.address["instance"])
    assert rented.living == []


def test_a_pod_that_cannot_be_ended_is_said_within_bounds(runpod: Desk) -> None:
    rented = runpod.rent(keep=True)
    assert rented.handle is not None
    pod = rented.handle.address["instance"]
    runpod.cloud.inject(Fault(TERMINATE, "html", 502, times=ALWAYS))
    with pytest.raises(PlatformError, match=f"pod {pod} is still there after 6 requests"):
        Pods(Api()).terminate(pod)
    runpod.cloud.clear()
    runpod.cloud.inject(Fault(TERMINATE, "key", 401))
    with pytest.raises(NotAllowed):
        Pods(Api()).terminate(pod)


def test_a_pod_that_is_gone_is_left_so_and_a_young_one_may_not_be_known_yet(runpod: Desk) -> None:
    import time

    pods = Pods(Api())
    pods.terminate("nosuchpod")
    assert pods.get("nosuchpod").state == "gone"
    assert pods.get("nosuchpod", time.time()).alive


def test_ssh_is_told_once_it_is_there(runpod: Desk) -> None:
    rented = runpod.rent(keep=True)
    assert rented.handle is not None
    pods, name = Pods(Api()), rented.handle.address["instance"]
    seen = [pods.get(name)]
    while seen[-1].ssh is None:
        assert len(seen) < 500
        seen.append(pods.get(name))
    assert (seen[-1].ssh.host, seen[-1].ssh.port) == ("127.0.0.1", rented.pods[0]["ssh_port"])
    assert not seen[-1].comes_up


def test_an_offer_that_is_refused_names_offer_and_words(runpod: Desk) -> None:
    for gpu in (A5000, L4):
        runpod.cloud.set_capacity(gpu, spot=0, on_demand=0)
    plan = runpod.plan()
    with pytest.raises(OfferRefused, match=f"no longer any instances.*{A5000} spot in the community cloud"):
        runpod.platform().submit(plan)


def test_a_bid_below_the_lowest_is_said_in_the_plan_and_refused_by_runpod(runpod: Desk) -> None:
    rented = runpod.rent(bid_usd_per_hour=0.15, market=Market.spot, gpu_type=L4)
    assert isinstance(rented.error, NoCapacity)
    assert "bid" in str(rented.error)
    assert rented.plan is not None
    assert any("0.15 is below the lowest bid for NVIDIA L4/secure" in note for note in rented.plan.notes)


def test_a_pod_that_an_earlier_offers_lost_answer_made_late_is_ended(runpod: Desk) -> None:
    """Its answer was nothing, and so the next offer was asked for, which was granted at once."""
    plan, told = runpod.plan(), list[str]()
    made, ended = list[str](), list[str]()

    class Asked:
        def ask(self, what: str, query: str) -> dict[str, Any]:
            made.append(what)
            return {SPOT: None if len(made) == 1 else {"id": "granted"}}

    class Late:
        def named(self, _: str) -> list[Pod]:
            return [Pod("late", "RUNNING"), Pod("granted", "RUNNING")] if len(made) == 2 else []

        def terminate(self, pod: str) -> None:
            ended.append(pod)

    api: Any = Asked()
    renting = purchase.Purchase(api, told.append)
    renting._pods = Late()  # type: ignore[assignment]
    assert renting.make(plan, MADE).address["instance"] == "granted"
    assert ended == ["late"]
    assert "pod late was made twice; ending it" in told
