"""Notices of the host's end, as this attempt hears of them."""

from __future__ import annotations

import time
from collections.abc import Callable

from runctl.agent.inbox import Inbox, Request
from runctl.agent.order import Order
from runctl.agent.troubles import Troubles
from runctl.hooks import Hooks
from runctl.hosts.aws import InstanceNotices
from runctl.hosts.notices import Notice, Notices
from runctl.hosts.runpod_notices import PodNotices
from runctl.rundir import event_line
from runctl.spec import LaunchSpec
from runctl.storage import Stream

_WHO = {"aws": "AWS takes the instance", "runpod": "RunPod takes the pod"}


def watch(
    order: Order, spec: LaunchSpec, inbox: Inbox, hooks: Hooks, *, events: Stream, troubles: Troubles
) -> Callable[[], None]:
    """Have each notice of the host's end become a stop request, and plugins hear of it.

    A plugin is told in the thread that looks for notices, after the stop has begun: it may take its time. Mere
    recommendations are looked for if a plugin wants to know of notices, and stop nothing.

    Args:
        order: says whose notices.
        inbox: takes the stop request.
        hooks: of which `runctl_notice` is called.
        events: takes an event for each notice.
        troubles: keeps the error of an event that cannot be written.

    Returns:
        What ends it, without waiting.
    """
    if order.notices not in _WHO:
        return lambda: None

    def tell(notice: Notice) -> None:
        if notice.kind == "interruption":
            at = time.strftime("%H:%M:%S UTC", time.gmtime(notice.at))
            inbox.post(Request("spot_notice", host_ends_at=notice.at, detail=f"{_WHO[order.notices]} back at {at}"))
        with troubles.kept():
            events.append(
                event_line(
                    "notice", attempt=order.attempt, kind=notice.kind, action=notice.action, host_ends_at=notice.at
                )
            )
        hooks.notify("runctl_notice", spec=spec, attempt=order.attempt, kind=notice.kind, at=notice.at)

    found: Notices
    if order.notices == "aws":
        found = InstanceNotices(tell, rebalance=hooks.implemented("runctl_notice"))
    else:
        found = PodNotices(tell)
    found.start()
    return found.end
