"""Keeper and agent together, as a rented host runs them: nothing between them and the launcher but object storage."""

from __future__ import annotations

import io
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from imds import Imds
from rented import TIMEOUT_S, Host, bundle
from waiting import wait_until

import runctl
from runctl.rundir import RunDir
from runctl.spec import CheckpointPolicy, LaunchSpec, Program, RunIdentity

PACKAGE = Path(runctl.__file__).parent
#: Says which package the agent is made of.
PLUGIN = """
import runctl
def runctl_before_train():
    print("the package is", runctl.__file__, flush=True)
"""
TRAIN = """
import time, torch, runctl
checkpointer = runctl.attach(model=torch.nn.Linear(4, 4))
for step in checkpointer.steps(1_000_000):
    if step == 3:
        print("it trains", flush=True)
    time.sleep(0.05)
"""


def sent_wheel() -> bytes:
    """This package as it is sent to a host."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as wheel:
        for path in PACKAGE.rglob("*.py"):
            wheel.write(path, f"runctl/{path.relative_to(PACKAGE)}")
        wheel.writestr("runctl-0.1.0.dist-info/METADATA", "Name: runctl\nRequires-Dist: torch\n\n")
    return out.getvalue()


class Rented:
    """A rented host with a run in a bucket."""

    def __init__(self, host: Host, s3: Any) -> None:
        self.host = host
        self.imds = Imds()
        root = f"s3://{s3.bucket()}/runs"
        self.rundir = RunDir(f"{root}/run")
        self.rundir.write_spec(
            LaunchSpec(RunIdentity("run", "run", root), Program("train.py", None), checkpoint=CheckpointPolicy())
        )
        scratch = host.folder / "t"
        scratch.mkdir()
        host.env |= {**s3.env, "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.imds.url, "TMPDIR": str(scratch)}

    def start(self, script: str) -> None:
        host = self.host
        files = [
            host.files.add("project.tar.gz", bundle(train=script, runctl_plugins=PLUGIN), "project"),
            host.files.add("runctl-0.1.0-py3-none-any.whl", sent_wheel()),
        ]
        order = {
            "run_dir": self.rundir.url, "attempt": 1, "platform": "aws", "market": "spot", "attached": False,
            "price_usd_per_hour": 0.4, "billed_from": time.time() - 60, "notices": "aws",
        }  # fmt: skip
        host.describe(files=files, order=order, agent_python=sys.executable)
        assert host.keep("start").wait(TIMEOUT_S) == 0

    def console(self) -> str:
        segments: list[bytes] = []
        while (segment := self.rundir.console_segment(1, len(segments))) is not None:
            segments.append(segment)
        return b"".join(segments).decode()

    def state(self) -> str:
        return str((self.rundir.read_status() or {}).get("state"))


@pytest.fixture
def rented(host: Host, s3: Any) -> Iterator[Rented]:
    rented = Rented(host, s3)
    yield rented
    rented.imds.shut()


def test_a_training_on_a_rented_host_runs_with_what_was_sent_and_the_host_ends(rented: Rented) -> None:
    rented.start("print('hello from there')")
    wait_until(lambda: rented.host.shutdowns, TIMEOUT_S, "the host ends")
    assert rented.state() == "succeeded", rented.host.log + rented.console()
    assert "hello from there\n" in rented.console()
    assert f"the package is {rented.host.home / 'runctl' / 'runctl' / '__init__.py'}" in rented.console()
    attempt = rented.rundir.read_attempt(1)
    assert attempt is not None and (attempt.market, attempt.price_usd_per_hour) == ("spot", 0.4)
    started = next(event for event in rented.rundir.events() if event["event"] == "attempt_started")
    assert (started["instance"]["instance_id"], started["instance"]["market"]) == ("i-0123456789abcdef0", "spot")
    assert rented.host.ended()["agent_exit_code"] == 0
    assert rented.host.shutdowns == ["-P now"]


def test_a_training_that_fails_ends_the_host_and_is_told_in_the_run_directory_alone(rented: Rented) -> None:
    rented.start("raise ValueError('no such luck')")
    wait_until(lambda: rented.host.shutdowns, TIMEOUT_S, "the host ends")
    assert rented.state() == "failed"
    attempt = rented.rundir.read_attempt(1)
    assert attempt is not None and attempt.failure is not None
    assert attempt.failure.message == "ValueError: no such luck"
    assert b"no such luck" in b"".join(rented.rundir.read_log(1, 0, "r0"))
    assert rented.host.files.put == {}


@pytest.mark.slow
def test_a_stop_that_the_launcher_asked_for_saves_and_ends_the_host(rented: Rented) -> None:
    rented.start(TRAIN)
    wait_until(lambda: "it trains" in rented.console(), TIMEOUT_S, "it trains")
    rented.rundir.ask_to_stop(1, "user")
    wait_until(lambda: rented.host.shutdowns, TIMEOUT_S, "the host ends")
    assert rented.state() == "stopped"
    status = rented.rundir.read_status()
    assert status is not None and len(status["checkpoints"]) == 1
    assert rented.host.ended()["agent_exit_code"] == 130


@pytest.mark.slow
def test_a_host_that_is_taken_back_saves_in_time(rented: Rented) -> None:
    rented.start(TRAIN)
    wait_until(lambda: "it trains" in rented.console(), TIMEOUT_S, "it trains")
    noticed_at = time.monotonic()
    rented.imds.interrupt(120)
    wait_until(lambda: rented.host.shutdowns, TIMEOUT_S, "the host ends")
    assert time.monotonic() - noticed_at < 40
    assert rented.state() == "interrupted"
    status = rented.rundir.read_status()
    assert status is not None and len(status["checkpoints"]) == 1
    assert rented.host.ended()["agent_exit_code"] == 71
    assert rented.host.shutdowns == ["-P now"]
