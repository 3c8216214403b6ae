"""Ctrl-C, a closed terminal and a plain kill, while a launcher watches a rented host."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import termios
import threading
from collections.abc import Iterator

import pytest
from waiting import wait_until
from whole import BUCKET, Account

from runctl.errors import ExitCode

#: Minutes of it; `make soak` runs them.
pytestmark = pytest.mark.soak

#: Graceful: it has the time to say so.
SCRIPT = """
import signal, sys, time
def stop(signum, frame):
    print("stopped politely", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("training", flush=True)
time.sleep(120)
"""
QUESTION = "Enter leaves it running, s stops it, Ctrl-C stops it at once:"
CTRL_C = "\x03"


def own_terminal() -> None:
    """In the launch, before it begins: only a session's own terminal sends it Ctrl-C and hangs up."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A launch with a terminal of its own, and somebody who types."""

    def __init__(self, account: Account, *words: str) -> None:
        self._master, slave = pty.openpty()
        self.launch = account.start(
            *words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=own_terminal
        )
        os.close(slave)
        self.text = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # nobody is at the other end any more
            while data := os.read(self._master, 1 << 12):
                self.text += data.decode(errors="replace")

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.text or self.launch.poll() is not None, 90, text)
        assert text in self.text, self.text

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def close(self) -> None:
        os.close(self._master)


@pytest.fixture
def training(account: Account) -> Iterator[tuple[str, ...]]:
    (account.project / "train.py").write_text(SCRIPT)
    yield ("trainer=single", "script=train.py", "run.id=mine", f"run.root=s3://{BUCKET}/runs")


def lives(account: Account) -> bool:
    (instance,) = account.instances("mine")
    return instance["state"] == "running"


def test_enter_leaves_it_running_and_without_a_terminal_ctrl_c_stops_it(account: Account, training) -> None:
    terminal = Terminal(account, *training)
    terminal.wait_for("training\r\n")
    terminal.type(CTRL_C)
    terminal.wait_for(QUESTION)
    terminal.type("\n")
    assert terminal.launch.wait(30) == 0, terminal.text
    assert "mine goes on without this launcher" in terminal.text
    assert "the same launch with run.id=mine follows it again, and rents another host" in terminal.text
    assert lives(account)

    again = account.start(*training)
    wait_until(lambda: "following it" in account.said(again)[1], 60, "it is followed again")
    again.send_signal(signal.SIGINT)
    assert again.wait(60) == int(ExitCode.USER_INTERRUPT), account.said(again)
    out, err = account.said(again)
    assert "SIGINT: stopping; once more to stop at once" in err
    assert "stopped politely" in out
    account.check_that_nothing_runs(20)


def test_a_closed_terminal_leaves_it_running_and_s_stops_it(account: Account, training) -> None:
    closed = Terminal(account, *training)
    closed.wait_for("training\r\n")
    closed.close()
    closed.launch.wait(30)
    assert lives(account)

    terminal = Terminal(account, *training)
    terminal.wait_for("following it")
    terminal.type(CTRL_C)
    terminal.wait_for(QUESTION)
    terminal.type("what?\n")
    terminal.wait_for("it goes on")
    terminal.type(CTRL_C)
    wait_until(lambda: terminal.text.count(QUESTION) == 2, 10, "it asks again")
    terminal.type("s\n")
    assert terminal.launch.wait(60) == int(ExitCode.USER_INTERRUPT), terminal.text
    assert "stopped politely" in terminal.text
    account.check_that_nothing_runs(20)


def test_ctrl_c_twice_stops_it_at_once(account: Account, training) -> None:
    terminal = Terminal(account, *training)
    terminal.wait_for("training\r\n")
    terminal.wait_for("the training runs on")
    terminal.type(CTRL_C)
    terminal.wait_for(QUESTION)
    terminal.type(CTRL_C)
    assert terminal.launch.wait(60) == int(ExitCode.USER_INTERRUPT), terminal.text
    assert "stopping at once" in terminal.text
    account.check_that_nothing_runs(20)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP], ids=str)
def test_a_launcher_that_is_ended_leaves_it_running(account: Account, training, signum: signal.Signals) -> None:
    first = account.start(*training)
    wait_until(lambda: "training\n" in account.said(first)[0], 90, "it trains")
    first.send_signal(signum)
    assert first.wait(30) == 0, account.said(first)
    assert "mine goes on without this launcher" in account.said(first)[1]
    assert lives(account)
