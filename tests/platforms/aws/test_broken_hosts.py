"""A host that breaks is replaced by another; a program that fails is not tried again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rehearsal import Rehearsal, rehearsal

from runctl.drill.faults import Fault
from runctl.errors import ExitCode
from runctl.spec import RunState

BROKEN = 'raise RuntimeError("CUDA error: uncorrectable ECC error encountered")'
FIRST = "import os\nif os.environ['RUNCTL_ATTEMPT'] == '1':\n    "


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    with rehearsal(tmp_path_factory.mktemp("faults")) as aws:
        (aws.project / "first_host_breaks.py").write_text(f"{FIRST}{BROKEN}\nprint('trained')\n")
        (aws.project / "every_host_breaks.py").write_text(BROKEN)
        (aws.project / "fails.py").write_text("raise ValueError('bad batch')")
        yield aws


@pytest.mark.slow
def test_the_next_host_goes_on_and_the_reason_is_said(aws: Rehearsal) -> None:
    launch = aws.run(script="first_host_breaks.py")
    assert launch.outcome is not None, launch.error
    assert launch.outcome.state is RunState.SUCCEEDED, launch.told
    first, _ = launch.outcome.attempts
    assert first.state is RunState.INTERRUPTED
    assert first.end_reason.startswith("host fault: a GPU's memory is broken (rank 0 failed: ")
    assert f"attempt 1: {first.end_reason}" in launch.told
    assert len({one["zone"] for one in launch.instances}) == 2, "elsewhere"
    launch.check_that_nothing_is_left()


@pytest.mark.soak
def test_hosts_that_break_one_after_the_other_at_the_same_step_are_not_the_hosts_fault(aws: Rehearsal) -> None:
    launch = aws.run(script="every_host_breaks.py")
    assert launch.outcome is not None, launch.error
    assert [one.state for one in launch.outcome.attempts] == [RunState.INTERRUPTED] * 2, launch.told
    assert launch.outcome.exit_code == int(ExitCode.HOST_LOST)
    launch.check_that_nothing_is_left()


def test_a_host_that_nobody_could_tell_what_to_do_does_not_stay(aws: Rehearsal) -> None:
    denied = Fault("DescribeInstanceInformation", "AccessDeniedException", times=10_000)
    launch = aws.run(denied, keep_on_failure=None)
    assert launch.outcome is not None and launch.outcome.state is RunState.FAILED, launch.told
    assert "cannot be told what to do" in launch.outcome.reason
    assert not any("stays for" in line for line in launch.told)
    launch.check_that_nothing_is_left()


def test_the_users_own_exception_is_not_tried_again_and_its_host_stays_for_a_look(aws: Rehearsal) -> None:
    launch = aws.run(script="fails.py", keep_on_failure=None)
    assert launch.outcome is not None, launch.error
    assert [one.state for one in launch.outcome.attempts] == [RunState.FAILED], launch.told
    assert launch.outcome.exit_code == 1
    [instance] = launch.instances
    assert instance["state"] == "running"
    assert f"{instance['id']} stays for 15 minutes (platform.keep_on_failure)" in launch.told
    aws.cloud.kill(instance["id"])
