"""One stop path: signals to the launcher and to the agent, limits, once and twice."""

from __future__ import annotations

import os
import signal
import time

import pytest
from real_launches import Launch, Launcher
from waiting import wait_until

POLITE = """
    import os, signal, sys, time
    def leave(signum, frame):
        print("asked to end", flush=True)
        open("asked-" + os.environ.get("RANK", "0"), "w")
        sys.exit(0)
    signal.signal(signal.SIGTERM, leave)
    open("ready-" + os.environ.get("RANK", "0"), "w")
    while True:
        time.sleep(0.1)
"""
DEAF = """
    import os, signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open("ready-" + os.environ.get("RANK", "0"), "w")
    time.sleep(120)
"""


def check_stopped(launch: Launch, code: int) -> None:
    outcome = launch.json("outcome.json")
    assert (outcome["state"], outcome["exit_code"]) == ("stopped", code), outcome
    assert launch.json("status.json")["state"] == "stopped"
    assert launch.of_this_run() == []
    assert launch.host_dirs() == []
    assert "Traceback" not in launch.err


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.soak), (signal.SIGHUP, 143)],
    ids=str,
)
def test_a_signal_to_the_launcher_stops_the_ranks_gracefully(
    launcher: Launcher, signum: signal.Signals, code: int
) -> None:
    launch = launcher.start(ranks=2, script=POLITE)
    launch.ready("ready-0", "ready-1")
    launch.process.send_signal(signum)
    assert launch.end(8) == code
    launch.ready("asked-0", "asked-1", timeout_s=0.1)
    check_stopped(launch, code)


def test_a_plain_script_is_stopped_with_all_of_its_session(launcher: Launcher) -> None:
    launch = launcher.start(script=POLITE)
    launch.ready("ready-0")
    launch.process.send_signal(signal.SIGINT)
    assert launch.end(8) == 130
    check_stopped(launch, 130)
    assert launch.log("r0") == b"asked to end\n"


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [pytest.param(0, marks=pytest.mark.soak), 2])
def test_a_script_that_ignores_its_end_is_killed_after_ten_seconds(launcher: Launcher, ranks: int) -> None:
    launch = launcher.start(ranks=ranks, script=DEAF)
    launch.ready("ready-0")
    began = time.monotonic()
    launch.process.send_signal(signal.SIGINT)
    wait_until(lambda: launch.json("status.json")["state"] == "stopping", 3, "the status says so")
    assert launch.end(20) == 130
    assert 9 < time.monotonic() - began < 15
    check_stopped(launch, 130)


@pytest.mark.parametrize("ranks", [0, pytest.param(2, marks=pytest.mark.soak)])
def test_it_is_killed_sooner_where_a_whole_stop_may_take_less(launcher: Launcher, ranks: int) -> None:
    launch = launcher.start("checkpoint.grace=2s", ranks=ranks, script=DEAF)
    launch.ready("ready-0")
    began = time.monotonic()
    launch.process.send_signal(signal.SIGINT)
    assert launch.end(20) == 130
    assert 1 < time.monotonic() - began < 9
    check_stopped(launch, 130)


@pytest.mark.parametrize("ranks", [pytest.param(0, marks=pytest.mark.soak), 2])
def test_a_second_signal_stops_at_once(launcher: Launcher, ranks: int) -> None:
    launch = launcher.start(ranks=ranks, script=DEAF)
    launch.ready("ready-0")
    began = time.monotonic()
    launch.process.send_signal(signal.SIGINT)
    wait_until(lambda: "once more" in launch.err, 5, "the first was heard")
    launch.process.send_signal(signal.SIGINT)
    assert launch.end(9) == 130
    assert time.monotonic() - began < 9, "or else they get ten seconds"
    check_stopped(launch, 130)


def test_a_limit_stops_the_ranks(launcher: Launcher) -> None:
    began = time.monotonic()
    code, launch = launcher.run("limits.max_time=2s", script=POLITE)
    assert code == 124
    assert time.monotonic() - began < 30
    check_stopped(launch, 124)
    assert "limits.max_time" in launch.json("outcome.json")["reason"]


def test_a_stop_while_torchrun_still_imports_is_heard(launcher: Launcher) -> None:
    launch = launcher.start(ranks=2, script=DEAF)
    wait_until((launch.run_dir / "events.jsonl").exists, 20, "the attempt was submitted")
    launch.process.send_signal(signal.SIGINT)
    assert launch.end(14) == 130
    check_stopped(launch, 130)


def test_a_signal_to_the_agent_is_a_stop_request_too(launcher: Launcher) -> None:
    launch = launcher.start(script=POLITE)
    launch.ready("ready-0")
    os.kill(launch.agent(), signal.SIGTERM)
    assert launch.end(8) == 143
    assert (launcher.project / "asked-0").exists()
    check_stopped(launch, 143)


def test_output_that_nobody_reads_does_not_keep_a_stopped_training(launcher: Launcher) -> None:
    read, write = os.pipe()
    try:
        launch = launcher.start(script="open('ready-0', 'w')\nwhile True:\n    print('x' * 1000)", stdout=write)
        launch.ready("ready-0")
        time.sleep(0.5)
        launch.process.send_signal(signal.SIGINT)
        assert launch.end(8) == 130
        assert launch.of_this_run() == []
    finally:
        os.close(read)
        os.close(write)


def test_a_stop_while_the_last_output_waits_for_its_reader_takes_no_success_away(launcher: Launcher) -> None:
    read, write = os.pipe()
    try:
        launch = launcher.start(script="print('x\\n' * 250_000)\nopen('ready-0', 'w')", stdout=write)
        launch.ready("ready-0")
        wait_until(lambda: launch.of_this_run() == [], 10, "the script has ended")
        launch.process.send_signal(signal.SIGINT)
        assert launch.end(8) == 0
        assert launch.json("outcome.json")["state"] == "succeeded"
    finally:
        os.close(read)
        os.close(write)
