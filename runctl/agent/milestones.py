"""Milestones of an attempt: noticed in the agent, so that they are told with the laptop closed."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from runctl.agent.limits import Alert
from runctl.agent.order import Order
from runctl.agent.troubles import Troubles
from runctl.agent.verdict import Verdict
from runctl.hooks import Hooks
from runctl.outcome import Attempt
from runctl.rundir import event_line
from runctl.spec import LaunchSpec, RunState
from runctl.stalls import StepWatch
from runctl.storage import Stream

#: What telling the last ones may take; RunPod gives a pod five seconds.
_LAST_S, _HURRY_S = 10.0, 3.0
_ENDS = {
    RunState.SUCCEEDED: "finished",
    RunState.FAILED: "failed",
    RunState.INTERRUPTED: "interrupted",
    RunState.STOPPED: "stopped",
}


class Milestones:
    """Notices them, keeps those that nothing else tells of as events, and has plugins told in a thread.

    Args:
        order, spec, record: whose they are.
        events: the stream of events.
        troubles: keeps the error of an event that cannot be written.
        say: takes what people should know.
    """

    def __init__(
        self, order: Order, spec: LaunchSpec, record: Attempt, *, events: Stream, troubles: Troubles,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._order = order
        self._spec = spec
        self._record = record
        self._events = events
        self._troubles = troubles
        self._say = say
        self._telling: threading.Thread | None = None
        self._reached: queue.SimpleQueue[tuple[str, dict[str, Any]] | None] = queue.SimpleQueue()
        self._steps: StepWatch | None = None
        self._stalled = self._stepped = False
        self._saved = 0

    def begin(self, hooks: Hooks, secrets: dict[str, str]) -> None:
        """Have plugins told from now on.

        Args:
            hooks: of which `runctl_milestone` is called.
            secrets: what `runctl_milestone` is handed.
        """
        self._telling = threading.Thread(target=self._tell, args=(hooks, secrets), daemon=True)
        self._telling.start()

    def training(self, progress: dict[str, Any]) -> None:
        """The ranks are about to start."""
        resumed = progress.get("resumed_from_step")
        self._stepped = resumed is not None
        self._saved = max([*(progress.get("checkpoints") or ()), resumed or 0])
        self._steps = StepWatch()
        about = {} if resumed is None else {"step": resumed}
        self._reach("started" if resumed is None else "resumed", **about)

    def trained(self) -> None:
        """The ranks have ended: there are to be no more steps."""
        self._steps = None

    def look(self, progress: dict[str, Any]) -> None:
        """See what has been reached, from what the heartbeat tells."""
        step, saved = progress.get("step"), max(progress.get("checkpoints") or (0,))
        metrics = progress.get("metrics") or {}
        if saved > self._saved:
            self._saved = saved
            self.note("checkpoint", step=saved)
        if step is not None and not self._stepped:
            self._stepped = True
            self._reach("first_step", step=step, metrics=metrics)
        self._look_for_stall(step, metrics)

    def spent(self, alert: Alert) -> None:
        """Another share of limits.max_usd has been spent."""
        self._say(f"{alert.share:.0%} of limits.max_usd={alert.max_usd:g} are spent: {alert.spent_usd:.2f} USD")
        self.note("budget", **asdict(alert))
        self._reach("budget", **asdict(alert))

    def note(self, event: str, **about: Any) -> None:
        """Keep an event of this attempt's."""
        with self._troubles.kept():
            self._events.append(event_line(event, attempt=self._order.attempt, **about))

    def end(self, verdict: Verdict, progress: dict[str, Any]) -> None:
        """Tell how it ended, without waiting for that."""
        step, metrics = progress.get("step"), progress.get("metrics") or {}
        if step is not None and not self._stepped and self._record.resumed_from_step is None:
            self._reach("first_step", step=step)
        kind = _ENDS.get(verdict.state, verdict.state.value)
        self._reach(kind, step=step, metrics=metrics, reason=verdict.reason, exit_code=verdict.exit_code)
        self._reached.put(None)

    def wait(self, verdict: Verdict) -> None:
        """Wait until everybody was told, but not long, and hardly at all where the host is being taken away."""
        within_s = _LAST_S if verdict.state is not RunState.INTERRUPTED else _HURRY_S
        if self._telling is not None:
            self._telling.join(within_s)
            if self._telling.is_alive():
                self._say(f"not everybody could be told within {within_s:g} s how the run ended")

    def _look_for_stall(self, step: int | None, metrics: dict[str, Any]) -> None:
        if self._steps is None:
            return
        now = time.monotonic()
        self._steps.note(step, now)
        for_s = self._steps.stalled_s(now)
        if for_s is not None and not self._stalled:
            self.note("stalled", step=step, for_s=round(for_s))
            self._reach("stalled", step=step, for_s=round(for_s), metrics=metrics)
        self._stalled = for_s is not None

    def _reach(self, kind: str, **about: Any) -> None:
        where = {"platform": self._order.platform, "host": self._record.host, "market": self._order.market}
        self._reached.put((kind, {**where, **about}))

    def _tell(self, hooks: Hooks, secrets: dict[str, str]) -> None:
        while (reached := self._reached.get()) is not None:
            kind, about = reached
            hooks.notify(
                "runctl_milestone", spec=self._spec, attempt=self._order.attempt, kind=kind, about=about,
                secrets=secrets,
            )  # fmt: skip
