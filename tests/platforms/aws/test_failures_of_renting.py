"""What AWS may answer to whoever looks around and rents, and what must come of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from rehearsal import ROOT, Rehearsal, rehearsal

from runctl.drill.faults import Fault
from runctl.errors import ConfigError, NoCapacity, NotAllowed, PlatformError, RunctlError
from runctl.platforms.aws import AwsPlatform
from runctl.platforms.aws.clients import Clients
from runctl.platforms.aws.options import AwsConfig
from runctl.platforms.aws.purchase import Purchase
from runctl.platforms.rented import Market
from runctl.spec import LaunchSpec, Limits, Plan, Program, RunHandle, RunIdentity

ALWAYS = 10_000


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    with rehearsal(tmp_path_factory.mktemp("aws")) as made:
        yield made


@dataclass(frozen=True)
class Case:
    """A failure of RunInstances and what must come of it.

    Attributes:
        failure: its number among the failures that a launch survives.
        times: how many requests meet it.
        asked: how many requests for spot and on demand there are then: exactly, or at most if it is negative.
        granted: machine and market; None if there is an error.
    """

    failure: int
    code: str
    asked: tuple[int, int]
    granted: tuple[str, str] | None = ("t3.medium", "spot")
    times: int = 1
    status: int = 400
    message: str = ""
    market: str | None = None
    after: bool = False
    error: type[RunctlError] = RunctlError
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        how_often = "always" if self.times == ALWAYS else f"{self.times}x"
        return f"{self.failure}-{self.code or 'lost'}{'-after' * self.after}-{self.market or 'any'}-{how_often}"


ON_DEMAND = ("t3.medium", "on_demand")
TWO = {"instance_type": ["t3.medium", "c7i.xlarge"]}
GPUS = {"instance_type": ["g6.xlarge", "g5.xlarge", "t3.medium"]}
PROFILE = "Value (runctl) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"
#: Five zones have a t3.medium on the loopback cloud: a market of that type is five requests a round.
CAPACITY = ("InsufficientInstanceCapacity", "UnfulfillableCapacity", "InsufficientHostCapacity")
CASES = [
    *(Case(1, code, (2, 0), status=500) for code in CAPACITY),
    *(Case(1, code, (-30, 1), ON_DEMAND, ALWAYS, 500, market="spot") for code in CAPACITY),
    *(Case(1, code, (-30, -60), None, ALWAYS, 500, error=NoCapacity) for code in CAPACITY),
    Case(1, CAPACITY[0], (6, 0), ("c7i.xlarge", "spot"), 5, 500, options=TWO),
    Case(2, "SpotMaxPriceTooLow", (2, 0), ("c7i.xlarge", "spot"), options=TWO),
    Case(2, "SpotMaxPriceTooLow", (-30, 1), ON_DEMAND, ALWAYS, market="spot"),
    Case(3, "MaxSpotInstanceCountExceeded", (1, 1), ON_DEMAND, ALWAYS, market="spot"),
    Case(3, "MaxSpotInstanceCountExceeded", (1, 0), None, ALWAYS, error=NotAllowed, options={"market": Market.spot}),
    *(
        case
        for code in ("VcpuLimitExceeded", "InstanceLimitExceeded")
        for case in (
            Case(4, code, (2, 0), options=GPUS),
            Case(4, code, (1, 1), ON_DEMAND, ALWAYS, market="spot"),
            Case(4, code, (2, 2), None, ALWAYS, error=NotAllowed, options=GPUS),
            Case(4, code, (0, 1), None, ALWAYS, error=NotAllowed, options={"market": Market.on_demand}),
        )
    ),
    *(Case(5, code, (2, 0)) for code in ("Unsupported", "UnsupportedOperation")),
    Case(5, "Unsupported", (5, 1), ON_DEMAND, ALWAYS, market="spot"),
    Case(5, "Unsupported", (5, 5), None, ALWAYS, error=NotAllowed),
    Case(6, "InsufficientFreeAddressesInSubnet", (2, 0)),
    Case(6, "InsufficientFreeAddressesInSubnet", (0, 2), ON_DEMAND, options={"market": Market.on_demand}),
    Case(6, "InsufficientFreeAddressesInSubnet", (-30, -60), None, ALWAYS, error=NoCapacity),
    *(
        Case(7, code, (1, 0) if market is Market.spot_then_on_demand else (0, 1), None, error=error,
             options={"market": market})
        for market in (Market.spot_then_on_demand, Market.on_demand)
        for code, error in (
            ("UnauthorizedOperation", NotAllowed),
            ("AuthFailure", NotAllowed),
            ("OptInRequired", NotAllowed),
            ("PendingVerification", NotAllowed),
            ("Blocked", NotAllowed),
            ("InvalidAMIID.NotFound", PlatformError),
            ("InvalidAMIID.Malformed", PlatformError),
            ("InvalidAMIID.Unavailable", PlatformError),
            ("InvalidParameterCombination", PlatformError),
        )
    ),
    Case(8, "InvalidParameterValue", (3, 0), times=2, message=PROFILE),
    Case(8, "InvalidParameterValue", (0, 3), ON_DEMAND, 2, message=PROFILE, options={"market": Market.on_demand}),
    Case(8, "InvalidParameterValue", (-60, 0), None, ALWAYS, message=PROFILE, error=PlatformError),
    Case(8, "InvalidParameterValue", (1, 0), None, message="Value (x) for parameter volumeSize", error=PlatformError),
    *(
        case
        for code, status in (("RequestLimitExceeded", 503), ("Throttling", 400), ("ThrottlingException", 400))
        for case in (
            Case(9, code, (4, 0), times=3, status=status),
            Case(9, code, (-60, 0), None, ALWAYS, status, error=PlatformError),
        )
    ),
    *(
        case
        for code, status in (("", 400), ("InternalError", 500), ("ServiceUnavailable", 503), ("RequestTimeout", 400))
        for case in (
            Case(10, code, (2, 0), status=status),
            Case(10, code, (2, 0), status=status, after=True),
            Case(10, code, (4, 0), times=3, status=status, after=True),
            Case(10, code, (4, 0), times=ALWAYS, status=status, after=True),
            Case(10, code, (0, 4), ON_DEMAND, ALWAYS, status, after=True, options={"market": Market.on_demand}),
            Case(10, code, (4, 0), None, ALWAYS, status, error=PlatformError),
        )
    ),
    Case(10, "IdempotentInstanceTerminated", (2, 0)),
    Case(10, "IdempotentParameterMismatch", (2, 0)),
    Case(10, "IdempotentParameterMismatch", (1, 0), after=True),
    *(
        case
        for failure, code in ((14, "RequestExpired"), (15, "ExpiredToken"))
        for case in (
            Case(failure, code, (2, 0)),
            Case(failure, code, (0, 2), ON_DEMAND, options={"market": Market.on_demand}),
            Case(failure, code, (2, 0), None, ALWAYS, error=NotAllowed),
        )
    ),
]  # fmt: skip


def of_each_kind() -> Iterator[Any]:
    """Every case; those that differ from an earlier one by their code alone are for `make soak`."""
    seen = set()
    for case in CASES:
        kind = replace(case, code="", status=0)
        marks = pytest.mark.soak if str(vars(kind)) in seen else ()
        seen.add(str(vars(kind)))
        yield pytest.param(case, id=str(case), marks=marks)


@pytest.mark.parametrize("case", of_each_kind())
def test_a_refusal_of_run_instances_has_its_reaction(aws: Rehearsal, case: Case) -> None:
    fault = Fault(
        "RunInstances", case.code, case.status, case.message, case.times, market=case.market, after=case.after
    )
    launch = aws.rent(fault, **case.options)
    for market, wanted in zip(("spot", "on_demand"), case.asked, strict=True):
        asked = launch.count("RunInstances", market)
        assert asked == wanted if wanted >= 0 else 0 < asked <= -wanted, (asked, launch.error, launch.told)
    if case.granted is None:
        assert isinstance(launch.error, case.error), launch.error
        assert case.code in str(launch.error)
        assert "\n" not in str(launch.error)
        assert not launch.instances
    else:
        assert launch.error is None, launch.error
        assert launch.handle is not None
        assert (launch.handle.address["machine"], launch.handle.address["market"]) == case.granted
        assert [one["id"] for one in launch.instances] == [launch.handle.address["instance"]]
    assert launch.injected["RunInstances"] >= 1
    assert launch.took_s < 15
    launch.check_that_nothing_is_left()


GROUP = [
    (9, "RequestLimitExceeded", 503, 2, False, None),
    (10, "", 400, 1, True, None),
    (10, "", 400, 1, False, None),
    (10, "InternalError", 500, 2, False, None),
    (10, "InternalError", 500, 1, True, None),
    (7, "UnauthorizedOperation", 403, ALWAYS, False, NotAllowed),
    (7, "AuthFailure", 401, ALWAYS, False, NotAllowed),
    (7, "OptInRequired", 403, ALWAYS, False, NotAllowed),
    (4, "SecurityGroupLimitExceeded", 400, ALWAYS, False, PlatformError),
    (9, "RequestLimitExceeded", 503, ALWAYS, False, PlatformError),
    (14, "RequestExpired", 400, ALWAYS, False, NotAllowed),
    (15, "ExpiredToken", 400, ALWAYS, False, NotAllowed),
]


@pytest.mark.parametrize(
    ("number", "code", "status", "times", "after", "error"),
    [(number, *case[1:]) for number, case in enumerate(GROUP)],
    ids=[f"{case[0]}-{case[1] or 'lost'}-{case[3]}x{'-after' * case[4]}" for case in GROUP],
)
def test_a_security_group_is_made_or_the_launch_ends(
    aws: Rehearsal, number: int, code: str, status: int, times: int, after: bool, error: type[RunctlError] | None
) -> None:
    fault = Fault("CreateSecurityGroup", code, status, times=times, after=after)
    launch = aws.rent(fault, security_group=f"group-{number}")
    assert launch.injected["CreateSecurityGroup"] >= 1
    if error is None:
        assert launch.error is None, launch.error
        assert len(launch.instances) == 1
    else:
        assert isinstance(launch.error, error), launch.error
        assert code in str(launch.error)
        assert launch.count("RunInstances") == 0
    assert launch.count("CreateSecurityGroup") <= 4
    launch.check_that_nothing_is_left()


def test_a_run_of_the_same_id_below_another_root_has_an_instance_of_its_own(aws: Rehearsal) -> None:
    platform = AwsPlatform(aws.project, AwsConfig(instance_type="t3.medium", region="us-east-1"), lambda _: None)
    purchase = Purchase(Clients(), lambda _: None)
    made: dict[str, tuple[Plan, RunHandle]] = {}
    for root in (ROOT, f"{ROOT}-of-another"):
        identity, limits = RunIdentity("two-roots", "two", root), Limits(max_time_s=600.0)
        spec = LaunchSpec(identity, Program("train.py", None), limits=limits)
        plan = platform.plan(spec, platform.quote(spec), 1)
        assert purchase.find(plan) is None
        handle = purchase.make(plan)
        assert purchase.make(plan).address["instance"] == handle.address["instance"]
        made[root] = plan, handle
    assert len({handle.address["instance"] for _, handle in made.values()}) == 2
    for plan, handle in made.values():
        found = purchase.find(plan)
        assert found is not None and found.address["instance"] == handle.address["instance"]
    for _, handle in made.values():
        platform.clean_up(handle)


#: What looking asks, and what there is no launch without.
LOOKS = {
    "DescribeInstanceTypeOfferings": "",
    "DescribeSpotPriceHistory": "",
    "GetProducts": "",
    "DescribeSubnets": "",
    "DescribeSecurityGroups": "security group",
    "DescribeInstanceTypes": "image",
    "GetParameter": "image",
    "DescribeImages": "image",
}
LOOK_FAILURES = {
    7: ("UnauthorizedOperation", 403, ALWAYS),
    9: ("RequestLimitExceeded", 503, 2),
    10: ("", 400, 2),
    14: ("RequestExpired", 400, ALWAYS),
    15: ("ExpiredTokenException", 400, ALWAYS),
}


def looks_that_fail() -> Iterator[Any]:
    """Every look with every failure: refused each of them, and two of them in every other way; the rest in a soak."""
    for action in LOOKS:
        for failure in LOOK_FAILURES:
            here = failure == 7 or action in ("DescribeSpotPriceHistory", "DescribeImages")
            yield pytest.param(action, failure, id=f"{action}-{failure}", marks=() if here else pytest.mark.soak)


@pytest.mark.parametrize(("action", "failure"), looks_that_fail())
def test_what_cannot_be_looked_up_is_said_and_done_without_where_that_is_possible(
    aws: Rehearsal, action: str, failure: int
) -> None:
    code, status, times = LOOK_FAILURES[failure]
    launch = aws.rent(Fault(action, code, status, times=times))
    assert launch.injected[action] >= 1
    if times == ALWAYS and LOOKS[action]:
        assert isinstance(launch.error, PlatformError)
        assert LOOKS[action] in str(launch.error)
        assert code in str(launch.error)
        assert launch.count("RunInstances") == 0
    else:
        assert launch.error is None, launch.error
        assert len(launch.instances) == 1
    assert launch.took_s < 15
    launch.check_that_nothing_is_left()


def test_a_security_group_that_is_named_by_its_id_is_never_made(aws: Rehearsal) -> None:
    import boto3

    group = boto3.client("ec2").create_security_group(GroupName="mine", Description="mine")["GroupId"]
    launch = aws.rent(Fault("DescribeSecurityGroups", "UnauthorizedOperation", 403, times=ALWAYS), security_group=group)
    assert launch.error is None, launch.error
    assert launch.count("CreateSecurityGroup") == 0
    nowhere = aws.rent(security_group="sg-0123456789abcdef0")
    assert isinstance(nowhere.error, ConfigError)
    assert "sg-0123456789abcdef0: there is no such group in us-east-1" in str(nowhere.error)
    launch.check_that_nothing_is_left()


@pytest.mark.parametrize("code", ["UnauthorizedOperation", "RequestExpired", ""])
def test_an_account_that_refuses_every_look_ends_the_launch(aws: Rehearsal, code: str) -> None:
    launch = aws.rent(*(Fault(action, code, 400, times=ALWAYS) for action in LOOKS))
    assert isinstance(launch.error, PlatformError)
    assert launch.count("RunInstances") == 0
