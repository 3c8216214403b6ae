"""How a training that fails ends: its exit code, its root cause, what is shown and what is kept."""

from __future__ import annotations

import time

import pytest
from real_launches import Launcher

ENDINGS = [
    pytest.param("sys.exit(7)", 7, "exited with code 7", id="exit"),
    pytest.param("raise ValueError('boom')", 1, "ValueError: boom", id="exception"),
    pytest.param("os.kill(os.getpid(), 9)", 137, "was killed by signal 9 (SIGKILL)", id="kill"),
    pytest.param("os._exit(5)", 5, "exited with code 5", id="silent", marks=pytest.mark.soak),
    pytest.param(
        "os.kill(os.getpid(), 11)", 139, "was killed by signal 11 (SIGSEGV)", id="segv", marks=pytest.mark.soak
    ),
]


@pytest.mark.parametrize(("ending", "code", "said"), ENDINGS)
def test_a_failing_script_gives_its_code(launcher: Launcher, ending: str, code: int, said: str) -> None:
    ended, launch = launcher.run(script=f"import os, sys\n{ending}")
    outcome = launch.json("outcome.json")
    assert (ended, outcome["exit_code"], outcome["state"]) == (code, code, "failed")
    assert outcome["reason"].startswith(f"rank 0 failed: {said}")


@pytest.mark.parametrize(("ending", "code", "said"), ENDINGS[:4])
def test_a_failing_rank_gives_its_code_and_not_torchruns(launcher: Launcher, ending: str, code: int, said: str) -> None:
    script = f"import os, sys, time\nif os.environ['RANK'] == '1':\n    {ending}\ntime.sleep(30)"
    ended, launch = launcher.run(ranks=2, script=script)
    assert ended == code
    assert launch.json("outcome.json")["reason"].startswith(f"rank 1 failed: {said}")


def test_the_root_cause_is_shown_last_and_once_and_not_the_peer_whose_collective_failed(launcher: Launcher) -> None:
    code, launch = launcher.run(
        ranks=2,
        script="""
        import torch.distributed as dist
        dist.init_process_group("gloo")
        try:
            if dist.get_rank() == 1:
                raise ValueError("the loss is gone")
            dist.barrier()
        finally:
            # The peer hears of it here, before this rank's exception is told.
            if dist.get_rank() == 1:
                dist.destroy_process_group()
        """,
    )
    assert code == 1
    shown = launch.out + launch.err
    assert shown.count("ValueError: the loss is gone") == 1
    assert shown.count("Traceback") == 1
    assert "Connection closed" not in shown
    *_, who, trace = launch.err.rpartition("runctl: rank 1 on ")
    assert who and trace.splitlines()[1].startswith("Traceback")
    assert trace.splitlines()[-2] == "ValueError: the loss is gone"
    assert trace.splitlines()[-1].startswith("runctl: failed with exit code 1 after")
    assert launch.log("r1").count(b"ValueError: the loss is gone") == 1
    assert b"RuntimeError" in launch.log("r0")
    failure = launch.json("attempts/1.json")["failure"]
    assert (failure["rank"], failure["message"]) == (1, "ValueError: the loss is gone")


def test_a_rank_killed_by_the_kernel_is_the_cause_and_its_last_words_are_shown(launcher: Launcher) -> None:
    code, launch = launcher.run(
        ranks=2,
        script="""
        import os
        import torch.distributed as dist
        dist.init_process_group("gloo")
        if dist.get_rank() == 1:
            print("about to allocate", flush=True)
            os.kill(os.getpid(), 9)
        dist.barrier()
        """,
    )
    assert code == 137
    assert "rank 1" in launch.json("outcome.json")["reason"] and "memory" in launch.json("outcome.json")["reason"]
    assert "    about to allocate" in launch.err
    assert "Traceback" not in launch.err


def test_a_traceback_stands_behind_all_that_its_rank_wrote(launcher: Launcher) -> None:
    code, launch = launcher.run(
        script="""
        import sys
        for i in range(20000):
            print("line", i)
        sys.stdout.write("no end")
        raise ValueError("boom")
        """
    )
    assert code == 1
    lines = launch.log("r0").decode().splitlines()
    assert lines[19999:20002] == ["line 19999", "no end", "Traceback (most recent call last):"]
    assert lines[-1] == "ValueError: boom"


