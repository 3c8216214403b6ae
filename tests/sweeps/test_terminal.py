"""What a sweep's user sees on a terminal, and what Ctrl-C and a closed terminal do to all of it."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import wait_until

from runctl.config.sweeps import Objective
from runctl.sweeps import table
from runctl.sweeps.job import Job, overrides_of

#: Hears no signal, and says who it is.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("step=1 loss=1", flush=True)
open(f"pid-{sys.argv[1][-1]}", "w").write(str(os.getpid()))
time.sleep(120)
"""

#: A table of jobs that run, drawn again and again.
BOARD = """
import time
from runctl.sweeps.board import Board
from runctl.sweeps.job import Job
jobs = {f"r{x}": Job(x, {"args.x": str(x) * 50}, f"r{x}", f"runs/r{x}", state="running") for x in range(1, 10)}
jobs["last"] = Job(10, {}, state="failed")
board = Board(jobs, live=True, coming=lambda: 7)
while True:
    board.refresh()
    time.sleep(0.1)
"""


class Terminal:
    """A program at a terminal of its own, of which it is the foreground process group."""

    def __init__(self, argv: list[str], *, columns: int = 100, lines: int = 30, **variables: str) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(columns, lines)
        self.shown = ""
        # Whoever runs the tests may have these, and they outdo what a terminal says.
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**environment, "TERM": "xterm-256color", **variables},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 (no thread of ours holds a lock)
        )  # fmt: skip
        os.close(theirs)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._ours, 65536):
                self.shown += data.decode(errors="replace")

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in plain(self.shown), 20, text)

    def close(self) -> None:
        """As if its window was closed."""
        os.close(self._ours)

    def end(self) -> int:
        return self.process.wait(timeout=60)


def plain(shown: str) -> str:
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown)


@contextlib.contextmanager
def terminal(argv: list[str], **how: object) -> Iterator[Terminal]:
    made = Terminal(argv, **how)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()


def sweeping(project, *words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("runctl-launch")), "-m", "script=train.py", *words]


def pids(project, count: int) -> list[int]:
    """Of the trainings, as soon as so many have begun."""
    wait_until(lambda: len([one for one in project.folder.glob("pid-*") if one.read_text()]) == count, 60, "pids")
    return [int(one.read_text()) for one in project.folder.glob("pid-*")]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_ctrl_c_twice_ends_all_at_once_and_says_what_was_not_started(project) -> None:
    project.script(STUBBORN)
    with terminal(sweeping(project, "args.x=1,2,3,4", "sweep.max_parallel=2")) as seen:
        trainings = pids(project, 2)
        seen.wait_for("2 running · 2 waiting")
        seen.type("\x03")
        seen.wait_for("SIGINT: stopping all of it; once more to stop at once")
        assert all(alive(pid) for pid in trainings), "it may yet save"
        asked = time.monotonic()
        seen.type("\x03")
        assert seen.end() == 130
        assert time.monotonic() - asked < 9, "or else they get ten seconds"
        seen.wait_for("sweep.csv")
        shown = plain(seen.shown)
    assert "stopping at once" in shown
    assert re.search(r"x=2 +stopped .*x=3 +not started", shown, re.DOTALL)
    assert "2 stopped, 2 not started: the same command goes on with them" in shown
    assert not [pid for pid in trainings if alive(pid)]


@pytest.mark.soak
def test_a_closed_terminal_stops_what_runs_on_this_machine(project) -> None:
    project.script(STUBBORN)
    with terminal(sweeping(project, "args.x=1,2,3", "sweep.max_parallel=2")) as seen:
        trainings = pids(project, 2)
        seen.close()
        assert seen.end() == 143
    assert not [pid for pid in trainings if alive(pid)]
    assert "stopped" in (project.runs / "sweeps" / "train" / "sweep.csv").read_text()


