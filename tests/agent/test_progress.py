"""What people see who wait for a checkpoint: a bar on a terminal, and nothing of it elsewhere."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
import threading

import pytest

from runctl.checkpoint import progress

SCRIPT = """
import time
from runctl.checkpoint.progress import ProgressBar
from runctl.checkpoint.transfer import Transfer
bar, transfer = ProgressBar(attached={attached}), Transfer()
transfer.begin(123456, 1_000_000_000)
for _ in range(3):
    transfer.moved(250_000_000)
    bar.show("restoring", transfer)
    time.sleep(0.15)
bar.say("a word in between")
bar.show("restoring", transfer)
bar.clear()
bar.say("restored")
"""
#: A bar and the training's output in one process, as in a launcher: its second piece of output ends within a line.
BESIDE_OUTPUT = """
import os, time
from runctl.checkpoint import progress
bar = progress.ProgressBar(attached=True)
for number, data in enumerate((b"one\\n", b"epoch 1: ", b"done\\n")):
    time.sleep(0.15)  # it is not drawn more often
    bar.draw("bringing results", 100 * number, 1000)
    with progress.apart(ends_line=data.endswith(b"\\n")):
        os.write(1, data)
time.sleep(0.15)
bar.draw("bringing results", 900, 1000)
bar.clear()
"""


def shown(width: int, *, attached: bool = True, term: str = "xterm", script: str = SCRIPT) -> str:
    """What arrives at a terminal."""
    here, there = os.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")} | {"TERM": term}
    words = [sys.executable, "-c", script.format(attached=attached)]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=there, stderr=there, env=env)
    os.close(there)
    text = b""
    try:
        while piece := os.read(here, 1 << 16):
            text += piece
    except OSError:  # the other end has been closed
        pass
    assert process.wait(30) == 0, text
    os.close(here)
    return text.decode()


@pytest.mark.parametrize("width", [120, 60, 30])
def test_the_bar_is_one_line_that_is_drawn_over_and_leaves_nothing(width: int) -> None:
    text = shown(width)
    assert [line for line in screen(text) if line] == ["runctl: a word in between", "runctl: restored"]
    drawn = re.findall(r"\x1b\[K(runctl: restoring step 123456[^\r\n]*)\r", text)
    assert len(drawn) == 4
    assert all(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) <= width for line in drawn)
    assert ("0.5/1.0 GB" in text) is (width >= 60)
    assert "\x1b[?25l" not in text, "the cursor stays, whatever becomes of us"


@pytest.mark.parametrize("case", [{"attached": False}, {"term": "dumb"}], ids=str)
def test_where_nobody_looks_on_there_are_only_the_words(case) -> None:
    assert shown(80, **case).split("\r\n") == ["runctl: a word in between", "runctl: restored", ""]


def test_output_takes_the_bars_place_and_no_part_of_a_line_is_wiped_out() -> None:
    text = shown(80, script=BESIDE_OUTPUT)
    assert [line for line in screen(text) if line] == ["one", "epoch 1: done"]
    assert text.count("bringing results") == 3, "none within the line that is begun"


def screen(text: str) -> list[str]:
    """What stands on the terminal in the end; of its controls only those that we use."""
    lines, column = [""], 0
    for piece in re.findall(r"\x1b\[K|\x1b\[[0-9;]*m|\r|\n|[^\x1b\r\n]+", text):
        if piece == "\n":
            lines.append("")
        elif piece == "\r":
            column = 0
        elif piece == "\x1b[K":
            lines[-1] = lines[-1][:column]
        elif not piece.startswith("\x1b"):
            lines[-1] = lines[-1][:column] + piece + lines[-1][column + len(piece) :]
            column += len(piece)
    return lines


def test_a_bar_does_not_wait_for_a_reader_who_takes_nothing() -> None:
    bar = progress.ProgressBar(attached=True)
    with progress.apart(ends_line=True):  # as while somebody writes to a full pipe
        cleared = threading.Thread(target=bar.clear, daemon=True)
        cleared.start()
        cleared.join(5.0)
        assert not cleared.is_alive()
