"""Whole launches whose run directory lies in a bucket."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runctl.rundir import RunDir
from runctl.spec import RunState

STEPS = """
import time
for step in range(1, {steps} + 1):
    print(f"step={{step}} loss={{1 / step}}", flush=True)
    time.sleep({pause_s})
"""
#: Prints more than the pipes to the agent hold, and the longest that it had to wait for that.
CHATTY = """
import time
longest = 0.0
for step in range(1, 181):
    began = time.monotonic()
    print(f"step={step} loss={1 / step}\\n" + 20000 * "x", flush=True)
    longest = max(longest, time.monotonic() - began)
    time.sleep(0.05)
open("longest", "w").write(str(longest))
"""
DDP = """
import os, runctl, torch.distributed as dist
dist.init_process_group("gloo")
print("rank", dist.get_rank(), flush=True)
runctl.log(step=1, loss=0.5)
dist.destroy_process_group()
"""
Start = Callable[..., "subprocess.Popen[str]"]


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=90)
    return process.returncode, out, err


@pytest.mark.slow
def test_a_run_and_its_second_attempt_leave_everything_in_the_bucket(s3, start: Start) -> None:
    root = f"s3://{s3.bucket()}/some/runs"
    script = STEPS.format(steps=3, pause_s=0.1)
    first = ended(start(f"run.root={root}", "run.id=one", script=script))
    assert first[0] == 0, first
    rundir = RunDir(f"{root}/one")
    segments = {name: rundir.store.names(name) for name in ("events.jsonl", "metrics.jsonl", "logs/a1/n0/r0.log")}
    assert segments["logs/a1/n0/r0.log"][0] == "000000"
    kept = {f"{name}/{one}": rundir.store.read(f"{name}/{one}") for name, found in segments.items() for one in found}

    again = (f"run.root={root}", "run.id=one", "output=json", "checkpoint.resume=never")
    code, out, err = ended(start(*again, script=script))
    assert code == 0, err
    assert "Traceback" not in err
    for name, data in kept.items():
        assert rundir.store.read(name) == data, f"{name} is written once"
    outcome = json.loads(out.splitlines()[-1])
    assert json.loads(rundir.store.read("outcome.json") or b"") == outcome
    assert (outcome["run_dir"], outcome["state"], outcome["step"]) == (f"{root}/one", "succeeded", 3)
    assert [attempt.number for attempt in rundir.attempts()] == [1, 2]
    assert all(attempt.state is RunState.SUCCEEDED for attempt in rundir.attempts())
    assert rundir.read_spec().run.id == "one"
    assert (rundir.read_status() or {})["state"] == "succeeded"
    metrics = [(entry["attempt"], entry["step"]) for entry in rundir.metrics()]
    assert metrics == [(2, 1), (2, 2), (2, 3)], "what the second attempt did again counts once"
    assert [event["event"] for event in rundir.events()] == 2 * [
        "submitted", "attempt_started", "attempt_ended", "run_ended"
    ]  # fmt: skip
    for attempt in (1, 2):
        assert b"".join(rundir.read_log(attempt, 0, "r0")).startswith(b"step=1 loss=1.0\n")
    rundir.lease.check()


@pytest.mark.slow
def test_a_ddp_run_keeps_the_log_of_each_rank(s3, start: Start) -> None:
    root = f"s3://{s3.bucket()}/runs"
    code, _, err = ended(start("trainer=ddp", "trainer.nproc_per_node=2", f"run.root={root}", "run.id=two", script=DDP))
    assert code == 0, err
    rundir = RunDir(f"{root}/two")
    for rank in (0, 1):
        assert f"rank {rank}\n".encode() in b"".join(rundir.read_log(1, 0, f"r{rank}"))
    assert [(entry["step"], entry["loss"]) for entry in rundir.metrics()] == [(1, 0.5)]


@pytest.mark.slow
def test_an_outage_in_the_middle_of_a_run_loses_nothing_and_holds_nothing_up(s3, start: Start, tmp_path: Path) -> None:
    root = f"s3://{s3.bucket()}/runs"
    # Its output is not shown: nobody reads it here while the storage is out.
    process = start(f"run.root={root}", "run.id=out", "output=json", "logs.show=none", script=CHATTY)
    rundir = RunDir(f"{root}/out")
    deadline = time.monotonic() + 30
    while not rundir.metrics():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    s3.shut()
    time.sleep(4)
    s3.open()
    code, out, err = ended(process)
    assert code == 0, err
    assert "tried again" in err
    assert json.loads(out.splitlines()[-1])["state"] == "succeeded"
    log = b"".join(rundir.read_log(1, 0, "r0"))
    assert [int(step) for step in re.findall(rb"step=(\d+)", log)] == list(range(1, 181))
    assert [entry["step"] for entry in rundir.metrics()] == list(range(1, 181))
    assert (rundir.heartbeat() or {})["attempt"] == 1
    assert float((tmp_path / "project/longest").read_text()) < 2.0, "the training waited for the storage"


def test_a_storage_that_cannot_be_reached_ends_the_launch_with_one_line(s3, start: Start) -> None:
    bucket = s3.bucket()
    s3.shut()
    began = time.monotonic()
    code, out, err = ended(start(f"run.root=s3://{bucket}/runs", script="print('ran')"))
    assert time.monotonic() - began < 30
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    assert "Could not connect to the endpoint" in err
    s3.open()


def test_a_bucket_that_is_not_there_ends_the_launch_with_one_line(s3, start: Start) -> None:
    code, out, err = ended(start("run.root=s3://no-such-bucket/runs", script="print('ran')"))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    assert "bucket does not exist" in err
    assert "run.root=" in err


def test_a_root_whose_package_is_missing_ends_the_launch_with_one_line(start: Start) -> None:
    code, out, err = ended(start("run.root=nosuch://bucket/runs", script="print('ran')"))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    assert "nosuch://" in err