def test_what_runs_is_drawn_as_high_and_wide_as_the_terminal_and_a_narrower_one_is_made_up_for() -> None:
    with terminal([sys.executable, "-c", BOARD], columns=60, lines=13) as seen:
        seen.wait_for("… and 5 more that run")
        seen.wait_for("9 running · 7 waiting · 1 failed")
        assert max(len(line) for line in plain(seen.shown).split("\r\n")) <= 60
        before = len(seen.shown)
        seen.resize(30, 13)
        erased = re.escape("\r\x1b[2K\x1b[1A")
        # The rule and four rows were 59 characters wide: five lines became ten.
        wait_until(lambda: re.search(f"({erased}){{5}}\r\x1b\\[2K\x1b\\[1A", seen.shown[before:]), 20, "erased")
        seen.process.send_signal(signal.SIGKILL)
    assert "x=111" in plain(seen.shown) and "…111" in plain(seen.shown), "the end of a value is seen, too"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(jobs: list[Job], monkeypatch: pytest.MonkeyPatch, *, screen: bool, columns: int, lines: int = 24) -> str:
    file = Screen() if screen else io.StringIO()
    for name, value in {"COLUMNS": str(columns), "LINES": str(lines), "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stderr", file)
    table.show(jobs, [Objective("loss")])
    return file.getvalue()


def jobs_of(count: int) -> list[Job]:
    jobs = [Job(x, {"args.x": str(x)}, f"r{x}", state="succeeded", values={"loss": float(x)}) for x in range(count)]
    jobs[-1].state, jobs[-1].exit_code = "failed", 1
    return jobs


def test_the_last_table_fits_the_terminal_with_the_best_and_what_failed(monkeypatch) -> None:
    told = plain(shown(jobs_of(200), monkeypatch, screen=True, columns=60))
    rows = [line.split()[0] for line in told.splitlines() if line.startswith(" x=")]
    assert rows == [*(f"x={x}" for x in range(13)), "x=199"]
    assert "14 of 200 jobs are shown" in told


@pytest.mark.parametrize(("columns", "left"), [(46, "0.1 s"), (36, "0.1 s"), (30, "12.5")])
def test_on_a_narrow_terminal_the_last_table_has_fewer_columns_and_cuts_no_number(
    monkeypatch, columns: int, left: str
) -> None:
    jobs = [replace(job, values={"loss": 12.5}, step=1000, time_s=0.1) for job in jobs_of(3)]
    told = plain(shown(jobs, monkeypatch, screen=True, columns=columns))
    rows = [line for line in told.splitlines() if line.startswith(" x=")]
    assert max(map(len, rows)) <= columns and "…" not in told
    assert all(row.rstrip().endswith(left) and "12.5" in row for row in rows)


def test_a_file_gets_every_row_whole_and_without_colours(monkeypatch) -> None:
    jobs = jobs_of(200)
    jobs[0].overrides["args.path"] = "s3://" + "x" * 300
    told = shown(jobs, monkeypatch, screen=False, columns=60)
    assert "\x1b" not in told
    assert len([line for line in told.splitlines() if line.startswith(" x=")]) == 200
    assert "x" * 300 + "   succeeded" in told


def test_states_are_coloured_on_a_terminal(monkeypatch) -> None:
    told = shown(jobs_of(2), monkeypatch, screen=True, columns=60)
    assert "\x1b[32msucceeded" in told and "\x1b[31mfailed" in told


def test_long_values_are_cut_in_the_middle_and_leave_the_numbers_whole(monkeypatch) -> None:
    jobs = jobs_of(2)
    for job in jobs:
        job.overrides["args.note"] = "[bold]" + "a" * 100 + f"-{job.number}"
    told = plain(shown(jobs, monkeypatch, screen=True, columns=60))
    assert max(map(len, told.splitlines())) <= 60
    assert re.search(r"x=0 note=\[bold\]a+…a+-0   succeeded +0", told)


def test_costs_have_a_column_only_where_something_costs(monkeypatch) -> None:
    jobs = jobs_of(2)
    assert "cost" not in shown(jobs, monkeypatch, screen=True, columns=60)
    jobs[0].cost_usd = 0.25
    assert "0.2500" in shown(jobs, monkeypatch, screen=True, columns=60)


def test_a_job_is_named_by_what_was_meant_and_not_by_how_it_was_quoted() -> None:
    words = [r"args.data=s3\://bucket/a", "+env.NOTE='a, b'", "args.l=[1,2]"]
    job = Job(1, overrides_of(words))
    assert job.overrides == {"args.data": "s3://bucket/a", "env.NOTE": "a, b", "args.l": "[1,2]"}
    assert Job(1, {"args.x": "1\x1b[2J\n2"}).label == "x=1\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}2"
    assert len(job.label_within(30)) <= 30
