"""The pump from pipes to files and a terminal, without the processes around it."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runctl.agent.console import Console
from runctl.agent.logs import LogPump
from runctl.agent.troubles import Troubles
from runctl.errors import StorageError
from runctl.hostdir import HostDir
from runctl.spec import Logs
from runctl.storage import Stream, open_store


class FullDisk(Stream):
    """Takes a few bytes, then has no room."""

    def __init__(self) -> None:
        self.tried = 0

    def append(self, data: bytes) -> None:
        self.tried += 1
        raise StorageError("cannot write r0.log: No space left on device")

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        self.flush()


class Bench:
    """A pump on ranks that this test writes for, and the other end of its console."""

    def __init__(self, path: Path, logs: Logs, ranks: int, terminal: bool) -> None:
        self.host_dir = HostDir(path / "tmp" / "run" / "a1")
        self.host_dir.path.parent.parent.mkdir()
        self.host_dir.create(ranks)
        self.store = open_store(str(path))
        self.troubles = Troubles()
        self.heard: list[bytes] = []
        if terminal:
            self.shown_fd, self._console_fd = pty.openpty()
            tty.setraw(self._console_fd)
        else:
            self.shown_fd, self._console_fd = os.pipe()
            fcntl.fcntl(self.shown_fd, fcntl.F_SETPIPE_SZ, 1 << 20)
        os.set_blocking(self.shown_fd, False)
        console = Console(logs, ranks, self._console_fd, self._console_fd)
        self.pump = LogPump(console, self.heard.append, self.store.stream("times.jsonl"), self.troubles)
        self._logs: dict[int, Stream] = {}
        self.ranks = ranks
        self._pipes: dict[tuple[int, str], int] = {}

    def start(self, log: Callable[[int], Stream] | None = None) -> None:
        for rank in range(self.ranks):
            self.pump.add_rank(self.host_dir, rank, rank, (log or self.log_of)(rank))
            for stream in ("out", "err"):
                self._pipes[rank, stream] = os.open(self.host_dir.pipe(rank, stream), os.O_WRONLY)
        self.pump.start()

    def log_of(self, rank: int) -> Stream:
        return self.store.stream(f"r{rank}.log")

    def write(self, rank: int, data: bytes, stream: str = "out") -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._pipes[rank, stream], view) :]

    def finish(self) -> bytes:
        """End the pump; what was shown since the last look."""
        self.pump.finish()
        self.pump.join(20)
        assert not self.pump.is_alive()
        return self.shown()

    def shown(self) -> bytes:
        pieces = b""
        try:
            while piece := os.read(self.shown_fd, 1 << 20):
                pieces += piece
        except BlockingIOError:
            pass
        return pieces

    def shows(self, expected: bytes, within_s: float = 2) -> None:
        seen, deadline = b"", time.monotonic() + within_s
        while time.monotonic() < deadline and seen != expected:
            seen += self.shown()
            time.sleep(0.01)
        assert seen == expected

    def kept(self, rank: int) -> bytes:
        return b"".join(self.store.read_stream(f"r{rank}.log"))

    def close(self) -> None:
        for fd in [self.shown_fd, self._console_fd, *self._pipes.values()]:
            os.close(fd)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(logs: Logs | None = None, ranks: int = 2, terminal: bool = False) -> Bench:
        made.append(Bench(tmp_path, logs or Logs(), ranks, terminal))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_rank_zero_is_plain_and_others_have_their_number(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.start()
    b.write(0, b"zero\n")
    b.shows(b"zero\n")
    b.write(1, b"one\n\ntwo\n")
    b.shows(b"[rank1] one\n[rank1] \n[rank1] two\n")
    assert b.finish() == b""
    assert (b.kept(0), b.kept(1)) == (b"zero\n", b"one\n\ntwo\n")


@pytest.mark.parametrize(
    ("logs", "expected"),
    [
        (Logs(prefix="all"), b"[rank0] a\n[rank1] b\n"),
        (Logs(prefix="none"), b"a\nb\n"),
        (Logs(show="rank0"), b"a\n"),
        (Logs(show="none"), b""),
    ],
    ids=str,
)
def test_whose_output_is_shown_and_how_can_be_chosen(bench: Callable[..., Bench], logs: Logs, expected: bytes) -> None:
    b = bench(logs)
    b.start()
    b.write(0, b"a\n")
    time.sleep(0.1)
    b.write(1, b"b\n")
    assert b.finish() == expected
    assert (b.kept(0), b.kept(1)) == (b"a\n", b"b\n")


def test_a_begun_line_waits_for_its_end_where_several_ranks_share_a_pipe(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.start()
    b.write(0, b"begun ")
    time.sleep(0.2)
    b.write(1, b"whole\n")
    b.shows(b"[rank1] whole\n")
    b.write(0, b"and ended\n")
    b.shows(b"begun and ended\n")
    b.finish()


def test_a_begun_line_is_shown_at_once_on_a_terminal_and_where_one_rank_is_alone(bench: Callable[..., Bench]) -> None:
    b = bench(terminal=True)
    b.start()
    b.write(0, b"loading ...")
    b.shows(b"loading ...")
    b.write(1, b"whole\n")
    b.shows(b"\n[rank1] whole\n")
    b.finish()


def test_one_rank_in_a_pipe_shows_its_begun_line(bench: Callable[..., Bench]) -> None:
    b = bench(ranks=1)
    b.start()
    b.write(0, b"....")
    b.shows(b"....")
    b.write(0, b"..\n")
    b.shows(b"..\n")
    b.finish()
    assert b.kept(0) == b"......\n"


@pytest.mark.parametrize(("rank", "prefix"), [(0, b""), (1, b"[rank1] ")])
def test_a_progress_bar_moves_on_a_terminal(bench: Callable[..., Bench], rank: int, prefix: bytes) -> None:
    b = bench(terminal=True)
    b.start()
    b.write(rank, b"\r 10%", "err")
    b.shows(b"\r" + prefix + b" 10%")
    b.write(rank, b"\r 20%", "err")
    b.shows(b"\r" + prefix + b" 20%")
    b.write(rank, b"\r100%\n", "err")
    b.shows(b"\r" + prefix + b"100%\n")
    b.finish()
    assert b.kept(rank) == b"\r 10%\r 20%\r100%\n"


def test_colours_reach_the_terminal_and_no_file(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.start()
    b.write(0, b"\x1b[1;31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07\n")
    assert b"\x1b[1;31mred" in b.finish()
    assert b.kept(0) == b"red link\n"
    assert b.heard == [b"red link\n"]


def test_invalid_utf8_passes_byte_for_byte(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.start()
    data = bytes(byte for byte in range(256) if byte not in (10, 13, 27)) + b"\n"
    b.write(0, data)
    assert b.finish() == data
    assert b.kept(0) == data


def test_a_megabyte_without_an_end_stays_whole(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.start()
    line = b"x" * 1_000_000
    b.write(0, line)
    b.write(1, b"other\n")
    shown = b.finish()
    assert sorted(shown.splitlines()) == [b"[rank1] other", line]
    assert b.kept(0) == line + b"\n"


def test_what_a_rank_leaves_without_an_end_gets_one(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.start()
    b.write(0, b"the last words")
    b.host_dir.write_log(0, "and a traceback\n")
    assert b.finish() == b"the last words\n"
    assert b.kept(0) == b"the last words\nand a traceback\n"


def test_a_reader_that_goes_away_stops_the_echo_and_not_the_logs(bench: Callable[..., Bench]) -> None:
    b = bench(ranks=1)
    b.start()
    b.write(0, b"a\n")
    b.shows(b"a\n")
    os.close(b.shown_fd)
    for number in range(100):
        b.write(0, b"line %d\n" % number)
    b.pump.finish()
    b.pump.join(10)
    b.shown_fd = os.open(os.devnull, os.O_RDONLY)
    assert b.kept(0).count(b"\n") == 101
    assert b.troubles.first is None


def test_a_console_that_somebody_set_non_blocking_loses_nothing(bench: Callable[..., Bench]) -> None:
    b = bench(ranks=1)
    os.set_blocking(b._console_fd, False)
    b.start()
    data = b"".join(b"%07d\n" % number for number in range(400_000))  # 3.2 MB through a pipe of one
    shown = b""
    for start in range(0, len(data), 1 << 19):
        b.write(0, data[start : start + (1 << 19)])
        shown += b.shown()
    b.pump.finish()
    deadline = time.monotonic() + 10
    while b.pump.is_alive() and time.monotonic() < deadline:
        shown += b.shown()
        time.sleep(0.001)
    assert shown + b.shown() == data


def test_a_full_disk_stops_no_rank_and_is_remembered(bench: Callable[..., Bench]) -> None:
    b = bench(Logs(show="none"), ranks=1)
    full = FullDisk()
    b.start(lambda _: full)
    for _ in range(50):
        b.write(0, b"x" * 99_999 + b"\n")
    b.finish()
    assert full.tried > 1
    assert isinstance(b.troubles.first, StorageError) and "No space left" in str(b.troubles.first)


def test_a_user_whose_pipes_hold_too_much_already_gets_smaller_ones(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    b = bench()

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("runctl.agent.logs.fcntl.fcntl", refuse)
    b.start()
    b.write(0, b"still here\n")
    assert b.finish() == b"still here\n"


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_pump_releases_all_it_opened(bench: Callable[..., Bench]) -> None:
    before = open_descriptors()
    b = bench(ranks=4)
    b.start()
    b.finish()
    b.close()
    assert open_descriptors() == before
    b.shown_fd, b._console_fd, b._pipes = os.open(os.devnull, 0), os.open(os.devnull, 0), {}
