"""What the agent is told, however the bytes arrive."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from runctl.agent.inbox import Inbox, Request

STOP = b'{"reason": "user", "now": false}\n'


@pytest.fixture
def pipe() -> Iterator[tuple[Inbox, int]]:
    read, write = os.pipe()
    yield Inbox(read), write
    os.close(read)


def test_a_request_sent_right_behind_the_order_is_not_lost(pipe: tuple[Inbox, int]) -> None:
    inbox, write = pipe
    os.write(write, b"{the order}\n" + STOP)
    assert inbox.read_order() == b"{the order}"
    assert inbox.wait([], 1) == [Request("user")]
    os.close(write)


def test_a_request_in_two_pieces_is_one(pipe: tuple[Inbox, int]) -> None:
    inbox, write = pipe
    os.write(write, STOP[:10])
    assert inbox.wait([], 0.01) == []
    os.write(write, STOP[10:])
    assert inbox.wait([], 1) == [Request("user")]
    os.close(write)


def test_the_end_of_the_pipe_is_the_launchers_end(pipe: tuple[Inbox, int]) -> None:
    inbox, write = pipe
    os.write(write, STOP)
    os.close(write)
    assert inbox.wait([], 1) == [Request("user")]
    inbox.wait([], 1)
    assert inbox.gone
    began = time.monotonic()
    assert inbox.wait([], 0.1) == []
    assert time.monotonic() - began > 0.05  # it is not asked over and over


def test_a_launcher_that_goes_without_an_order_leaves_none(pipe: tuple[Inbox, int]) -> None:
    inbox, write = pipe
    os.close(write)
    assert inbox.read_order() == b""
