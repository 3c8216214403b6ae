"""An attempt without a launcher: what it shows, how it is stopped, who may carry it out."""

from __future__ import annotations

import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from detached import Detached, later
from imds import Imds
from real_launches import TIMEOUT_S
from waiting import wait_until

from runctl import extension, saves
from runctl.agent.control import ControlWatch
from runctl.agent.inbox import Inbox, Request
from runctl.agent.streamed import StreamedOutput
from runctl.agent.troubles import Troubles
from runctl.checkpoint.remote import RemoteCatalog
from runctl.errors import StorageError
from runctl.rundir import RunDir, StopRequest
from runctl.storage import Stream

WAITING = "import time\nopen('ready', 'w')\nprint('waiting', flush=True)\ntime.sleep(120)"
SAVING = """
import os, time, torch, runctl
checkpointer = runctl.attach(model=torch.nn.Linear(4, 4))
for step in checkpointer.steps(1_000_000):
    time.sleep(300 if os.path.exists("stuck") else 0.05)
    open("ready", "w")
"""
TELLING = """
import pathlib
def runctl_notice(attempt, kind, at):
    with pathlib.Path(__file__).with_name("told").open("a") as file:
        file.write(f"{attempt} {kind} {at}\\n")
"""


@pytest.fixture
def imds() -> Iterator[Imds]:
    server = Imds()
    yield server
    server.shut()


def test_what_it_shows_is_whole_and_in_order_when_the_status_says_it_ended(detached: Detached) -> None:
    lines = 20_000
    detached.write(
        f"import sys\nfor i in range({lines}):\n"
        "    (sys.stdout if i % 2 else sys.stderr).write(f'line {i}\\n')\n    sys.stdout.flush()"
    )
    agent = detached.start()
    wait_until(lambda: (detached.rundir.read_status() or {}).get("state") == "succeeded", TIMEOUT_S, "its end")
    shown = detached.console().decode()
    assert agent.wait(TIMEOUT_S) == 0
    assert detached.console().decode() == shown
    for stream in (0, 1):  # each of a rank's streams in its own order
        assert [int(i) for i in re.findall(r"line (\d+)", shown) if int(i) % 2 == stream] == [*range(stream, lines, 2)]
    assert detached.said() == ""


def test_what_it_shows_comes_while_it_runs_with_what_the_agent_says(detached: Detached) -> None:
    detached.write(WAITING, max_usd=1.0)
    detached.start()
    detached.ready()
    wait_until(lambda: b"waiting\n" in detached.console(), 20, "the first line")
    assert b"runctl: limits.max_usd is not kept: the price of this host is not known" in detached.console()


def test_an_attached_attempt_shows_nothing_there(detached: Detached) -> None:
    detached.write("print('hello')")
    agent = detached.start(attached=True)
    assert agent.wait(TIMEOUT_S) == 0
    assert detached.console() == b""
    assert "hello" in detached.said()


def test_a_stop_through_the_run_directory_is_heard(detached: Detached) -> None:
    detached.write(WAITING)
    agent = detached.start()
    detached.ready()
    detached.rundir.ask_to_stop(1, "user")
    assert agent.wait(TIMEOUT_S) == 130
    assert (detached.record()["state"], detached.record()["end_reason"]) == ("stopped", "stopped by Ctrl-C")