@pytest.mark.slow
def test_a_script_that_succeeds_on_its_restart_succeeds(launcher: Launcher) -> None:
    code, launch = launcher.run(
        "trainer.max_restarts=1",
        ranks=2,
        script="""
        import os
        import torch, torch.distributed as dist
        dist.init_process_group("gloo")
        restart, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], dist.get_rank()
        print(f"try {restart} of rank {rank}", flush=True)
        if restart == "0" and rank == 1:
            raise ValueError("only once")
        dist.all_reduce(torch.ones(1))
        dist.destroy_process_group()
        """,
    )
    assert code == 0, launch.err
    log = launch.log("r1").decode()
    order = [log.index(text) for text in ("try 0", "ValueError: only once", "--- restart 1 ---", "try 1")]
    assert order == sorted(order)
    assert "rank 1: ValueError: only once; restart 1 of 1" in launch.err
    assert [event["restart"] for event in launch.lines("events.jsonl") if event["event"] == "restarted"] == [1]
    assert launch.json("outcome.json")["state"] == "succeeded"


@pytest.mark.slow
def test_a_restart_goes_on_from_what_was_saved_before_it(launcher: Launcher) -> None:
    code, launch = launcher.run(
        "trainer.max_restarts=1",
        "checkpoint.every=5steps",
        ranks=2,
        timeout_s=150,
        script="""
        import os, pathlib, time
        import torch, runctl
        ck = runctl.attach(model=torch.nn.Linear(1, 1))
        first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        saved = pathlib.Path(os.environ["RUNCTL_RUN_DIR"], "checkpoints")
        print("begins at", ck.step, flush=True)
        for step in ck.steps(10**6 if first else ck.step + 1):
            time.sleep(0.02)
            if first and os.environ["RANK"] == "1" and any(saved.glob("step-*")):
                raise ValueError("only once")
        """,
    )
    assert code == 0, launch.err
    begun = [[line for line in launch.log(f"r{rank}").splitlines() if b"begins" in line] for rank in range(2)]
    assert begun[0] == begun[1]
    assert begun[0][0] == b"begins at 0"
    assert int(begun[0][1].split()[-1]) >= 5


def test_only_the_last_restart_is_judged(launcher: Launcher) -> None:
    code, launch = launcher.run(
        "trainer.max_restarts=1",
        ranks=2,
        script="""
        import os, time
        if os.environ["RANK"] == "1":
            if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
                raise ValueError("the first time")
            os._exit(9)
        time.sleep(30)
        """,
    )
    assert code == 9
    assert launch.json("outcome.json")["reason"] == "rank 1 failed: exited with code 9"


def test_torchruns_own_failure_shows_what_it_said(launcher: Launcher) -> None:
    code, launch = launcher.run(ranks=2, script="pass", env={"TORCH_DISTRIBUTED_DEBUG": "NONSENSE"})
    assert code != 0
    assert "torchrun" in launch.json("outcome.json")["reason"]
    assert "TORCH_DISTRIBUTED_DEBUG" in launch.err or "NONSENSE" in launch.err


@pytest.mark.slow
def test_a_peer_that_ignores_its_end_holds_a_failed_training_up_for_ten_seconds_and_no_more(
    launcher: Launcher,
) -> None:
    launch = launcher.start(
        ranks=2,
        script="""
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open("ready-" + os.environ["RANK"], "w")
        if os.environ["RANK"] == "1":
            while not os.path.exists("ready-0"):
                time.sleep(0.01)
            raise ValueError("boom")
        time.sleep(60)
        """,
    )
    launch.ready("ready-0", "ready-1")
    began = time.monotonic()
    assert launch.end() == 1
    assert 8 < time.monotonic() - began < 16  # torchrun alone takes 30 s
    assert launch.json("outcome.json")["reason"] == "rank 1 failed: ValueError: boom"


def test_such_a_peer_gets_no_longer_than_the_whole_of_a_stop_may_take(launcher: Launcher) -> None:
    """Where a machine is taken away within 5 s, torchrun gives no 10 s of them away."""
    code, launch = launcher.run(
        "checkpoint.grace=1500ms",
        ranks=2,
        script="""
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open("ready-" + os.environ["RANK"], "w")
        if os.environ["RANK"] == "1":
            while not os.path.exists("ready-0"):
                time.sleep(0.01)
            print("torchrun's", os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"], flush=True)
            raise ValueError("boom")
        end = time.monotonic() + 60
        while time.monotonic() < end:
            open("lived", "a").write("0.1 s\\n")
            time.sleep(0.1)
        """,
    )
    assert code == 1
    assert b"torchrun's 2\n" in launch.log("r1"), "torchrun takes whole seconds"
    assert len((launcher.project / "lived").read_text().splitlines()) < 80, "it ended before 8 s had gone by"
    assert launch.json("outcome.json")["reason"] == "rank 1 failed: ValueError: boom"


def test_the_users_own_time_for_torchrun_stays(launcher: Launcher) -> None:
    code, launch = launcher.run(
        ranks=2,
        script="import os\nprint('torchrun', os.environ['TORCH_ELASTIC_SHUTDOWN_TIMEOUT'], flush=True)",
        env={"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "3"},
    )
    assert code == 0
    assert launch.log("r0") == b"torchrun 3\n"
