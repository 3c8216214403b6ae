"""What is made of a host from which nothing comes: it is lost, or we are cut off ourselves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from runctl.errors import StorageError
from runctl.platforms import watching
from runctl.platforms.watching import HostWatch
from runctl.rundir import RunDir
from runctl.spec import RunHandle, RunState


class Watch(HostWatch):
    """A host that lives, in a cloud that may not answer.

    Attributes:
        answers: whether it does.
    """

    answers = True

    def _lives(self) -> bool:
        if not self.answers:
            raise StorageError("no answer")
        return True

    def _why_gone(self) -> str:
        return ""

    @property
    def _is_started(self) -> bool:
        return True

    def _bring_up(self) -> RunState:
        return RunState.PENDING


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watch:
    for name in ("_STATUS_S", "_HOST_S", "_HEARTBEAT_S"):
        monkeypatch.setattr(watching, name, 0.0)
    for name, pause_s in (("_SILENCE_S", 0.4), ("_UNANSWERED_S", 0.1)):
        monkeypatch.setattr(watching, name, pause_s)
    rundir = RunDir(str(tmp_path))
    rundir.write_status(RunState.RUNNING, 1)
    rundir.beat(1, "host", 1)
    return Watch(RunHandle("x", "run", 1, {}), rundir, host="i-1", bring_up_s=60.0, tell=lambda _: None)


def seen(watch: Watch) -> RunState:
    """Where it stands after twice the time for which a host may be silent."""
    until = time.monotonic() + 0.8
    while time.monotonic() < until:
        state = watch.look()
        time.sleep(0.02)
    return state


def test_a_host_whose_agent_is_silent_is_lost(watch: Watch) -> None:
    assert watch.look() is RunState.RUNNING
    assert seen(watch) is RunState.INTERRUPTED
    assert "has not been heard of" in watch.why


@pytest.mark.parametrize("what", ["storage", "the platform"])
def test_a_launcher_that_is_cut_off_gives_no_host_up(watch: Watch, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    assert watch.look() is RunState.RUNNING

    def fails(*_: object) -> None:
        raise StorageError("no answer")

    with monkeypatch.context() as patch:
        if what == "storage":
            patch.setattr(watch._rundir, "heartbeat", fails)
        else:
            watch.answers = False
        assert seen(watch) is RunState.RUNNING
        watch.answers = True
    watch._rundir.beat(1, "host", 1)
    assert watch.look() is RunState.RUNNING
    assert seen(watch) is RunState.INTERRUPTED, "from the end of the outage on it counts"


def test_a_stop_while_storage_is_away_gives_no_training_up(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher that follows a run has not read its status yet."""

    def fails(*_: object, **__: object) -> None:
        raise StorageError("no answer")

    with monkeypatch.context() as patch:
        for name in ("read_status", "ask_to_stop"):
            patch.setattr(watch._rundir, name, fails)
        with pytest.raises(StorageError):
            watch.cancel("user", now=False)
    watch.cancel("user", now=False)
    assert watch.look() is RunState.RUNNING
    request = watch._rundir.stop_request(1)
    assert request is not None and request.reason == "user"


def test_a_stop_before_the_training_gives_its_host_up(watch: Watch) -> None:
    watch._rundir.store.delete("status.json")
    watch.cancel("user", now=False)
    assert watch.look() is RunState.STOPPED
