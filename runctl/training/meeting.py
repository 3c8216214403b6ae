"""Where the ranks of one host meet: the agreement's file, each rank's own state, and who decides."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch

from runctl import processes
from runctl.agreement import Agreement, Appointment, Kind
from runctl.hostdir import HostDir
from runctl.training import place, plain

_POLL_S = 0.02
_OPEN_TIMEOUT_S = 60.0
_DECISION_TIMEOUT_S = 30.0
_EXCHANGE_TIMEOUT_S = 1800.0
#: How long ranks that were restarted wait for what those before them had in writing: the others wait in an exchange.
_WRITER_TIMEOUT_S = 600.0
#: Ranks are at most a step apart, so that the step about to be written is always among the last few.
_KEEP_RANK_FILES = 4


class Meeting:
    """This rank's place among the ranks of its host.

    Rank 0 makes the agreement's file and runs the thread that decides; the others wait for the file.

    Attributes:
        restart: how often torchrun has restarted the ranks in place.
        agreement: the mapped file.
        seen: how many appointments this rank has taken in.
    """

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank = rank
        self.local_rank, self.restart = place.here().local_rank, place.here().restart
        self.host_dir = HostDir.from_environment() or plain.host_dir(rank, world_size)
        path = self.host_dir.agreement(self.restart)
        self.seen = 0
        self._left: list[int] = []
        if rank == 0:
            self.agreement = Agreement.create(path, world_size)
            threading.Thread(target=self._decide, name="runctl-agreement", daemon=True).start()
        else:
            self.agreement = _opened(path)
        self._words: dict[str, Any] = {"pid": os.getpid(), "local_rank": self.local_rank, "polling": True}
        self._say()

    def new_appointments(self) -> list[Appointment]:
        """The appointments that this rank has not seen yet, once they are decided."""
        raised = self.agreement.raised
        new = self.agreement.read(self.seen, _DECISION_TIMEOUT_S)
        self.seen = max(raised, self.seen + len(new))
        return new

    def stop_requested(self) -> bool:
        """Whether somebody asked for a stop that is not carried out yet."""
        return self.agreement.stop_wanted

    def leave_rank_state(self, step: int, state: dict[str, Any]) -> None:
        """Leave this rank's own state of a step where rank 0's writer finds it."""
        path = Path(self.rank_file(step, self.rank))
        aside = path.with_name(f".tmp-{path.name}")
        torch.save(state, aside)
        aside.replace(path)
        # The writer collects the file of the step it writes; those of saves that were put off are ours to remove.
        self._left.append(step)
        for old in self._left[:-_KEEP_RANK_FILES]:
            if old != self.agreement.writing:
                Path(self.rank_file(old, self.rank)).unlink(missing_ok=True)
                self._left.remove(old)

    def rank_file(self, step: int, rank: int) -> str:
        return str(self.host_dir.path / f"rank-{rank}-{self.restart}-{step}.pt")

    def wait_for_commit(self, step: int, timeout_s: float) -> None:
        """Wait until rank 0's checkpoint of a step is committed: ranks that leave together fail no collective."""
        deadline = time.monotonic() + timeout_s
        while self.agreement.committed < step and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def wait_for_former_writer(self) -> None:
        """After a restart in place: let the writer of the ranks before finish what it has, for that is the newest."""
        path = self.host_dir.agreement(self.restart - 1)
        if self.restart == 0 or not path.exists():
            return
        former = Agreement(path)
        deadline = time.monotonic() + _WRITER_TIMEOUT_S
        if (pid := former.writer_at_work()) is not None:
            processes.run_when_idle(pid, False)
            while former.writer_at_work() and processes.lives(pid) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        former.close()

    def exchange(self, name: str, value: Any) -> list[Any]:
        """Tell the other ranks of this host something, and hear what each of them tells; all must call it.

        Args:
            name: what it is about, for each call another.
            value: anything that JSON can hold.

        Returns:
            The ranks' values, by rank.

        Raises:
            TimeoutError: if a rank tells nothing within half an hour, which is what a collective waits.
        """
        name = f"{name}-{self.restart}"
        self.host_dir.tell(name, self.rank, value)
        deadline = time.monotonic() + _EXCHANGE_TIMEOUT_S
        while len(told := self.host_dir.told(name)) < self.agreement.ranks:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(told)} of {self.agreement.ranks} ranks came to {name}")
            time.sleep(_POLL_S)
        return [told[rank] for rank in sorted(told)]

    def say_restored(self, step: int) -> None:
        """Leave word that this rank has loaded what it begins from."""
        self._say(restored_step=step)

    def say_length(self, length: dict[str, int]) -> None:
        """Leave word of how long the loop is: `total_steps`, `epochs`."""
        if self.rank == 0:
            self.host_dir.tell("length", 0, length)

    def say_unloadable(self, error: str) -> None:
        """Leave word that what this rank was to begin from does not load."""
        self._say(unloadable=error)

    def say_stopped(self, step: int) -> None:
        """Leave word that this rank ended because it was asked to."""
        self._say(stopped_at_step=step)

    def _say(self, **words: Any) -> None:
        self._words |= words
        self.host_dir.register_worker(self.rank, self.restart, self._words)

    def stop_on_signals(self, grace_s: float) -> None:
        """Without a launcher: the first SIGTERM or SIGINT asks for a stop, the next does what it always did.

        Args:
            grace_s: a rank that has not come to a boundary by then, stuck in a collective perhaps, ends.
        """

        def ask(signum: int, _frame: object) -> None:
            for number, handler in before.items():
                signal.signal(number, handler)
            self.agreement.want(Kind.STOP)
            late = threading.Timer(grace_s, os._exit, (128 + signum,))
            late.daemon = True
            late.start()

        if threading.current_thread() is threading.main_thread():
            before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}

    def _decide(self) -> None:
        while True:
            kind = self.agreement.wanted()
            if kind is not None:
                self.agreement.appoint(kind)
                if kind is Kind.STOP:
                    return  # nothing comes after a stop
            time.sleep(_POLL_S)


def _opened(path: Path) -> Agreement:
    deadline = time.monotonic() + _OPEN_TIMEOUT_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path}: rank 0 did not call runctl.attach within {_OPEN_TIMEOUT_S:g} s")
        time.sleep(_POLL_S)
    return Agreement(path)
