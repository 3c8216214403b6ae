"""A script that knows nothing of us is killed, stopped, moved to another folder, and goes on from what it had saved."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest
from real_launches import Launch, Launcher
from waiting import wait_until

from runctl.checkpoint import manifest as manifests
from runctl.checkpoint import watch
from runctl.checkpoint.catalog import Catalog

STEPS = 60
FLAG = ("checkpoint.watch=out/*.pt", "checkpoint.resume_flag=--resume")
#: Overwrites one file in place, slowly, as a big state on a busy disk does.
SCRIPT = """
    import argparse, hashlib, os, time
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("--resume")
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()

    class Slow:
        def __init__(self, path):
            self.file = open(path, "wb")
        def write(self, data):
            time.sleep(float(os.environ.get("WRITE_S", "0")))
            return self.file.write(data)
        def flush(self):
            self.file.flush()

    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(32, 32) for _ in range(8)))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    step = 0
    print("told:", args.resume, os.environ.get("RUNCTL_RESUME_FROM"), flush=True)
    if args.resume:
        state = torch.load(args.resume)
        model.load_state_dict(state["model"]), optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        step = state["step"]
    os.makedirs("out", exist_ok=True)
    while step < args.steps:
        loss = (model(torch.randn(16, 32)) ** 2).mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        step += 1
        print(f"step={step} loss={loss.item():.9f}", flush=True)
        time.sleep(float(os.environ.get("STEP_S", "0")))
        if step % 4 == 0:
            file = Slow("out/last.pt")
            state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "random": torch.get_rng_state()}, file)
            file.file.close()
    weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
    open("digest", "w").write(hashlib.sha256(weights).hexdigest())
