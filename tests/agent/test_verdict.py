"""What is made of what the ranks left behind."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from runctl.agent.ranks import RankExit, Report
from runctl.agent.stop import Stop
from runctl.agent.verdict import judge
from runctl.spec import RunState

GLOO = "RuntimeError: [gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:36742"


def told(rank: int, message: str = "ValueError: boom", at: float = 100.0, trace: str | None = "T") -> dict[str, Any]:
    return {"rank": rank, "restart": 0, "message": message, "traceback": trace, "at": at}


def test_ranks_that_all_ended_well_succeeded() -> None:
    verdict = judge(Report(0), None, [], "h")
    assert (verdict.state, verdict.exit_code, verdict.failure) == (RunState.SUCCEEDED, 0, None)


def test_the_earliest_exception_is_the_cause() -> None:
    report = Report(1, (RankExit(0, 1), RankExit(1, 3)))
    verdict = judge(report, None, [told(1, "SystemExit", 99), told(0, at=100)], "h")
    assert verdict.failure is not None and verdict.failure.rank == 1
    assert verdict.exit_code == 3


def test_a_rank_that_only_lost_its_peer_is_no_cause_though_it_spoke_first() -> None:
    report = Report(1, (RankExit(0, 1), RankExit(1, 1)))
    verdict = judge(report, None, [told(0, GLOO, 99), told(1, at=100)], "h")
    assert verdict.reason == "rank 1 failed: ValueError: boom"


def test_a_lost_peer_is_the_cause_where_nobody_says_more() -> None:
    verdict = judge(Report(1, (RankExit(0, 1),)), None, [told(0, GLOO)], "h")
    assert verdict.failure is not None and verdict.failure.rank == 0


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_rank_that_died_without_a_word_comes_before_its_peers_exceptions(by: int) -> None:
    report = Report(1, (RankExit(0, 1), RankExit(1, 128 + by, by)))
    verdict = judge(report, None, [told(0, GLOO)], "h")
    assert verdict.failure is not None and verdict.failure.rank == 1
    assert verdict.exit_code == 128 + by


def test_a_peer_that_torchrun_killed_is_no_cause() -> None:
    report = Report(137, (RankExit(0, 137, 9, first=False), RankExit(1, 1)))
    verdict = judge(report, None, [told(1)], "h")
    assert verdict.reason == "rank 1 failed: ValueError: boom"
    silent = judge(Report(137, (RankExit(0, 137, 9, first=False), RankExit(1, 4))), None, [], "h")
    assert silent.reason == "rank 1 failed: exited with code 4"


def test_an_abort_follows_from_an_exception_elsewhere() -> None:
    report = Report(1, (RankExit(0, 134, signal.SIGABRT), RankExit(1, 1)))
    assert judge(report, None, [told(1)], "h").reason == "rank 1 failed: ValueError: boom"
    alone = judge(Report(134, (RankExit(0, 134, signal.SIGABRT),)), None, [], "h")
    assert alone.exit_code == 134


def test_a_rank_that_was_ended_while_its_exception_unwound_gives_one() -> None:
    report = Report(1, (RankExit(1, 143, signal.SIGTERM, first=False), RankExit(0, 1)))
    verdict = judge(report, None, [told(1, at=99), told(0, GLOO, 100)], "h")
    assert verdict.failure is not None and (verdict.failure.rank, verdict.exit_code) == (1, 1)


def test_torchruns_own_error_is_its_own() -> None:
    verdict = judge(Report(1, (), "OSError: no port", "Traceback"), None, [], "h")
    assert verdict.reason == "torchrun failed: OSError: no port"
    assert verdict.failure is not None and verdict.failure.traceback == "Traceback"


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("user", 130),
        ("terminated", 143),
        ("hangup", 143),
        ("launcher_gone", 143),
        ("max_time", 124),
        ("max_usd", 124),
        ("idle", 124),
        ("a word of a newer launcher", 143),
    ],
)
def test_a_stop_gives_its_reasons_code_whatever_the_ranks_gave(reason: str, code: int) -> None:
    stop = Stop(reason, at=50.0)
    for report, failures in ((Report(0), []), (Report(143), []), (Report(1, (RankExit(0, 1),)), [told(0)])):
        verdict = judge(report, stop, failures, "h")
        assert (verdict.state, verdict.exit_code) == (RunState.STOPPED, code)


def test_a_notice_interrupts_and_says_when_the_host_goes() -> None:
    stop = Stop("spot_notice", at=50.0, detail="AWS takes the instance back at 12:34:56 UTC")
    verdict = judge(Report(143), stop, [], "h")
    assert (verdict.state, verdict.exit_code) == (RunState.INTERRUPTED, 71)
    assert verdict.reason == "interrupted: AWS takes the instance back at 12:34:56 UTC"


def test_a_stop_does_not_excuse_a_rank_that_had_failed_before() -> None:
    stop = Stop("user", at=101.0)
    verdict = judge(Report(1, (RankExit(0, 1),)), stop, [told(0, at=100.0)], "h")
    assert (verdict.state, verdict.exit_code) == (RunState.FAILED, 1)
