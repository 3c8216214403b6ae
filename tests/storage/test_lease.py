"""The lease: one process at a time carries a run out."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from runctl import processes
from runctl.errors import LeaseHeld
from runctl.rundir import RunDir

ROUNDS = 60


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    return RunDir(str(tmp_path / "run"))


def test_a_living_holder_is_named(rundir: RunDir) -> None:
    rundir.lease.take(os.getpid())
    with pytest.raises(LeaseHeld, match=f"run run is alive: process {os.getpid()} on .*another run.id"):
        rundir.lease.take(os.getpid())
    rundir.lease.drop()
    rundir.lease.check()


def test_a_dead_holders_lease_is_taken_over(rundir: RunDir) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    rundir.lease.take(sleeper.pid)
    with pytest.raises(LeaseHeld):
        rundir.lease.check()
    sleeper.kill()
    sleeper.wait()
    rundir.lease.take(os.getpid())


def test_a_holder_that_was_gone_before_it_held_anything_is_none(rundir: RunDir) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", ""])
    sleeper.wait()
    rundir.lease.take(sleeper.pid)
    lease = json.loads(rundir.store.read("lease.json") or b"")
    assert lease["started_at"] is None
    rundir.store.write("lease.json", json.dumps({**lease, "pid": os.getpid()}).encode())
    assert not rundir.lease.is_held(), "its number may be another process's by now"


def test_a_pid_used_again_by_another_process_is_no_holder(rundir: RunDir) -> None:
    rundir.lease.take(os.getpid())
    lease = json.loads(rundir.store.read("lease.json") or b"")
    other = {"started_at": lease["started_at"] - 100, "birth": lease["birth"] and f"{lease['birth']}0"}
    rundir.store.write("lease.json", json.dumps({**lease, **other}).encode())
    rundir.lease.check()


def test_a_lease_of_an_earlier_version_holds_by_when_its_holder_started(rundir: RunDir) -> None:
    rundir.lease.take(os.getpid())
    lease = json.loads(rundir.store.read("lease.json") or b"")
    del lease["birth"]
    rundir.store.write("lease.json", json.dumps(lease).encode())
    assert rundir.lease.is_held()
    rundir.store.write("lease.json", json.dumps({**lease, "started_at": lease["started_at"] - 100}).encode())
    assert not rundir.lease.is_held()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the clock is all there is to go by")
def test_a_step_of_the_clock_frees_no_living_holders_lease(rundir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    rundir.lease.take(os.getpid())
    started_at = processes.started_at
    # As a process that starts later reckons it: the kernel's own start, which that counts from, moves with the clock.
    monkeypatch.setattr(processes, "started_at", lambda pid: (at := started_at(pid)) and at + 3600)
    assert rundir.lease.is_held()
    with pytest.raises(LeaseHeld):
        rundir.lease.take(os.getpid())
    lease = json.loads(rundir.store.read("lease.json") or b"")
    rundir.store.write("lease.json", json.dumps({**lease, "birth": f"another-{lease['birth']}"}).encode())
    assert not rundir.lease.is_held(), "after the system was started anew"


def test_a_holder_on_another_host_lives_by_its_heartbeat(rundir: RunDir) -> None:
    def lease_of_an_hour_ago(**fields: object) -> None:
        lease = {"host": f"not-{socket.gethostname()}", "pid": 1, "started_at": 1.0, "at": time.time() - 3600}
        rundir.store.write("lease.json", json.dumps({**lease, **fields}).encode())

    lease_of_an_hour_ago()
    rundir.lease.check()
    rundir.beat(1, "there", 1)
    with pytest.raises(LeaseHeld):
        rundir.lease.check()
    rundir.store.write("heartbeat.json", json.dumps({"at": time.time() - 3600}).encode())
    rundir.lease.check()
    lease_of_an_hour_ago(at=time.time())
    with pytest.raises(LeaseHeld):
        rundir.lease.check()


def test_a_holder_hands_its_lease_to_its_heir_alone(rundir: RunDir) -> None:
    parent = os.getppid()
    rundir.lease.take(parent)
    with pytest.raises(LeaseHeld):
        rundir.lease.take(os.getpid(), heir_of=os.getpid())
    rundir.lease.take(os.getpid(), heir_of=parent)
    with pytest.raises(LeaseHeld, match=f"process {os.getpid()}"):
        rundir.lease.take(parent, heir_of=parent)


def test_of_two_racing_processes_exactly_one_gets_the_lease(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(2)
    won = context.Queue()
    racers = [context.Process(target=_race, args=(str(tmp_path), together, won)) for _ in range(2)]
    for racer in racers:
        racer.start()
    winners = [number for _ in racers for number in won.get(timeout=60)]
    for racer in racers:
        racer.join(timeout=30)
    assert sorted(winners) == list(range(ROUNDS))
    left = {path.name for path in tmp_path.glob("*/*")}
    assert left == {"lease.json"}, "no lock file stays behind"


def _race(root: str, together: Barrier, won: multiprocessing.Queue) -> None:
    processes.started_at(os.getpid())  # psutil is imported before the race
    mine = []
    for number in range(ROUNDS):
        rundir = RunDir(f"{root}/{number}")
        together.wait(timeout=30)
        try:
            rundir.lease.take(os.getpid())
            mine.append(number)
        except LeaseHeld:
            pass
    won.put(mine)
    together.wait(timeout=30)
