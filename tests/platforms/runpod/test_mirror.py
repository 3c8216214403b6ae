"""A run directory on a pod, brought here over real SSH: all of it, and what is asked of it goes there."""

from __future__ import annotations

import errno
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sshd import Sshd

from runctl import saves
from runctl.errors import PlatformError
from runctl.platforms.runpod import credentials, mirror, orders, ssh
from runctl.platforms.runpod.keys import PinnedHost, of_attempt
from runctl.platforms.runpod.line import Line, Mirrored
from runctl.platforms.runpod.mirror import Mirror
from runctl.platforms.runpod.ssh import Address, Connection
from runctl.platforms.runpod.start import Place
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, Plan, Program, RunHandle, RunIdentity, RunState


@pytest.fixture
def connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    pair = of_attempt("here", 1)
    server = Sshd(tmp_path / "sshd", pair.public)
    server.open()
    address = Address("127.0.0.1", server.port, server.user)
    with Connection(address, pair, PinnedHost(RunDir(str(tmp_path / "keys")), 1)) as connection:
        yield connection
    server.shut()


@pytest.fixture
def there(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


@pytest.fixture
def here(tmp_path: Path) -> RunDir:
    return RunDir(str(tmp_path / "here"))


def test_a_listing_of_any_length_is_whole(
    connection: Connection, there: Path, here: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "PRINTED_BYTES", 1000)
    (there / "outputs").mkdir()
    for number in range(100):
        (there / "outputs" / f"sample with a blank {number}").write_text("x" * number)
    brought = Mirror(connection, str(there), here, 1)
    assert {name: file.size_bytes for name, file in brought.listing().items()} == {
        f"outputs/sample with a blank {number}": number for number in range(100)
    }
    brought.close()


class Looks:
    """A connection over which a look fails after all that was found, as `find` does where a folder went meanwhile."""

    def __init__(self, found: bytes) -> None:
        self._found = found

    def stream(self, _: str) -> Iterator[bytes]:
        yield self._found
        raise PlatformError("`find` ended with code 1")


def test_a_folder_that_cannot_be_looked_at_is_not_an_empty_one(here: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "PodFiles", lambda _: None)
    nothing: Any = Looks(b"")
    some: Any = Looks(b"3 1.5 a b\0")
    with pytest.raises(PlatformError):
        Mirror(nothing, "/there", here, 1).listing(complete=False)
    assert list(Mirror(some, "/there", here, 1).listing(complete=False)) == ["a b"]
    with pytest.raises(PlatformError):
        Mirror(some, "/there", here, 1).listing(complete=True)


def test_a_run_directory_that_is_not_there_yet_holds_nothing(connection: Connection, there: Path, here: RunDir) -> None:
    assert Mirror(connection, str(there / "not-yet"), here, 1).listing() == {}


def test_what_is_printed_beyond_what_is_kept_is_no_answer(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "PRINTED_BYTES", 1000)
    assert not connection.run("head -c 1000 /dev/zero").cut
    done = connection.run("head -c 3000 /dev/zero; echo end")
    assert done.cut and len(done.stdout) == 1000 and done.stdout.endswith("end\n")
    with pytest.raises(PlatformError, match="more than 1000 bytes"):
        connection.check("head -c 3000 /dev/zero")


def test_a_save_that_is_asked_for_here_reaches_the_pod_and_its_answer_comes_with_the_checkpoint(
    connection: Connection, there: Path, here: RunDir
) -> None:
    remote = RunDir(str(there))
    remote.write_status(RunState.RUNNING, 1)
    brought = Mirror(connection, str(there), here, 1)
    request = saves.ask(here, 1)
    brought.round(lambda *_: [])
    assert saves.asked(remote, 1) == request
    saves.answer(remote, saves.SaveAnswer(request.id, waiting="not yet"))
    brought.round(lambda *_: [])
    assert saves.answered(here, request) == saves.SaveAnswer(request.id, waiting="not yet")
    saves.answer(remote, saves.SaveAnswer(request.id, 7))
    brought.round(lambda *_: [5])
    assert saves.answered(here, request) == saves.SaveAnswer(request.id, waiting="not yet"), "it is not here yet"
    brought.round(lambda *_: [5, 7])
    assert saves.answered(here, request) == saves.SaveAnswer(request.id, 7)
    brought.close()


def line(here: RunDir) -> Line:
    nothing: Any = SimpleNamespace()
    return Line(lambda: None, nothing, here, 1, pinned=nothing, start=nothing,
                mirrored=Mirrored(here, Path), tell=print)  # fmt: skip


def test_a_file_system_without_locks_is_in_nobodys_way(here: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    mine = line(here)
    monkeypatch.setattr(mine, "_once", lambda: True)
    mine.start()
    mine.join(10)
    assert not mine.is_alive() and mine.failed is None


def test_a_line_that_cannot_begin_says_so(here: RunDir) -> None:
    Path(here.url).mkdir()
    (Path(here.url) / "hosts").write_text("a file where a folder should be")
    mine = line(here)
    mine.start()
    mine.join(10)
    assert mine.failed is not None and "FileExistsError" in mine.failed


def test_a_session_is_asked_for_what_is_left_of_a_pod(here: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was made by hand may have lived for hours."""
    asked: list[float] = []
    nothing: Any = SimpleNamespace()
    bringing = SimpleNamespace(
        files=lambda _: [], secrets=lambda *_: {}, begin=lambda *_: None, close=lambda: None
    )  # fmt: skip
    parcel: Any = SimpleNamespace(items=(), keeper=None)
    at = Place("/root", "/root/run/a1", "/root/.runs/run", started=False, kept=False)
    monkeypatch.setattr(orders, "place", lambda *_: at)
    monkeypatch.setattr(orders, "Bringing", lambda *_: bringing)
    monkeypatch.setattr(credentials, "needed", lambda _: True)
    monkeypatch.setattr(credentials, "session", lambda lives_s: asked.append(lives_s) or {})
    told = {"call": orders.OVER_SSH, "orders": {"lives_s": 4 * 3600.0, "order": {}}}
    plan = Plan("run", 1, "runpod", (), {}, 1, 1, "", "s3://bucket/runs/run", requests=(told,))
    where = {"launched_at": time.time() - 3.5 * 3600, "market": "spot", "price_usd_per_hour": 1.0}
    here.write_spec(LaunchSpec(RunIdentity("run", "run", "s3://bucket/runs"), Program("train.py", None)))
    orders.PodStart(plan, RunHandle("runpod", "run", 1, where), here, lambda: parcel, Path, None, print)(nothing)
    assert asked == [pytest.approx(1800.0, abs=5)]
