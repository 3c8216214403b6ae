"""`checkpoint.grace` bounds a stop altogether: ranks that do not end, the last checkpoint, its upload."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest
import s3fs
from faulty import Proxy
from real_launches import Launch, Launcher
from waiting import wait_until

from runctl.agent.stop import Stop, kill_after_s
from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.remote import RemoteCatalog
from runctl.rundir import RunDir

GRACE_S = 6.0
#: For processes to end and for the launcher's own last words: 1.5 s at most on a machine with nothing else to do.
SLACK_S = 5.0
DEAF = """
    import signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open("ready", "w")
    time.sleep(120)
"""
#: It polls for stops, and does not come to the next step.
STUCK = """
    import signal, time, torch, runctl
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ck = runctl.attach(model=torch.nn.Linear(2, 2))
    for step in ck.steps(100):
        if step == 3:
            open("ready", "w")
            time.sleep(120)
        time.sleep(0.01)
"""
#: It ends when asked, and leaves a checkpoint that takes long to arrive.
LARGE = """
    import time, torch, runctl
    ck = runctl.attach(model=torch.nn.Linear(2_000, 2_000))
    for step in ck.steps(1000):
        time.sleep(0.05)
        if step == 3:
            open("ready", "w")
"""


def stop_s(launch: Launch) -> float:
    """Seconds from a stop request to the launch's end."""
    launch.ready("ready")
    began = time.monotonic()
    launch.process.send_signal(signal.SIGTERM)
    launch.end()
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [pytest.param(0, marks=pytest.mark.soak), 2])
@pytest.mark.parametrize("script", [DEAF, STUCK], ids=["deaf", "stuck"])
def test_ranks_that_do_not_end_are_gone_in_time(launcher: Launcher, ranks: int, script: str) -> None:
    launch = launcher.start(f"checkpoint.grace={GRACE_S:g}s", ranks=ranks, script=script)
    took_s = stop_s(launch)
    assert GRACE_S / 2 < took_s < GRACE_S + SLACK_S
    assert launch.json("outcome.json")["state"] == "stopped"
    assert launch.of_this_run() == []


@pytest.fixture
def proxy(s3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    proxy = Proxy(s3.port, seed=1)
    yield proxy
    proxy.close()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.slow
def test_a_slow_upload_takes_no_longer(s3, proxy: Proxy, launcher: Launcher) -> None:
    root = f"s3://{s3.bucket()}/runs"
    proxy.choose = lambda method, path, body: "stall" if method == "PUT" and "data.pt" in path else None
    launch = launcher.start(
        f"run.root={root}", f"checkpoint.grace={GRACE_S:g}s", "checkpoint.every=4steps", script=LARGE, run_id="one",
        env={"AWS_ENDPOINT_URL": proxy.url},
    )  # fmt: skip
    wait_until(lambda: proxy.done["stall"], 60, "an upload is under way")
    took_s = stop_s(launch)
    assert launch.process.returncode == 143, launch.err
    assert GRACE_S / 2 < took_s < GRACE_S + SLACK_S
    assert "uploading checkpoint step" in launch.err
    assert "it stays on this host" in launch.err
    assert RemoteCatalog(RunDir(f"{root}/one").store).steps() == []
    kept = wait_until(lambda: list(launcher.scratch.glob("runctl-*/.checkpoints/*")), 5, "the checkpoint is here")
    assert Catalog(kept[0]).steps() != []


@pytest.mark.parametrize("ranks", [0, pytest.param(2, marks=pytest.mark.soak)])
def test_it_does_not_bound_the_last_save_of_a_training_that_comes_to_its_end(launcher: Launcher, ranks: int) -> None:
    code, launch = launcher.run("checkpoint.grace=10ms", script=LARGE.replace("1000", "5"), run_id="one", ranks=ranks)
    assert code == 0, launch.err
    assert Catalog(launch.run_dir / "checkpoints").steps() == [5]


@pytest.mark.slow
def test_it_does_not_bound_what_is_being_saved_when_the_script_fails(launcher: Launcher) -> None:
    fails = LARGE.replace('open("ready", "w")', 'ck.save(); raise ValueError("a bug in the evaluation")')
    code, launch = launcher.run("checkpoint.grace=10ms", script=fails, run_id="one")
    assert code == 1, launch.err
    assert Catalog(launch.run_dir / "checkpoints").steps() == [3]


@pytest.mark.parametrize("grace_s", [1, 4, 30, 110])
def test_each_part_of_a_stop_comes_before_the_next_and_all_of_it_before_its_end(grace_s: float) -> None:
    began = time.monotonic()
    asked = Stop.begun("user", grace_s, polite=True)
    assert began < asked.signal_at < asked.kill_at < asked.end < began + grace_s
    assert asked.next_at == asked.signal_at
    assert asked.signalled().next_at == asked.kill_at
    told = Stop.begun("user", grace_s, polite=False)
    assert told.next_at == told.kill_at <= asked.kill_at + 0.1
    assert 0 < kill_after_s(grace_s) <= 10
    assert told.at_once().end <= time.monotonic()