def test_a_stop_for_now_leaves_no_time(detached: Detached) -> None:
    detached.write("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAITING, grace_s=100)
    agent = detached.start()
    detached.ready()
    detached.rundir.ask_to_stop(1, "user")
    wait_until(lambda: (detached.rundir.read_status() or {}).get("state") == "stopping", TIMEOUT_S, "the stop")
    detached.rundir.ask_to_stop(1, "user", now=True)
    began = time.monotonic()
    assert agent.wait(TIMEOUT_S) == 130
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_a_save_through_the_run_directory_is_made_once_and_answered(detached: Detached) -> None:
    detached.write(SAVING)
    agent = detached.start()
    detached.ready()
    request = saves.ask(detached.rundir, 1)
    said: list[saves.SaveAnswer | None] = [None]

    def has_answered() -> bool:
        said[0] = saves.answered(detached.rundir, request)
        return said[0] is not None and said[0].step is not None

    wait_until(has_answered, TIMEOUT_S, "the answer")
    catalog = RemoteCatalog(detached.rundir.store)
    assert said[0] is not None and catalog.steps() == [said[0].step]  # it has arrived
    detached.rundir.ask_to_stop(1, "user")
    assert agent.wait(TIMEOUT_S) == 130
    assert catalog.steps()[0] == said[0].step and len(catalog.steps()) == 2


def test_a_save_of_a_script_that_knows_none_is_told_so(detached: Detached) -> None:
    detached.write(WAITING)
    detached.start()
    detached.ready()
    request = saves.ask(detached.rundir, 1)
    wait_until(lambda: saves.answered(detached.rundir, request) is not None, TIMEOUT_S, "the answer")
    said = saves.answered(detached.rundir, request)
    assert said is not None and said.step is None and "runctl.attach" in said.waiting


def test_a_stop_of_an_earlier_attempt_does_not_end_this_one(detached: Detached) -> None:
    detached.write("print('done')")
    detached.rundir.ask_to_stop(1, "user")
    assert detached.run(attempt=2) == 0


def test_sigterm_to_the_agent_is_a_stop(detached: Detached) -> None:
    detached.write(WAITING)
    agent = detached.start()
    detached.ready()
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(TIMEOUT_S) == 143
    assert detached.record()["state"] == "stopped"


def test_storage_that_fails_or_hangs_keeps_no_stop_from_being_heard_later(tmp_path: Path) -> None:
    hangs = threading.Event()

    class Flaky(RunDir):
        looks = 0

        def stop_request(self, attempt: int) -> StopRequest | None:
            self.looks += 1
            if self.looks == 1:
                raise StorageError("not now")
            if self.looks == 2:
                hangs.wait(TIMEOUT_S)
            return StopRequest("user", False, 1.0, attempt)

    inbox = Inbox(None)
    watch = ControlWatch(Flaky(str(tmp_path)), 1, inbox)
    watch.INTERVAL_S = 0.05  # type: ignore[misc]
    watch.start()
    assert inbox.wait([], 0.3) == []
    hangs.set()
    wait_until(lambda: inbox.wait([], 0.05) == [Request("user")], TIMEOUT_S, "the stop")
    time.sleep(0.2)
    assert inbox.wait([], 0) == []  # the same one is heard once
    watch.end()
    watch.join(TIMEOUT_S)
    assert not watch.is_alive()


def test_an_attempt_takes_the_run_over_from_its_launcher_and_from_a_lost_host(detached: Detached) -> None:
    detached.write("print('done')")
    for holder in ({}, {"attempt": 1}):
        detached.rundir.publish(
            "lease.json", f'{{"host": "elsewhere", "pid": 1, "at": {time.time()}, '
            f'"started_at": 0{"".join(f", {chr(34)}{k}{chr(34)}: {v}" for k, v in holder.items())}}}'.encode()
        )  # fmt: skip
        assert detached.run(attempt=2) == 0, detached.said(2)


def test_a_second_agent_of_an_attempt_that_lives_ends_without_a_word_in_the_run_directory(detached: Detached) -> None:
    detached.write(WAITING)
    detached.start()
    detached.ready()
    second = Detached.__new__(Detached)
    second.__dict__ = {**detached.__dict__, "scratch": Path(detached.scratch, "second")}
    second.scratch.mkdir()
    assert second.run() == 2
    assert "is alive" in second.said()
    assert detached.record()["state"] == "running"


def test_a_notice_ends_the_attempt_as_interrupted_with_a_checkpoint_and_plugins_hear_of_it(
    detached: Detached, imds: Imds
) -> None:
    (detached.project / "runctl_plugins.py").write_text(TELLING)
    detached.write(SAVING)
    agent = detached.start(notices="aws", env={"AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.url})
    detached.ready()
    at = imds.interrupt(120)
    assert agent.wait(TIMEOUT_S) == 71, detached.console()
    record = detached.record()
    when = time.strftime("%H:%M:%S UTC", time.gmtime(at))
    assert (record["state"], record["exit_code"]) == ("interrupted", 71)
    assert record["end_reason"] == f"interrupted: AWS takes the instance back at {when}"
    status = detached.rundir.read_status()
    assert status is not None and len(status["checkpoints"]) == 1
    assert (detached.project / "told").read_text() == f"1 interruption {at}\n"
    assert [event["kind"] for event in detached.rundir.events() if event["event"] == "notice"] == ["interruption"]


@pytest.mark.slow
def test_a_notice_leaves_a_script_less_time_than_the_grace_if_the_host_goes_sooner(
    detached: Detached, imds: Imds
) -> None:
    detached.write(SAVING, grace_s=100)
    agent = detached.start(notices="aws", env={"AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.url})
    detached.ready()
    (detached.project / "stuck").touch()
    time.sleep(1)
    began = time.monotonic()
    imds.interrupt(20)  # of which 5 s are for the script to save, and then 10 s until it is killed
    assert agent.wait(TIMEOUT_S) == 71
    assert time.monotonic() - began < 25


def test_without_notices_wanted_nobody_asks(detached: Detached, imds: Imds) -> None:
    imds.interrupt(120)
    detached.write("import time\ntime.sleep(3)")
    assert detached.run(env={"AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.url}) == 0
    assert imds.issued == 0


def test_all_attempts_together_cost_no_more_than_the_limit(detached: Detached) -> None:
    (detached.project / "runctl_plugins.py").write_text(
        "def runctl_milestone(kind, about):\n    print('a plugin heard of', kind, about.get('share'), flush=True)\n"
    )
    detached.write(WAITING, max_usd=1.0)
    agent = detached.start(price_usd_per_hour=0.5, billed_from=later(-3600), notices="none")
    detached.ready()
    time.sleep(2)
    assert agent.poll() is None  # half of it is spent
    detached.rundir.ask_to_stop(1, "user")
    assert agent.wait(TIMEOUT_S) == 130
    assert detached.record()["billed_from"] is not None
    # Half a dollar before, and so much now that the limit is reached in a few seconds.
    code = detached.run(attempt=2, price_usd_per_hour=3600.0, billed_from=later(4))
    assert code == 124
    assert detached.record(2)["end_reason"] == "stopped at limits.max_usd"
    told = [(one["attempt"], one["share"]) for one in detached.rundir.events() if one["event"] == "budget"]
    assert told[0] == (1, 0.5)
    assert told[-1] == (2, 1.0)
    assert "a plugin heard of budget 1.0" in detached.console(2).decode()


@pytest.mark.slow
def test_who_is_given_more_time_goes_on(detached: Detached) -> None:
    detached.write("import time\nprint('up', flush=True)\ntime.sleep(14)", max_time_s=12.0)
    extension.ask(detached.rundir, 1, 600.0)
    assert detached.run() == 0
    assert "extended" in [one["event"] for one in detached.rundir.events()]
    beat = detached.rundir.heartbeat()
    assert beat is not None and beat["max_time_s"] == 600.0


def test_the_time_limit_of_a_rented_host_counts_from_the_attempts_begin(detached: Detached) -> None:
    detached.write(WAITING, max_time_s=3.0)
    began = time.monotonic()
    assert detached.run() == 124
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_a_training_with_nothing_to_do_is_stopped_and_one_with_work_is_not(detached: Detached) -> None:
    detached.write(
        "import time\nend = time.monotonic() + 6\nwhile time.monotonic() < end: pass\nopen('worked', 'w')\n" + WAITING,
        idle_s=3.0,
    )
    assert detached.run() == 124
    assert (detached.project / "worked").exists()
    assert "limits.idle" in detached.record()["end_reason"]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [pytest.param(0, marks=pytest.mark.soak), 2])
def test_the_ranks_run_under_the_interpreter_of_the_order(detached: Detached, ranks: int) -> None:
    detached.write("import os\nprint('under', os.environ['UNDER'])", ranks=ranks)
    python = detached.scratch / "python"
    python.write_text(f'#!/bin/sh\nUNDER=ours exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    assert detached.run(python=str(python)) == 0, detached.console()
    assert detached.console().count(b"under ours") == (ranks or 1)


def test_an_error_of_ours_reaches_those_who_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not pytest's own, which is no descriptor.
    monkeypatch.setattr("sys.stderr", open(2, "w", closefd=False))  # noqa: SIM115
    kept: list[bytes] = []

    class Kept(Stream):
        def append(self, data: bytes) -> None:
            kept.append(data)

        def flush(self) -> None:
            pass

        def close(self) -> None:
            kept.append(b"closed")

    with pytest.raises(ZeroDivisionError), StreamedOutput(Kept(), Troubles()):
        1 / 0  # noqa: B018
    assert b"ZeroDivisionError" in b"".join(kept)
    assert kept[-1] == b"closed"