"""


def kill_tree(launch: Launch) -> None:
    """Kill the launcher, the agent and all below them, none of them with time to do anything."""
    family = [launch.process.pid, launch.agent()]
    for pid in tuple(family):
        with contextlib.suppress(psutil.Error):
            family += [child.pid for child in psutil.Process(pid).children(recursive=True)]
    for pid in {*family, *launch.of_this_run()}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)  # nobody notices that another has gone
    for pid in {*family, *launch.of_this_run()}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    launch.end()
    wait_until(lambda: not launch.of_this_run(), 20, "nothing is left")


def kept(launch: Launch) -> list[int]:
    return Catalog(launch.run_dir / "checkpoints").steps()


def is_saving(launch: Launch) -> bool:
    """Whether the file is shorter than a whole one just now, which it is only inside torch.save."""
    path = launch.project / "out/last.pt"
    return path.exists() and watch.structure(path) is False


def kill_inside_a_save(launch: Launch, chance: random.Random) -> None:
    wait_until(lambda: "step=" in launch.out, 60, "it trains")
    time.sleep(chance.uniform(0.5, 2))
    wait_until(lambda: is_saving(launch), 20, "it saves")
    time.sleep(chance.uniform(0, 0.1))
    kill_tree(launch)


@pytest.mark.soak
def test_killed_inside_torch_save_over_and_over_it_ends_as_if_undisturbed(launcher: Launcher) -> None:
    code, launch = launcher.run(*FLAG, script=SCRIPT, run_id="undisturbed")
    assert code == 0, launch.err
    expected = (launcher.project / "digest").read_text()
    assert "told: None None" in launch.out
    (launcher.project / "digest").unlink()
    shutil.rmtree(launcher.project / "out")
    chance, torn, resumed = random.Random(11), 0, 0
    for _ in range(5):
        launch = launcher.start(*FLAG, script=SCRIPT, run_id="killed", env={"STEP_S": "0.1", "WRITE_S": "0.001"})
        kill_inside_a_save(launch, chance)
        torn += watch.structure(launcher.project / "out/last.pt") is False
        resumed += "resuming from step" in launch.err
        for step in kept(launch):
            manifests.verify(launch.run_dir / "checkpoints" / manifests.folder_name(step))
    assert torn >= 2, "files were torn at all"
    assert resumed >= 3
    last = launcher.start(*FLAG, script=SCRIPT, run_id="killed")
    assert last.end() == 0, last.err
    assert last.json("outcome.json")["resumed_from_step"] > 0
    assert f"told: {launcher.project}/out/last.pt {launcher.project}/out/last.pt" in last.out
    assert (launcher.project / "digest").read_text() == expected


@pytest.mark.soak
def test_it_goes_on_in_another_folder(launcher: Launcher, tmp_path: Path) -> None:
    root = f"run.root={tmp_path}/elsewhere"
    words = (*FLAG, root, "checkpoint.resume_argv=['--steps=60']")
    launch = launcher.start(*words, script=SCRIPT, run_id="moved", env={"STEP_S": "0.1"})
    catalog = Catalog(tmp_path / "elsewhere/moved/checkpoints")
    wait_until(lambda: len(catalog.steps()) >= 2, 60, "two checkpoints")
    launch.process.send_signal(signal.SIGTERM)
    assert launch.end() == 143
    told = launch.out.count("step=")
    other = tmp_path / "copy"
    (other / "out").mkdir(parents=True)
    second = Launcher(other, launcher.scratch)
    (other / "out/last.pt").write_bytes(b"something else")
    again = second.start(*words, script=SCRIPT, run_id="moved")
    assert again.end() == 0, again.err
    assert f"told: {other}/out/last.pt {other}/out/last.pt" in again.out
    assert "is not what checkpoint" in again.err
    assert again.out.count("step=") <= STEPS - told + 4, "at most the steps since the last save are done again"
    second.clean_up()


@pytest.mark.soak
def test_it_goes_on_on_another_host_from_a_bucket(launcher: Launcher, s3, tmp_path: Path) -> None:
    words = (*FLAG, f"run.root=s3://{s3.bucket()}/runs")
    launch = launcher.start(*words, script=SCRIPT, run_id="bucket", env={"STEP_S": "0.1"})
    wait_until(lambda: launch.out.count("step=") >= 12, 60, "two checkpoints")
    launch.process.send_signal(signal.SIGTERM)
    assert launch.end() == 143, launch.err
    for base in launcher.scratch.glob("runctl-*"):
        shutil.rmtree(base)
    other = tmp_path / "copy"
    other.mkdir()
    again = Launcher(other, launcher.scratch).start(*words, script=SCRIPT, run_id="bucket")
    assert again.end() == 0, again.err
    assert "restored in" in again.err
    assert f"told: {other}/out/last.pt {other}/out/last.pt" in again.out
    assert again.out.count("step=") <= STEPS - 8


def test_what_is_written_last_is_kept_before_a_failure_ends_it(launcher: Launcher) -> None:
    script = """
        import os, zipfile  # what torch.save writes, without its import
        for step in (10, 20):
            with zipfile.ZipFile(f"model-{step}.pt", "w") as archive:
                archive.writestr("step", str(step))
        open("model-30.pt", "wb").write(open("model-20.pt", "rb").read()[:-30])
        print("resume from", os.environ.get("RUNCTL_RESUME_FROM"))
        raise ValueError("no more")
    """
    code, launch = launcher.run("checkpoint.watch=model-*.pt", script=script, run_id="failing")
    assert code == 1
    assert launch.json("outcome.json")["checkpoints"] == ["step-000010", "step-000020"]
    _, again = launcher.run("checkpoint.watch=model-*.pt", script=script, run_id="failing")
    assert f"resume from {launcher.project}/model-20.pt" in again.out
    assert again.json("outcome.json")["resumed_from_step"] == 20
    _, anew = launcher.run("checkpoint.watch=model-*.pt", "checkpoint.resume=never", script=script, run_id="failing")
    assert "resume from None" in anew.out


def test_what_is_written_at_a_stop_is_kept(launcher: Launcher) -> None:
    launch = launcher.start(
        "checkpoint.watch=out/*.pt",
        script="""
            import os, signal, sys, time, torch
            os.mkdir("out")
            def stop(*_):
                torch.save({"weights": torch.zeros(1000)}, "out/stopped.pt")
                sys.exit(0)
            signal.signal(signal.SIGTERM, stop)
            print("step=7", flush=True)
            time.sleep(0.5)
            open("ready", "w")
            time.sleep(60)
        """,
    )
    launch.ready("ready")
    launch.process.send_signal(signal.SIGTERM)
    assert launch.end() == 143
    assert launch.json("outcome.json")["checkpoints"] == ["step-000007"]


FOLDERS = """
    import glob, os, re, sys, time
    import torch, torch.distributed as dist

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    begin = 0
    if "--init=resume" in sys.argv:  # as Transformers: whatever has the highest number
        newest = max(glob.glob("ckpt/checkpoint-*"), key=lambda path: int(path.rpartition("-")[2]))
        begin = torch.load(f"{newest}/model.pt")["step"]
        assert torch.load(f"{newest}/rng_state_{rank}.pt")["rank"] == rank
    if rank == 0:
        print("begin", begin, os.environ.get("RUNCTL_RESUME_FROM"), flush=True)
    for step in range(begin + 1, 31):
        time.sleep(0.05)
        if step % 5 == 0:
            folder = f"ckpt/checkpoint-{step}"
            os.makedirs(folder, exist_ok=True)
            if rank == 0:
                torch.save({"step": step}, f"{folder}/model.pt")
                if step == 15 and begin == 0:
                    time.sleep(4)
                    os.kill(os.getpid(), 9)
            dist.barrier()
            torch.save({"rank": rank}, f"{folder}/rng_state_{rank}.pt")
            dist.barrier()
            if rank == 0 and begin == 0 and step < 15:
                time.sleep(2.6)
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_a_folder_whose_writer_died_is_put_aside_and_the_one_before_resumed(launcher: Launcher) -> None:
    words = ("checkpoint.watch=ckpt/checkpoint-*", "checkpoint.resume_argv=[--init=resume]")
    launch = launcher.start(*words, script=FOLDERS, ranks=2, run_id="folders")
    assert launch.end() != 0
    assert kept(launch) == [5, 10], "the one of step 15 has no rng_state"
    again = launcher.start(*words, script=FOLDERS, ranks=2, run_id="folders")
    assert again.end() == 0, again.err
    assert f"begin 10 {launcher.project}/ckpt/checkpoint-10" in again.out
    assert "checkpoint-15 is incomplete: renamed to bad-checkpoint-15" in again.err
    assert (launcher.project / "ckpt/bad-checkpoint-15").is_dir()
    assert kept(again) == [20, 25, 30]
