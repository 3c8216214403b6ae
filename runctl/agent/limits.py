"""The limits of a run, kept on the host, so that they hold with the laptop closed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from runctl.agent.order import Order
from runctl.cost import SECONDS_PER_HOUR, cost_usd
from runctl.hosts.gpus import GpuLoad
from runctl.outcome import Attempt
from runctl.spec import Limits

#: Less than this of a GPU's time, and of one core's, is nothing to do.
_IDLE_SHARE = 0.05
_SAMPLE_S = 5.0
#: Of limits.max_usd, that are told when they have been spent.
_SHARES = (0.5, 0.8, 1.0)


class LimitWatch:
    """Says when a limit is reached.

    Args:
        limits: the run's.
        order: what this host costs, and whether its launcher is there.
        started_at: when the attempt began (seconds since the epoch).
        earlier: the run's attempts before this one.
        say: takes what people should know.

    Attributes:
        max_time_s: how long the attempt may take; None for as long as it likes.
    """

    def __init__(
        self, limits: Limits, order: Order, started_at: float, earlier: Sequence[Attempt], say: Callable[[str], None]
    ) -> None:
        self._limits = limits
        self._attached = order.attached
        # A rented host costs from its first second; on one's own machine what counts is the training.
        self._begun: float | None = None if order.attached else time.monotonic() - (time.time() - started_at)
        self.max_time_s = limits.max_time_s
        self._budget = _budget(limits.max_usd, order, started_at, earlier, say)
        self._idleness = Idleness(limits.idle_s, say) if limits.idle_s is not None else None
        self._training = False

    def ranks_started(self) -> None:
        """From now on the ranks train."""
        self._training = True
        if self._attached:
            self._begun = time.monotonic()
        if self._idleness is not None:
            self._idleness.begin()

    def reached(self, but_pid: int | None = None) -> str | None:
        """The reason for a stop, once a limit is reached: `max_time`, `max_usd` or `idle`.

        Args:
            but_pid: a child of this process that is none of the ranks'.
        """
        begun, max_time_s = self._begun, self.max_time_s
        if max_time_s is not None and begun is not None and time.monotonic() - begun > max_time_s:
            return "max_time"
        if self._budget is not None and self._budget.spent_usd(time.time()) >= self._budget.max_usd:
            return "max_usd"
        if self._training and self._idleness is not None and self._idleness.lasts_too_long(but_pid):
            return "idle"
        return None

    def extend(self, max_time_s: float) -> None:
        """Have the attempt last so long altogether."""
        self.max_time_s = max_time_s

    @property
    def ends_at(self) -> float | None:
        """When the limit of time is reached (seconds since the epoch); None without one, or before it counts."""
        if self.max_time_s is None or self._begun is None:
            return None
        return time.time() - time.monotonic() + self._begun + self.max_time_s

    def budget_alert(self) -> Alert | None:
        """That another share of limits.max_usd has been spent; each share once, and of several the largest."""
        return None if self._budget is None else self._budget.alert(time.time())


@dataclass(frozen=True)
class Alert:
    """How much of limits.max_usd has been spent: `share` of it at least, such as 0.5."""

    share: float
    spent_usd: float
    max_usd: float


class Budget:
    """What a run has spent of what it may.

    Args:
        max_usd: so much.
        before_usd: by the attempts before this one.
        price_usd_per_hour: of this host, with its disks.
        billed_from: seconds since the epoch.
    """

    def __init__(self, max_usd: float, before_usd: float, price_usd_per_hour: float, billed_from: float) -> None:
        self.max_usd = max_usd
        self._before_usd = before_usd
        self._price = price_usd_per_hour
        self._billed_from = billed_from
        #: What an attempt before this one has told is not told again.
        self._told = max((one for one in _SHARES if before_usd >= one * max_usd), default=0.0)

    def spent_usd(self, now: float) -> float:
        """By then (seconds since the epoch)."""
        return self._before_usd + self._price * max(0.0, now - self._billed_from) / SECONDS_PER_HOUR

    def alert(self, now: float) -> Alert | None:
        """The largest share that has been reached and was not told yet."""
        spent = self.spent_usd(now)
        reached = max((one for one in _SHARES if spent >= one * self.max_usd), default=0.0)
        if reached <= self._told:
            return None
        self._told = reached
        return Alert(reached, round(spent, 4), self.max_usd)


class Idleness:
    """For how long the GPUs of this host and the processes of its ranks have had nothing to do.

    A process's children that have ended count as the process; a GPU counts whoever uses it, so that on a shared
    machine somebody else's work keeps this run going.

    Args:
        idle_s: how long is too long.
        say: takes what people should know.
    """

    def __init__(self, idle_s: float, say: Callable[[str], None]) -> None:
        self._idle_s = idle_s
        self._say = say
        self._gpus = GpuLoad()
        self._sample_s = min(_SAMPLE_S, idle_s / 2)
        self._unknown = False
        self._cpu_s: dict[int, float] = {}
        self._sampled_at: float | None = None
        self._busy_at = 0.0

    def begin(self) -> None:
        """Count anew, from now."""
        self._sampled_at = None
        self._cpu_s = {}

    def lasts_too_long(self, but_pid: int | None) -> bool:
        """Look once more if it is time to; whether nothing has been done for too long."""
        now = time.monotonic()
        if self._sampled_at is None:
            self._busy_at = now
        elif now - self._sampled_at < self._sample_s:
            return False
        cpu_s = _cpu_seconds(but_pid)
        done_s = max((spent - self._cpu_s.get(pid, 0.0) for pid, spent in cpu_s.items()), default=0.0)
        if self._sampled_at is None or done_s >= _IDLE_SHARE * (now - self._sampled_at) or self._gpus_work():
            self._busy_at = now
        self._cpu_s, self._sampled_at = cpu_s, now
        return now - self._busy_at >= self._idle_s

    def _gpus_work(self) -> bool:
        share = self._gpus.busiest()
        if share is None and not self._unknown:
            self._unknown = True
            self._say("limits.idle is not kept: this host's GPUs do not tell how busy they are")
        return share is None or share >= _IDLE_SHARE


def _cpu_seconds(but_pid: int | None) -> dict[int, float]:
    """Processor time of every descendant of this process, with that of its children that have ended."""
    spent = {}
    for process in psutil.Process().children(recursive=True):
        if process.pid != but_pid:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                spent[process.pid] = float(times.user + times.system + times.children_user + times.children_system)
    return spent


def _budget(
    max_usd: float | None, order: Order, started_at: float, earlier: Sequence[Attempt], say: Callable[[str], None]
) -> Budget | None:
    """What the run may spend; None for as much as it likes."""
    if max_usd is None:
        return None
    if order.price_usd_per_hour is None:
        say("limits.max_usd is not kept: the price of this host is not known")
        return None
    costs = {one.number: _cost(one) for one in earlier}
    if unknown := [str(number) for number, cost in costs.items() if cost is None]:
        say(f"limits.max_usd counts what is known: the cost of attempt {', '.join(unknown)} is not")
    before = sum(cost for cost in costs.values() if cost is not None)
    return Budget(
        max_usd, before, order.price_usd_per_hour, started_at if order.billed_from is None else order.billed_from
    )


def _cost(attempt: Attempt) -> float | None:
    """What an attempt cost: from the cost book, or worked out where its launcher was gone by then."""
    if attempt.cost_usd is not None or attempt.ended_at is None:
        return attempt.cost_usd
    return cost_usd(attempt.price_usd_per_hour, max(0.0, attempt.ended_at - attempt.billed_since))
