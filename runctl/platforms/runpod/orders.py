"""What the keeper of a pod is told to do: planned without looking, completed over SSH (or by `stored`)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runctl.hosts.secrets import ENV, RUNPOD
from runctl.platforms import parcel
from runctl.platforms.runpod import credentials, outputs
from runctl.platforms.runpod.ssh import Connection
from runctl.platforms.runpod.start import Bringing, Place, for_pod, place
from runctl.rundir import RunDir
from runctl.spec import Plan, RunHandle

#: How a plan's request is called that goes to a pod and not to RunPod: over SSH, or by way of object storage.
OVER_SSH, BY_STORAGE = "ssh", "storage"


def is_mirrored(run_dir: str) -> bool:
    """Whether a run directory lies on this machine, so that its pods keep one of their own, which is brought here."""
    return "://" not in run_dir


def planned(orders: dict[str, Any], collect_s: float, call: str = OVER_SSH) -> dict[str, Any]:
    """The request of a plan that stands for all that goes to the pod itself.

    Args:
        orders: for the keeper, but for what is known only once there is a pod.
        collect_s: how long the pod stays after its end for a launcher to bring what only lies there.
        call: how it goes there.
    """
    waits_s = collect_s if is_mirrored(orders["order"]["run_dir"]) else 0.0
    return {"call": call, "orders": {**orders, "collect_s": waits_s}}


def of_plan(plan: Plan) -> dict[str, Any]:
    """The orders in a plan."""
    orders: dict[str, Any] = next(one for one in plan.requests if one.get("call") in (OVER_SSH, BY_STORAGE))["orders"]
    return orders


@dataclass(frozen=True)
class PodStart:
    """Brings an attempt to its pod and starts its keeper there, once, however often the line is made.

    Attributes:
        plan: as it was submitted.
        handle: the pod.
        rundir: the run directory as it is seen from here.
        made: makes what is sent, when it is needed.
        workdir: where the user's relative paths lead.
        volume: the mount path of a network volume, or None.
        tell: takes lines for the user.
    """

    plan: Plan
    handle: RunHandle
    rundir: RunDir
    made: Callable[[], parcel.Parcel]
    workdir: Callable[[], Path]
    volume: str | None
    tell: Callable[[str], None]

    def __call__(self, connection: Connection) -> Place:
        """Where things lie there, when they do.

        Raises:
            RunctlError: if something cannot be brought.
        """
        at = place(connection, self.plan.run_id, self.plan.attempt, self.volume)
        if at.started:
            return at
        spec, bringing = self.rundir.read_spec(), Bringing(connection, at, self.tell)
        orders = parcel.completed(of_plan(self.plan), self.handle)
        sent = self.made()
        orders["files"] = bringing.files(sent.items[:-1])
        order = orders["order"]
        if is_mirrored(self.plan.run_dir):
            here = bringing.inputs(outputs.taken_to(for_pod(spec, at), at.run_dir), self.workdir())
            bringing.run_dir(here, self.rundir, self.plan.attempt)
            order["run_dir"] = at.run_dir
        env = {} if is_mirrored(self.plan.run_dir) else credentials.place()
        if credentials.needed(spec):
            env = credentials.session(orders["deadline"] - time.time())
        own = {name: kept for name, kept in spec.secrets.items() if not kept.startswith(RUNPOD)}
        found = {
            **{name: ENV + name for name in spec.secrets if name not in own},
            **bringing.secrets(own, os.environ),
        }
        setup = {name: found[name] for name in spec.secrets_for("setup")}
        order.update(secrets={name: found[name] for name in spec.secrets_for("worker")}, setup_secrets=setup)
        order["agent_secrets"] = {name: found[name] for name in spec.secrets_for("agent")}
        orders["setup_secrets"] = setup
        bringing.begin(orders, env, sent.keeper)
        bringing.close()
        return at
