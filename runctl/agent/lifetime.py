"""Until when an attempt and its host may live, and more time for both.

The host's shutdown was scheduled by its keeper; another one replaces it, and whoever runs the agent may ask for it. In
a container nobody can, so that `runctl extend` refuses to.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

from runctl import bills
from runctl.agent.control import ControlWatch
from runctl.agent.limits import LimitWatch
from runctl.agent.order import Order
from runctl.errors import RunctlError
from runctl.extension import Extension
from runctl.rundir import RunDir
from runctl.spec import Limits

_SHUTDOWN_S = 30.0


class Lifetime:
    """Gives an attempt the time that it is asked to take.

    Args:
        order: tells of the host.
        limits: as they were launched with.
        watch: keeps them.
        control: hears of more time.
    """

    def __init__(self, order: Order, limits: Limits, watch: LimitWatch, control: ControlWatch) -> None:
        self._order = order
        self._launched_with_s = limits.max_time_s
        self._watch = watch
        self._control = control
        self._heard: Extension | None = None
        self._deadline = order.deadline

    def hear(self) -> dict[str, Any] | None:
        """Take on what was asked for since the last look; the event of it, or None."""
        asked = self._control.extension
        if asked is None or asked == self._heard or self._launched_with_s is None:
            return None
        self._heard = asked
        more_s = asked.max_time_s - self._launched_with_s
        # The host first: a training that outlives its host has no time to save.
        if self._order.deadline is not None and not self._arm(self._order.deadline + more_s):
            return {"event": "not_extended", "max_time_s": asked.max_time_s}
        self._watch.extend(asked.max_time_s)
        _say(f"this attempt may take {more_s / 3600:.2f} h longer than it was launched with")
        return {"event": "extended", "max_time_s": asked.max_time_s}

    def told(self) -> dict[str, float]:
        """For the heartbeat: when the limit of time is reached, after how long, and when the host ends itself."""
        watch = self._watch
        told = {"ends_at": watch.ends_at, "max_time_s": watch.max_time_s, "deadline": self._deadline}
        return {name: at for name, at in told.items() if at is not None}

    def _arm(self, deadline: float) -> bool:
        """Schedule the host's shutdown for another time; whether that was done."""
        when = f"+{max(1, math.ceil((deadline - time.time()) / 60))}"
        why = ""
        try:
            done = subprocess.run(
                ["shutdown", "-P", when],
                stdin=subprocess.DEVNULL, capture_output=True, timeout=_SHUTDOWN_S, check=False,
            )  # fmt: skip
            if done.returncode:
                why = f"it ended with code {done.returncode}: {done.stderr.decode(errors='replace').strip()}"
        except (OSError, subprocess.TimeoutExpired) as error:
            why = str(error)
        if why:
            _say(f"no more time: the host ends itself when it would have, for `shutdown -P {when}` failed: {why}")
            return False
        self._deadline = deadline
        return True


def _say(text: str) -> None:
    sys.stderr.write(f"runctl: {text}\n")


def with_disks(order: Order, rundir: RunDir) -> Order:
    """An order with all that its host costs an hour, as far as the launcher was told."""
    if order.price_usd_per_hour is None or order.attached:
        return order
    try:
        rates = bills.kept(rundir, order.attempt)
    except (RunctlError, ValueError):
        return order
    disks = rates.disk_usd_per_hour if rates is not None else None
    return replace(order, price_usd_per_hour=order.price_usd_per_hour + (disks or 0.0))
