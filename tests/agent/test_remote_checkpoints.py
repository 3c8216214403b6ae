"""Whole launches whose run directory lies in a bucket: what was uploaded is what a new host goes on from."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from light import SCRIPT
from real_launches import Launch, Launcher
from waiting import wait_until

from runctl.agent.beginning import RestoreStopped
from runctl.agent.checkpoints import Checkpoints
from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.manifest import Manifest
from runctl.checkpoint.progress import ProgressBar
from runctl.checkpoint.remote import RemoteCatalog
from runctl.errors import StorageError
from runctl.hostdir import HostDir
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, Program, RunIdentity

STEPS = 60
WORDS = ("checkpoint.every=5steps", f"args.steps={STEPS}")
#: So slow that it has not ended by itself when a test does something to it, on a busy machine too.
SLOW_STEP_S = 0.5


class Remote:
    """One run in a bucket, and how it is launched."""

    def __init__(self, launcher: Launcher, root: str) -> None:
        self.launcher = launcher
        self.root = root
        self.rundir = RunDir(f"{root}/one")
        self.checkpoints = RemoteCatalog(self.rundir.store)

    def start(self, *words: str, step_s: float = 0.0, run_id: str = "one") -> Launch:
        return self.launcher.start(
            f"run.root={self.root}", *WORDS, *words, script=SCRIPT, ranks=2, run_id=run_id, env={"STEP_S": str(step_s)}
        )

    def digest(self) -> str:
        return (self.launcher.project / "digest").read_text()

    def wait_for_checkpoints(self, count: int) -> None:
        wait_until(lambda: len(self.checkpoints.steps()) >= count, 60, f"{count} checkpoints in the bucket")

    def other_host(self) -> None:
        """Nothing of this host is left, as if the next launch were on another."""
        for base in self.launcher.scratch.glob("runctl-*"):
            shutil.rmtree(base)


@pytest.fixture
def remote(s3, launcher: Launcher) -> Remote:
    return Remote(launcher, f"s3://{s3.bucket()}/runs")


def kill_everything(launch: Launch) -> None:
    """As a host that loses its power; the first to go is the one that could still say something."""
    launcher = psutil.Process(launch.process.pid)
    everything = [launcher, *launcher.children(recursive=True)]
    assert any("runctl.checkpoint.upload" in one.cmdline() for one in everything)
    for one in everything:
        with contextlib.suppress(psutil.Error):
            one.suspend()
    for one in everything:
        with contextlib.suppress(psutil.Error):
            one.kill()
    launch.end()
    wait_until(lambda: not any(map(lives, everything)), 20, "all are gone")


def make(folder: Path, step: int) -> Path:
    """A finished checkpoint."""
    aside = folder / ".tmp-made"
    aside.mkdir(parents=True)
    (aside / "data.pt").write_bytes(b"weights")
    files = {"data.pt": manifests.hash_file(aside / "data.pt", "blake2b")}
    return manifests.publish(aside, Manifest("one", 1, step, 0, 1, "blake2b", files))


def lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def left(launcher: Launcher) -> list[Path]:
    """What attempts left in the temporary folder of this host."""
    return [path for base in launcher.scratch.glob("runctl-*") for path in base.iterdir()]


@pytest.mark.soak  # the kills of test_kills.py while it uploads and downloads are the same, and more
def test_killed_and_launched_on_another_host_it_resumes_to_bit_identical_weights(remote: Remote) -> None:
    undisturbed = remote.start(run_id="undisturbed")
    assert undisturbed.end() == 0, undisturbed.err
    expected = remote.digest()
    (remote.launcher.project / "digest").unlink()

    first = remote.start(step_s=SLOW_STEP_S)
    remote.wait_for_checkpoints(2)
    kill_everything(first)
    uploaded = remote.checkpoints.steps()[-1]
    remote.other_host()
    last = remote.start()
    assert last.end() == 0, last.err
    assert f"restoring checkpoint step {uploaded} from {remote.checkpoints.url(uploaded)}: " in last.err
    assert "restored in " in last.err
    assert "\x1b" not in last.err, "no bar where there is no terminal"
    assert f"resuming from step {uploaded} " in last.err
    assert remote.digest() == expected
    outcome = remote.rundir.read_outcome() or {}
    assert outcome["resumed_from_step"] == uploaded
    assert outcome["checkpoints"] == [f"step-{step:06d}" for step in remote.checkpoints.steps()]
    assert remote.checkpoints.steps()[-1] == STEPS
    assert left(remote.launcher) == []


@pytest.mark.soak
def test_on_the_same_host_nothing_that_was_committed_is_lost(remote: Remote) -> None:
    first = remote.start(step_s=SLOW_STEP_S)
    remote.wait_for_checkpoints(1)
    kill_everything(first)
    committed = max(int(path.name[5:]) for path in remote.launcher.scratch.glob("runctl-*/.checkpoints/*/step-*"))
    again = remote.start()
    assert again.end() == 0, again.err
    assert f"resuming from step {committed} " in again.err
    assert left(remote.launcher) == []


@pytest.mark.slow
def test_a_corrupt_object_is_named_and_the_checkpoint_before_is_used(remote: Remote) -> None:
    first = remote.start(step_s=SLOW_STEP_S)
    remote.wait_for_checkpoints(2)
    kill_everything(first)
    remote.other_host()
    before, newest = remote.checkpoints.steps()[-2:]
    name = f"checkpoints/step-{newest:06d}/data.pt"
    data = bytearray(remote.rundir.store.read(name) or b"")
    data[len(data) // 2] ^= 1
    remote.rundir.store.write(name, bytes(data))
    again = remote.start()
    assert again.end() == 0, again.err
    assert f"{remote.rundir.url}/{name}: its bytes are not those that were written" in again.err
    assert f"resuming from step {before} " in again.err


@pytest.mark.soak  # of a local folder: test_resume.py
def test_no_usable_object_is_an_error_and_never_step_zero(remote: Remote) -> None:
    first = remote.start(step_s=SLOW_STEP_S)
    remote.wait_for_checkpoints(1)
    kill_everything(first)
    remote.other_host()
    for step in remote.checkpoints.steps():
        remote.rundir.store.delete(f"checkpoints/step-{step:06d}/data.pt")
    again = remote.start()
    assert again.end() != 0
    assert "none is usable" in again.err
    assert "is not there, the manifest says" in again.err
    assert not (remote.launcher.project / "digest").exists()


@pytest.mark.slow
def test_a_stop_uploads_the_last_step(remote: Remote) -> None:
    launch = remote.start("checkpoint.every=1h", step_s=0.05)
    launch.ready("begun")
    launch.process.send_signal(signal.SIGTERM)
    assert launch.end() == 143, launch.err
    status = remote.rundir.read_status() or {}
    assert status["step"] > 0
    assert remote.checkpoints.steps() == status["checkpoints"] == [status["step"]]
    assert left(remote.launcher) == []


def test_a_stop_is_heard_while_a_checkpoint_is_downloaded(remote: Remote, tmp_path: Path, monkeypatch) -> None:
    store = remote.rundir.store
    remote.checkpoints.publish(make(tmp_path / "other host", 5), set())
    ended: list[float] = []

    def hang(name: str, target: Path, size_bytes: int, stop: threading.Event, moved: object) -> None:
        stop.wait(60)
        ended.append(time.monotonic())
        raise StorageError("stopped")

    monkeypatch.setattr(store, "get_file", hang)
    spec = LaunchSpec(RunIdentity("one", "one", remote.root), Program("train.py", None))
    bar = ProgressBar(attached=False)
    checkpoints = Checkpoints(spec, remote.rundir, HostDir(tmp_path / "runctl-0/one/a1"), 1, ranks=1, bar=bar)
    began = time.monotonic()
    with pytest.raises(RestoreStopped):
        checkpoints.begin(lambda: time.monotonic() > began + 1)
    wait_until(lambda: ended, 5, "the copy has ended")
    checkpoints.close()
    wait_until(lambda: not list((tmp_path / "runctl-0").rglob("*")), 5, "nothing is left")


def test_what_is_refused_as_corrupt_stays_here_and_is_said(remote: Remote, tmp_path: Path, capsys) -> None:
    spec = LaunchSpec(RunIdentity("one", "one", remote.root), Program("train.py", None))
    bar = ProgressBar(attached=False)
    checkpoints = Checkpoints(spec, remote.rundir, HostDir(tmp_path / "runctl-0/one/a1"), 1, ranks=1, bar=bar)
    checkpoints.begin(lambda: False)
    make(checkpoints.catalog.folder, 1)
    (make(checkpoints.catalog.folder, 2) / "data.pt").write_bytes(b"no weights")
    checkpoints.finish_upload()
    wait_until(lambda: not checkpoints.upload_goes_on(), 60, "the upload has ended")
    checkpoints.close()
    assert remote.checkpoints.steps() == [1]
    assert checkpoints.catalog.steps() == [1, 2], "there is no other copy of it"
    assert "the checkpoint of step 2 is not in s3://" in capsys.readouterr().err


@pytest.mark.soak
def test_an_outage_delays_the_upload_and_not_the_training(s3, remote: Remote) -> None:
    launch = remote.start(step_s=0.1)
    remote.wait_for_checkpoints(1)
    s3.shut()
    time.sleep(3)
    s3.open()
    assert launch.end() == 0, launch.err
    assert remote.checkpoints.steps()[-1] == STEPS
    assert launch.err.count("tried again until it works)\n") <= 1


@pytest.mark.slow
def test_what_a_stop_could_not_upload_stays_and_is_used_by_the_next_launch(s3, remote: Remote) -> None:
    launch = remote.start("checkpoint.grace=6s", step_s=SLOW_STEP_S)
    remote.wait_for_checkpoints(1)
    s3.shut()
    launch.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert launch.end(120) != 0
    assert time.monotonic() - began < 60
    s3.open()
    assert "it stays on this host" in launch.err
    stopped_at = max(int(path.name[5:]) for path in remote.launcher.scratch.glob("runctl-*/.checkpoints/*/step-*"))
    with contextlib.suppress(StorageError):
        assert stopped_at not in remote.checkpoints.steps()
    again = remote.start()
    assert again.end() == 0, again.err
    assert f"resuming from step {stopped_at} " in again.err
    assert left(remote.launcher) == []
