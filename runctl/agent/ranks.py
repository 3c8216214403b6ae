"""The processes that run the ranks: plain python, or torchrun started ahead of its orders."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

#: The folder that holds the package; our own children start there, so that nothing in the user's folder can
#: stand in for a module of ours or of the standard library.
PACKAGE_DIR = str(Path(__file__).resolve().parents[2])


@dataclass(frozen=True)
class RankExit:
    """How a rank ended: its number, its exit code with 128 + N for signal N.

    Attributes:
        first: whether it ended by itself; otherwise torchrun ended it after another's failure.
    """

    rank: int
    exit_code: int
    by_signal: int | None = None
    first: bool = True


@dataclass(frozen=True)
class Report:
    """How the ranks ended together.

    Attributes:
        exits: the ranks that failed, as torchrun saw them.
        exit_code: 0, or the code of the process that ran them where no rank can be named.
        error: what broke in torchrun itself, for people.
        traceback: of that, if there is one.
    """

    exit_code: int
    exits: tuple[RankExit, ...] = ()
    error: str | None = None
    traceback: str | None = None


class Ranks(ABC):
    """A process of ours that runs ranks."""

    process: subprocess.Popen[bytes]

    @abstractmethod
    def start(self, argv: list[str], env: dict[str, str], cwd: str, kill_after_s: float) -> None:
        """Start the ranks.

        Args:
            kill_after_s: what they get between SIGTERM and SIGKILL from whoever runs them, beside the agent.
        """

    @abstractmethod
    def report(self) -> Report:
        """How they ended; call it once `ended`."""

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def stop(self) -> None:
        """Ask all ranks to end, with SIGTERM."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def log_descriptor(self) -> int | None:
        """Where the process that runs the ranks writes what is its own, or None."""
        return None


class PlainRank(Ranks):
    """One rank, one plain python process."""

    def start(self, argv: list[str], env: dict[str, str], cwd: str, kill_after_s: float) -> None:
        self.process = subprocess.Popen(
            argv,
            env={**os.environ, **env, "RUNCTL_PARENT_PID": str(os.getpid())},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def stop(self) -> None:
        # The whole session, as torchrun does it for its ranks.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)

    def report(self) -> Report:
        code = self.process.returncode
        return Report(exit_code(code), () if code == 0 else (_rank_exit(0, code),))


class TorchrunRanks(Ranks):
    """torchrun as a child of ours, in its own session.

    Args:
        python: the interpreter of torchrun and its ranks.
    """

    def __init__(self, python: str = sys.executable) -> None:
        self._report_fd, report_write = os.pipe()
        self._log_fd, log_write = os.pipe()
        self.process = subprocess.Popen(
            [python, "-m", "runctl.agent.torchrun", str(report_write)],
            stdin=subprocess.PIPE,
            bufsize=0,  # nothing is left to flush when it has died
            stdout=log_write,
            stderr=log_write,
            cwd=PACKAGE_DIR,
            env={**os.environ, "RUNCTL_PARENT_PID": str(os.getpid()), "PYTHONUNBUFFERED": "1"},
            pass_fds=(report_write,),
            start_new_session=True,
        )
        os.close(report_write)
        os.close(log_write)

    def start(self, argv: list[str], env: dict[str, str], cwd: str, kill_after_s: float) -> None:
        words = argv[argv.index("torch.distributed.run") + 1 :]
        order = {"argv": words, "env": env, "cwd": cwd, "kill_after_s": kill_after_s}
        rest = memoryview(json.dumps(order).encode() + b"\n")
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died; report() tells how
            while rest:
                rest = rest[self.process.stdin.write(rest) :]

    def report(self) -> Report:
        with os.fdopen(self._report_fd, "rb") as pipe:
            text = pipe.read()
        if not text:
            code = self.process.returncode
            return Report(exit_code(code) or 1, (), f"torchrun {describe_exit(code)}")
        told = json.loads(text)
        if "error" in told:
            return Report(1, (), told["error"], told["traceback"])
        if "signal" in told:
            return Report(128 + told["signal"])
        exits = tuple(_rank_exit(one["rank"], one["exit_code"], one["first"]) for one in told.get("failures", ()))
        return Report(exits[0].exit_code if exits else 0, exits)

    def log_descriptor(self) -> int | None:
        return self._log_fd


def exit_code(returncode: int) -> int:
    """A process's return code as a shell would give it: 128 + N for a death by signal N."""
    return returncode if returncode >= 0 else 128 - returncode


def describe_exit(returncode: int) -> str:
    """`exited with code 7`, or `was killed by signal 9 (SIGKILL)`."""
    if returncode >= 0:
        return f"exited with code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = "unknown"
    return f"was killed by signal {-returncode} ({name})"


def _rank_exit(rank: int, returncode: int, first: bool = True) -> RankExit:
    return RankExit(rank, exit_code(returncode), -returncode if returncode < 0 else None, first)
