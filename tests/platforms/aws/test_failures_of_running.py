"""What AWS may answer between the grant of a host and the end of its run, and what must come of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from rehearsal import ROOT, Launch, Rehearsal, rehearsal

from runctl.drill.faults import Fault
from runctl.errors import ExitCode, RunctlError
from runctl.rundir import RunDir, run_url
from runctl.spec import RunState

#: Minutes of it; `make soak` runs them.
pytestmark = pytest.mark.soak

ALWAYS = 10_000
EC2 = ("DescribeInstances", "TerminateInstances")
SSM = ("DescribeInstanceInformation", "SendCommand", "GetCommandInvocation")


def at(actions: tuple[str, ...], code: str, times: int, status: int = 400, *, after: bool = False) -> list[Fault]:
    return [Fault(action, code, status, times=times, after=after) for action in actions]


#: By the failure's number and in a word: what a run outlives, at every call where it can occur. 6 is more than botocore
#: asks by itself.
OUTLIVED = {
    (7, "denied for a moment"): [*at(EC2, "UnauthorizedOperation", 2, 403), *at(SSM, "AccessDeniedException", 2)],
    (7, "denied for good"): [
        *at(("GetCommandInvocation",), "AccessDeniedException", ALWAYS),
        *at(("TerminateInstances",), "UnauthorizedOperation", ALWAYS, 403),
    ],
    (9, "throttled"): [*at(EC2, "RequestLimitExceeded", 6, 503), *at(SSM, "ThrottlingException", 6)],
    (10, "internal"): [*at(EC2, "InternalError", 6, 500), *at(SSM, "InternalServerError", 6, 500)],
    (10, "lost on the way there"): at((*EC2, *SSM), "", 6),
    (10, "lost on the way back"): at((*EC2, *SSM), "", 1, after=True),
    (10, "lost on the way back for long"): at((*EC2, *SSM), "", 4, after=True),
    (10, "internal, and done"): [
        *at(EC2, "InternalError", 1, 500, after=True),
        *at(SSM, "InternalServerError", 1, 500, after=True),
    ],
    (11, "not registered yet"): at(("SendCommand",), "InvalidInstanceId", 3),
    (12, "not known yet"): at(("GetCommandInvocation",), "InvocationDoesNotExist", 3),
    (12, "no plugin yet"): at(("SendCommand", "GetCommandInvocation"), "InvalidPluginName", 2),
    (14, "request expired"): at((*EC2, *SSM), "RequestExpired", 2),
    (14, "instance not known yet"): at(EC2, "InvalidInstanceID.NotFound", 1),
    (15, "credentials expired"): [*at(EC2, "ExpiredToken", 2), *at(SSM, "ExpiredTokenException", 2)],
}
#: What passes if one asks again, and what does not.
S3_PASSING = [
    (9, "SlowDown", 503, 2),
    (10, "", 400, 2),
    (10, "InternalError", 500, 2),
]
S3_REFUSED = [(15, "ExpiredToken", 400), (7, "AccessDenied", 403)]
#: How many calls of a kind pass first: the same failure before, during and after the training, here and on the host.
S3_SKIPS = {"PutObject": (0, 6, 12, 18), "GetObject": (0, 4, 9, 16), "ListObjectsV2": (0, 7, 14), "HeadBucket": (0,)}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    with rehearsal(tmp_path_factory.mktemp("aws")) as made:
        yield made


def check_success(launch: Launch) -> None:
    """One attempt, one instance, one start of the training."""
    assert launch.error is None, launch.error
    assert launch.outcome is not None
    assert launch.outcome.state is RunState.SUCCEEDED, (launch.outcome.reason, launch.told)
    assert len(launch.instances) == 1
    rundir = RunDir(run_url(ROOT, launch.run_id))
    assert [attempt.number for attempt in rundir.attempts()] == [1]
    started = [event for event in rundir.events() if event["event"] == "attempt_started"]
    assert len(started) <= 1, started


@pytest.mark.parametrize("case", OUTLIVED, ids=lambda case: f"{case[0]} {case[1]}")
def test_a_run_outlives_what_the_api_says_meanwhile(aws: Rehearsal, case: tuple[int, str]) -> None:
    launch = aws.run(*OUTLIVED[case])
    check_success(launch)
    for fault in OUTLIVED[case]:
        assert launch.injected[fault.action] >= 1, fault
    assert launch.took_s < 60
    assert len(launch.calls) < 500
    launch.check_that_nothing_is_left()


@pytest.mark.parametrize("case", S3_PASSING, ids=lambda case: case[1] or "lost")
def test_storage_that_falters_again_and_again_costs_nothing(aws: Rehearsal, case: tuple[int, str, int, int]) -> None:
    _, code, status, times = case
    launch = aws.run(
        *(Fault(action, code, status, times=times, skip=skip) for action, skips in S3_SKIPS.items() for skip in skips)
    )
    check_success(launch)
    for action in S3_SKIPS:
        assert launch.injected[action] >= 1
    assert launch.took_s < 90
    launch.check_that_nothing_is_left()


@pytest.mark.parametrize(
    ("action", "skip"), [(action, skip) for action, skips in S3_SKIPS.items() for skip in skips], ids=str
)
@pytest.mark.parametrize("case", S3_REFUSED, ids=lambda case: case[1])
def test_storage_that_refuses_something_leaves_no_host_behind(
    aws: Rehearsal, action: str, skip: int, case: tuple[int, str, int]
) -> None:
    _, code, status = case
    launch = aws.run(Fault(action, code, status, skip=skip))
    assert launch.took_s < 90
    if launch.error is not None:
        assert isinstance(launch.error, RunctlError), launch.error
        assert code in str(launch.error) or "denied" in str(launch.error).lower(), launch.error
    else:
        assert launch.outcome is not None
        assert launch.outcome.reason
    assert launch.count("RunInstances") <= 2
    launch.check_that_nothing_is_left()


@pytest.mark.parametrize("action", ["DescribeInstanceInformation", "SendCommand"])
def test_a_host_that_may_not_be_told_what_to_do_is_given_back_at_once(aws: Rehearsal, action: str) -> None:
    launch = aws.run(Fault(action, "AccessDeniedException", times=ALWAYS))
    assert launch.error is None, launch.error
    assert launch.outcome is not None
    assert (launch.outcome.state, len(launch.instances)) == (RunState.FAILED, 1)
    assert "cannot be told what to do" in launch.outcome.reason
    assert "AccessDeniedException" in launch.outcome.reason
    assert launch.count(action) <= 10
    launch.check_that_nothing_is_left()


@pytest.mark.parametrize(
    ("action", "code"),
    [
        ("SendCommand", "InvalidInstanceId"),
        ("DescribeInstanceInformation", "ThrottlingException"),
        ("DescribeInstanceInformation", "ExpiredTokenException"),
        ("SendCommand", ""),
    ],
)
def test_a_host_that_does_not_come_up_in_time_is_given_back_and_another_one_tried(
    aws: Rehearsal, action: str, code: str
) -> None:
    launch = aws.run(Fault(action, code, times=ALWAYS), bring_up="3s", max_attempts=2)
    assert launch.error is None, launch.error
    assert launch.outcome is not None
    assert launch.outcome.state is RunState.INTERRUPTED
    assert launch.outcome.exit_code == ExitCode.HOST_LOST
    assert "platform.bring_up" in launch.outcome.reason
    assert [attempt.number for attempt in launch.outcome.attempts] == [1, 2]
    assert len({one["zone"] for one in launch.instances}) == 2
    assert launch.took_s < 30
    launch.check_that_nothing_is_left()


@pytest.mark.parametrize("how", ["kill", "interrupt"])
@pytest.mark.parametrize("when", ["RunInstances", "SendCommand"])
def test_a_host_that_is_gone_is_followed_by_another_one(aws: Rehearsal, when: str, how: str) -> None:
    begun, ended = len(aws.cloud.calls()), threading.Event()

    def take_it() -> None:
        while not ended.is_set():
            living = [one["id"] for one in aws.cloud.instances() if one["state"] == "running"]
            if living and any(one["action"] == when for one in aws.cloud.calls()[begun:]):
                if how == "kill":
                    aws.cloud.kill(living[0])
                else:
                    aws.cloud.interrupt(living[0], notice_s=0.1)
                return
            time.sleep(0.02)

    thread = threading.Thread(target=take_it)
    thread.start()
    try:
        launch = aws.run(script="first_is_long.py")
    finally:
        ended.set()
        thread.join()
    assert launch.error is None, launch.error
    assert launch.outcome is not None
    assert launch.outcome.state is RunState.SUCCEEDED, (launch.outcome.reason, launch.told)
    assert [attempt.state for attempt in launch.outcome.attempts] == [RunState.INTERRUPTED, RunState.SUCCEEDED]
    launch.check_that_nothing_is_left()
