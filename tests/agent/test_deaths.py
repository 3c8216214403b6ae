"""`kill -9` of any process of a launch, or of two together: nothing stays behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time

import psutil
import pytest
from real_launches import Launch, Launcher
from waiting import wait_until

from runctl.rundir import RunDir

GRACE_S = 30

#: Two ranks in a training; one has data loader workers, the other a child in a session of its own.
TRAINING = """
    import os, subprocess, time
    import torch, torch.distributed as dist
    from torch.utils.data import DataLoader

    if __name__ == "__main__":
        dist.init_process_group("gloo")
        rank = dist.get_rank()
        if rank == 0:
            batches = iter(DataLoader(range(10**6), num_workers=1))
            next(batches)
        else:
            subprocess.Popen(["sleep", "300"], start_new_session=True)
        step = 0
        while True:
            dist.all_reduce(torch.ones(1))
            step += 1
            if rank == 0:
                print(f"step={step} loss=0.5", flush=True)
            if step == 3:
                open(f"ready-{rank}", "w")
            time.sleep(0.05)
"""
PLAIN = """
    import subprocess, time
    subprocess.Popen(["sleep", "300"], start_new_session=True)
    open("ready-0", "w")
    time.sleep(300)
"""


def kill(launch: Launch, *names: str) -> list[int]:
    """Kill the named processes at once; returns the agent and torchrun if there is one, which must all go."""
    ours = {"agent": launch.agent()}
    with contextlib.suppress(StopIteration):
        ours["torchrun"] = launch.torchrun()
    for name in names:
        os.kill({"launcher": launch.process.pid, **ours}[name], signal.SIGKILL)
    return list(ours.values())


def check_that_all_go(launch: Launch, ours: list[int]) -> None:
    """Every process of the run ends soon; or else it is said which one does not."""

    def lives(pid: int) -> bool:
        with contextlib.suppress(psutil.Error):
            return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
        return False

    deadline = time.monotonic() + GRACE_S
    while left := [*launch.of_this_run(), *filter(lives, ours)]:
        if time.monotonic() > deadline:
            told = [psutil.Process(pid).as_dict(["pid", "ppid", "status", "cmdline"]) for pid in left]
            pytest.fail(f"left after {GRACE_S} s: {told}")
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        ("launcher",),
        ("agent",),
        ("torchrun",),
        pytest.param(("agent", "torchrun"), marks=pytest.mark.soak),
        ("launcher", "agent"),
    ],
    ids="+".join,
)
def test_nothing_of_a_training_stays_behind(launcher: Launcher, names: tuple[str, ...]) -> None:
    launch = launcher.start(ranks=2, script=TRAINING)
    launch.ready("ready-0", "ready-1")
    assert len(launch.of_this_run()) >= 4
    ours = kill(launch, *names)
    check_that_all_go(launch, ours)
    code = launch.end(GRACE_S)
    if "launcher" in names:
        assert code == -signal.SIGKILL
    elif "agent" in names:
        assert code == 71
        assert launch.json("outcome.json")["state"] == "interrupted"
        assert launch.json("attempts/1.json")["state"] == "interrupted"
    else:
        # The agent saw it and could tell: what the kernel does to the hungriest process.
        assert code == 137
        assert "torchrun was killed by signal 9" in launch.json("outcome.json")["reason"]
    if names == ("launcher",):
        assert launch.json("status.json")["state"] == "stopped"
        assert launch.host_dirs() == []


@pytest.mark.parametrize("names", [("launcher",), ("agent",)], ids="+".join)
def test_nothing_of_a_plain_script_stays_behind(launcher: Launcher, names: tuple[str, ...]) -> None:
    launch = launcher.start(script=PLAIN)
    launch.ready("ready-0")
    ours = kill(launch, *names)
    check_that_all_go(launch, ours)
    assert launch.end(GRACE_S) == (71 if "agent" in names else -signal.SIGKILL)


@pytest.mark.slow
def test_a_run_directory_can_be_read_after_its_agent_was_killed_and_the_run_goes_on_as_attempt_two(
    launcher: Launcher,
) -> None:
    launch = launcher.start(ranks=2, script=TRAINING)
    launch.ready("ready-0", "ready-1")
    time.sleep(1)  # metrics and a heartbeat are on their way
    for pid in [launch.process.pid, launch.agent(), *launch.of_this_run()]:
        os.kill(pid, signal.SIGKILL)
    launch.end()
    found = [path for path in launch.run_dir.rglob("*.json") if not path.name.startswith(".tmp-")]
    assert {path.name for path in found} >= {"spec.json", "status.json", "heartbeat.json", "lease.json", "1.json"}
    for path in found:
        json.loads(path.read_text())
    assert len(RunDir(str(launch.run_dir)).metrics()) >= 3

    (launch.run_dir / "attempts" / ".tmp-7.json-abcd").write_text('{"number": ')  # as a killed writer leaves it
    code, again = launcher.run(run_id=launch.run_id, script="print('again')")
    assert code == 0, again.err
    assert again.json("attempts/2.json")["state"] == "succeeded"
    assert again.log("r0", attempt=2) == b"again\n"
    assert not (again.run_dir / "lease.json").exists()
    assert [path for path in again.run_dir.rglob("*") if path.name.startswith(".tmp-")] == []
    assert again.host_dirs() == []


def test_orphans_of_a_long_training_do_not_pile_up_as_zombies(launcher: Launcher) -> None:
    launch = launcher.start(
        script="""
        import os, time
        for _ in range(20):
            if os.fork() == 0:
                if os.fork() == 0:
                    time.sleep(0.1)
                os._exit(0)
            os.wait()
        time.sleep(0.5)
        open("ready", "w")
        time.sleep(60)
        """
    )
    launch.ready("ready")
    agent = psutil.Process(launch.agent())
    wait_until(lambda: len(agent.children()) == 1, 3, "the orphans that ended are collected")
