"""A remote attempt's output on the terminal: whole, in order, once, and of no consequence when nobody reads."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runctl import following
from runctl.following import Follower
from runctl.rundir import RunDir


class Pipe:
    """What the terminal gets."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.text = b""

    def read(self) -> bytes:
        while True:
            try:
                data = os.read(self.reader, 1 << 16)
            except BlockingIOError:
                return self.text
            if not data:
                return self.text
            self.text += data

    def wait_for(self, text: bytes) -> None:
        deadline = time.monotonic() + 10
        while self.read() != text:
            assert time.monotonic() < deadline, self.text
            time.sleep(0.01)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.close(pipe.writer)


@pytest.fixture
def rundir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setattr(following, "_LOOK_S", 0.04)
    monkeypatch.setattr(following, "_AGAIN_S", 0.02)
    monkeypatch.setattr(following, "_LAST_WORDS_S", 1.0)
    return RunDir(str(tmp_path / "run"))


def publish(rundir: RunDir, *numbers: int) -> bytes:
    for number in numbers:
        rundir.publish(f"logs/a1/console/{number:06d}", b"segment %d\n" % number)
    return b"".join(b"segment %d\n" % number for number in numbers)


def test_what_is_there_already_and_what_comes_later_is_shown_once_and_in_order(rundir: RunDir, pipe: Pipe) -> None:
    there = publish(rundir, *range(200))
    follower = Follower(rundir, 1, pipe.writer)
    follower.start()
    pipe.wait_for(there)
    for number in range(200, 210):
        there += publish(rundir, number)
        if number % 3:
            pipe.wait_for(there)
    pipe.wait_for(there)
    follower.finish()
    assert pipe.read() == there


def test_the_last_words_are_shown_before_it_ends(rundir: RunDir, pipe: Pipe) -> None:
    follower = Follower(rundir, 1, pipe.writer)
    follower.start()
    there = publish(rundir, 0, 1, 2)
    follower.finish()
    assert pipe.read() == there


def test_whoever_followed_before_is_not_shown_it_again(rundir: RunDir, pipe: Pipe) -> None:
    publish(rundir, 0, 1)
    follower = Follower(rundir, 1, pipe.writer, begin=2)
    follower.start()
    pipe.wait_for(publish(rundir, 2))
    follower.leave()
    publish(rundir, 3)
    follower.finish()
    assert pipe.read() == b"segment 2\n"


def test_a_reader_that_goes_away_ends_nothing(rundir: RunDir, pipe: Pipe) -> None:
    follower = Follower(rundir, 1, pipe.writer)
    os.close(pipe.reader)
    follower.start()
    publish(rundir, 0)
    time.sleep(0.1)
    follower.finish()


def test_looking_is_one_question_when_segments_come_alone(rundir: RunDir, pipe: Pipe, monkeypatch) -> None:
    asked: list[int] = []
    segment = rundir.console_segment
    monkeypatch.setattr(
        rundir, "console_segment", lambda attempt, number: asked.append(number) or segment(attempt, number)
    )
    publish(rundir, 0)
    follower = Follower(rundir, 1, pipe.writer)
    assert follower._show(at_most=1) == 1
    assert asked == [0]
    assert follower._show() == 0
    assert asked == [0, 1]
