"""`runctl logs`: what the ranks of a run wrote, and what they write now."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Optional

import typer

from runctl.cli.reference import RUN_HELP, complete, run_of
from runctl.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from runctl.rundir import RunDir

_LOCAL_LOOK_S, _REMOTE_LOOK_S = 0.3, 2.0
#: A begun line longer than this is shown in pieces.
_LONGEST_BYTES = 1 << 20


def logs(
    run: str = typer.Argument(..., help=RUN_HELP, metavar="RUN", autocompletion=complete),
    follow: bool = typer.Option(False, "--follow", "-f", help="Go on until the run ends; Ctrl-C only stops following."),
    rank: Optional[str] = typer.Option(
        None, "--rank", help="A number, `all`, or `torchrun` for what torchrun itself says; without it rank 0.",
    ),
    node: int = typer.Option(0, "--node", help="Whose ranks.", min=0),
    attempt: Optional[int] = typer.Option(None, "--attempt", help="Only this one; without it all, in order.", min=1),
    grep: Optional[str] = typer.Option(None, "--grep", help="Only lines in which this is found.", metavar="REGEX"),
    since: Optional[str] = typer.Option(None, "--since", help="Only what is younger, to ten seconds.", metavar="10m"),
) -> None:  # fmt: skip
    """Show what a run's ranks wrote, oldest first."""
    from runctl.durations import parse_duration_s

    rundir = run_of(run)
    begin = None if since is None else time.time() - parse_duration_s(since, "--since")
    try:
        wanted = None if grep is None else re.compile(grep.encode())
    except re.error as error:
        raise ConfigError(f"--grep {grep}: {error}") from error
    if rank is not None and rank not in ("all", "torchrun") and not rank.isdigit():
        raise ConfigError(f"--rank {rank}: a number, all or torchrun")
    try:
        for line in _Reader(rundir, rank or "0", node, attempt, begin, follow=follow).lines():
            if wanted is None or wanted.search(line):
                sys.stdout.buffer.write(line)
                if follow:
                    sys.stdout.buffer.flush()
        sys.stdout.buffer.flush()
    except KeyboardInterrupt:
        typer.echo(f"\n{rundir.url.rsplit('/', 1)[-1]} goes on; runctl stop stops it", err=True)
    except BrokenPipeError:
        # Whoever read has what they wanted (`| head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Reader:
    """The logs that are wanted, attempt after attempt."""

    def __init__(
        self, rundir: RunDir, rank: str, node: int, attempt: int | None, since: float | None, *, follow: bool
    ) -> None:
        self._rundir = rundir
        self._rank = rank
        self._node = node
        self._attempt = attempt
        self._since = since
        self._follow = follow
        self._newest = 0  # attempt, as it was seen last
        self._pause_s = _REMOTE_LOOK_S if "://" in rundir.url else _LOCAL_LOOK_S

    def lines(self) -> Iterator[bytes]:
        """Whole lines, each with its end."""
        numbers = [one.number for one in self._rundir.attempts()]
        if self._attempt is not None and self._attempt not in numbers and self._has_ended(self._attempt):
            raise ConfigError(f"--attempt {self._attempt}: there are {', '.join(map(str, numbers)) or 'none yet'}")
        number = self._attempt or (numbers[0] if numbers else 1)
        while True:
            yield from self._of_attempt(number)
            if self._attempt is not None or not self._has_next(number):
                return
            number += 1

    def _of_attempt(self, number: int) -> Iterator[bytes]:
        from runctl.nodelogs import NodeLogs
        from runctl.storage import Tail

        logs = NodeLogs(self._rundir, number, self._node)
        tails: dict[str, Tail] = {}
        begun: dict[str, bytes] = {}
        told, headed = False, False
        while True:
            # Asked before the logs are read: what an attempt wrote is complete once it is said to have ended.
            ended = self._has_ended(number)
            sources = logs.sources()
            for source in self._wanted(sources, number):
                tails.setdefault(source, logs.tail(source, self._since))
            several = len(tails) > 1
            for source, tail in tails.items():
                for piece in tail.read():
                    if number > 1 and not headed and self._attempt is None:
                        headed = True
                        sys.stdout.buffer.flush()
                        typer.echo(f"runctl: attempt {number}", err=True)
                    *whole, rest = (begun.get(source, b"") + piece).split(b"\n")
                    if len(rest) > _LONGEST_BYTES:
                        whole, rest = [*whole, rest], b""
                    begun[source] = rest
                    yield from (_prefix(source, several=several) + line + b"\n" for line in whole)
            others = [source for source in sources if source not in tails and source != "torchrun"]
            if not self._follow or ended:
                for source, line in begun.items():
                    if line:
                        yield _prefix(source, several=several) + line + b"\n"
                if others and not told and self._rank == "0":
                    typer.echo(f"runctl: {len(others)} more rank(s): --rank all shows them", err=True)
                return
            time.sleep(self._pause_s)

    def _wanted(self, sources: list[str], number: int) -> list[str]:
        if self._rank == "all":
            return [source for source in sources if source != "torchrun"]
        name = self._rank if self._rank == "torchrun" else f"r{self._rank}"
        if name in sources:
            return [name]
        if sources and not self._follow and self._rank != "0":
            raise ConfigError(
                f"--rank {self._rank}: attempt {number} has logs of {', '.join(sources)} on node {self._node}"
            )
        return []

    def _has_ended(self, number: int) -> bool:
        """Whether nothing more will be written in this attempt."""
        if not self._follow:
            return True
        from runctl import standing

        try:
            now = standing.look(self._rundir)
            self._newest = now.attempt
            return now.attempt > number or not standing.may_go_on(self._rundir, now)
        except StorageError:
            return False  # an outage here is none of the training's

    def _has_next(self, number: int) -> bool:
        # One that is followed is known before its agent has left a record.
        return self._newest > number or any(one.number > number for one in self._rundir.attempts())


def _prefix(source: str, *, several: bool) -> bytes:
    """Whose line it is, where lines of several are shown."""
    return b"[%s] " % source.replace("r", "rank", 1).encode() if several else b""
