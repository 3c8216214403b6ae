"""SSH and SFTP against a real OpenSSH server: pinned keys, whole files, broken lines, full disks."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sshd import Line, Sshd

from runctl.platforms.runpod.files import PodFiles
from runctl.platforms.runpod.keys import KeyPair, PinnedHost, of_attempt
from runctl.platforms.runpod.ssh import Address, Connection, DiskFull, HostKeyChanged, SshError
from runctl.rundir import RunDir


class Pod:
    """An SSH server and what a launcher knows of it."""

    def __init__(self, folder: Path) -> None:
        self.run_dir = str(folder / "runs" / "a-run")
        self.pair: KeyPair = of_attempt(self.run_dir, 1)
        self.pinned = PinnedHost(RunDir(self.run_dir), 1)
        self.server = Sshd(folder / "sshd", self.pair.public)
        self.place = folder / "pod"
        self.place.mkdir()

    def connect(self, port: int | None = None) -> Connection:
        return Connection(Address("127.0.0.1", port or self.server.port, self.server.user), self.pair, self.pinned)


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = Pod(tmp_path)
    made.server.open()
    yield made
    made.server.shut()


def test_the_private_key_is_for_this_user_alone_and_outside_the_run_directory(pod: Pod) -> None:
    assert stat.S_IMODE(pod.pair.path.stat().st_mode) == 0o600
    assert not pod.pair.path.is_relative_to(pod.run_dir)
    assert of_attempt(pod.run_dir, 1).public == pod.pair.public
    assert of_attempt(pod.run_dir, 2).public != pod.pair.public
    shown = subprocess.run(["ssh-keygen", "-lf", pod.pair.path], capture_output=True, text=True, check=True).stdout
    assert "ED25519" in shown


def test_commands_come_back_with_code_and_both_streams(pod: Pod) -> None:
    with pod.connect() as connection:
        result = connection.run("cat; echo oh >&2; exit 7", stdin=b"hello")
        assert (result.exit_code, result.stdout, result.stderr) == (7, "hello", "oh\n")
        assert len(connection.run("seq 1 100000").stdout) == 588895
        with pytest.raises(SshError, match=r"not ended within 0\.3 s"):
            connection.run("sleep 5", timeout_s=0.3)


def test_a_host_key_is_pinned_at_first_sight_and_another_one_refused(pod: Pod) -> None:
    pod.connect().close()
    assert (pod.pinned.read() or "").startswith("ssh-ed25519 ")
    pod.connect().close()
    pod.server.shut()
    pod.server.new_host_key()
    pod.server.open()
    with pytest.raises(HostKeyChanged, match=r"another host key than when it was seen first .*hosts/a1\.key"):
        pod.connect()


def test_another_key_than_ours_is_not_tried(pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / ".ssh"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home.parent))
    (home / "id_ed25519").write_bytes(pod.pair.path.read_bytes())
    other = of_attempt(pod.run_dir, 9)
    with pytest.raises(SshError, match="Authentication failed"):
        Connection(Address("127.0.0.1", pod.server.port, pod.server.user), other, pod.pinned)


def test_refused_for_a_while_is_an_error_that_passes(pod: Pod) -> None:
    pod.server.shut()
    with pytest.raises(SshError, match="SSH to "):
        pod.connect()
    threading.Timer(0.5, pod.server.open).start()
    assert _patiently(pod.connect).run("true").exit_code == 0


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_files_go_and_come_whole(pod: Pod, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "here").write_bytes(data)
    target = pod.place / "it's a folder" / "there"
    with pod.connect() as connection:
        files = PodFiles(connection)
        moved: list[int] = []
        files.put(tmp_path / "here", str(target), moved=moved.append)
        assert target.read_bytes() == data
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert sum(moved) == size
        files.put(b"other bytes", str(target))
        assert target.read_bytes() == b"other bytes"
        target.write_bytes(data)
        files.get(str(target), tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == data
        with pytest.raises(FileNotFoundError):
            files.get(str(pod.place / "nothing"), tmp_path / "nothing")
    assert [path.name for path in target.parent.iterdir()] == ["there"]


@pytest.mark.parametrize("way", ["put", "get"])
def test_a_transfer_that_broke_off_half_way_goes_on_from_there(pod: Pod, tmp_path: Path, way: str) -> None:
    size = 16 << 20
    data = os.urandom(size)
    here, there = tmp_path / "here", pod.place / "there"
    (here if way == "put" else there).write_bytes(data)
    line = Line(pod.server.port, size // 2)

    def carry(connection: Connection, moved: list[int]) -> None:
        files = PodFiles(connection)
        if way == "put":
            files.put(here, str(there), moved=moved.append)
        else:
            files.get(str(there), here, moved=moved.append)

    with pod.connect(line.port) as connection, pytest.raises(SshError):
        carry(connection, [])
    line.close()
    target = there if way == "put" else here
    assert not target.exists()
    part = next(path for path in target.parent.iterdir() if path.name.endswith(".part"))
    began = part.stat().st_size
    assert size // 4 < began < size
    moved: list[int] = []
    with pod.connect() as connection:
        carry(connection, moved)
    assert target.read_bytes() == data
    assert began <= moved[0] < size  # the server may still have written what it had
    assert not part.exists()


def test_what_an_earlier_try_left_wrong_is_sent_anew(pod: Pod, tmp_path: Path) -> None:
    (pod.place / "there.part").write_bytes(b"something else altogether")
    data = os.urandom(100)
    with pod.connect() as connection:
        PodFiles(connection).put(data, str(pod.place / "there"))
    assert (pod.place / "there").read_bytes() == data


def test_a_full_disk_is_said(pod: Pod, tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", pod.place], check=False)
    if mounted.returncode != 0:
        pytest.skip("no small disk can be mounted here")
    try:
        (tmp_path / "large").write_bytes(os.urandom(3 << 20))
        with (
            pod.connect() as connection,
            pytest.raises(DiskFull, match=r"no space left .* platform\.container_disk_gb"),
        ):
            PodFiles(connection).put(tmp_path / "large", str(pod.place / "large"))
        assert not (pod.place / "large").exists()
    finally:
        subprocess.run(["umount", pod.place], check=False)


def _patiently(connect: Callable[[], Connection]) -> Connection:
    deadline = time.monotonic() + 20
    while True:
        try:
            return connect()
        except SshError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
