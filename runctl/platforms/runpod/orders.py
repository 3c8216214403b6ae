"""What the keeper of a pod is told to do, and how it gets there: planned without looking, completed over SSH."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runctl.hosts.secrets import ENV, RUNPOD
from runctl.platforms.parcel import Parcel
from runctl.platforms.runpod import credentials, outputs
from runctl.platforms.runpod.ssh import Connection
from runctl.platforms.runpod.start import Bringing, Place, for_pod, place
from runctl.rundir import RunDir, run_url
from runctl.spec import LaunchSpec, Plan, RunHandle

CALL = "ssh"


def is_mirrored(run_dir: str) -> bool:
    """Whether a run directory lies on this machine, so that its pods keep one of their own, which is brought here."""
    return "://" not in run_dir


def planned(
    spec: LaunchSpec, attempt: int, *, python: str | None, setup: tuple[str, ...], bring_up_s: float,
    keep_on_failure_s: float, collect_s: float, lives_s: float,
) -> dict[str, Any]:  # fmt: skip
    """The orders but for what is known only once there is a pod: paths, times, values of secrets.

    Args:
        spec: what is to run.
        attempt: its number.
        python: the ranks' interpreter.
        setup: lines for the host's shell.
        bring_up_s: how long it may be prepared.
        keep_on_failure_s: how long it stays after a failure.
        collect_s: how long it stays after its end for a launcher to bring what only lies there.
        lives_s: how long it may live altogether.
    """
    run_dir = run_url(spec.run.root, spec.run.id)
    return {
        "call": CALL,
        "orders": {
            "run_id": spec.run.id,
            "attempt": attempt,
            "setup": list(setup),
            "agent_python": None,
            "env": {},
            "bring_up_s": bring_up_s,
            "keep_on_failure_s": keep_on_failure_s,
            "collect_s": collect_s if is_mirrored(run_dir) else 0.0,
            "lives_s": lives_s,
            "unit": f"runctl-{spec.run.id}-a{attempt}",
            "order": {
                "run_dir": run_dir,
                "attempt": attempt,
                "platform": "runpod",
                "attached": False,
                "notices": "none",
                "python": python,
            },
        },
    }


@dataclass(frozen=True)
class PodStart:
    """Brings an attempt to its pod and starts its keeper there, once, however often the line is made.

    Attributes:
        plan: as it was submitted.
        handle: the pod.
        rundir: the run directory as it is seen from here.
        parcel: makes what is sent, when it is needed.
        workdir: where the user's relative paths lead.
        volume: the mount path of a network volume, or None.
        tell: takes lines for the user.
    """

    plan: Plan
    handle: RunHandle
    rundir: RunDir
    parcel: Callable[[], Parcel]
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
        orders = dict(next(one for one in self.plan.requests if one.get("call") == CALL)["orders"])
        parcel = self.parcel()
        orders["files"] = bringing.files(parcel.items[:-1])
        order = dict(orders["order"])
        where = self.handle.address
        if is_mirrored(self.plan.run_dir):
            here = bringing.inputs(outputs.taken_to(for_pod(spec, at), at.run_dir), self.workdir())
            bringing.run_dir(here, self.rundir, self.plan.attempt)
            order["run_dir"] = at.run_dir
        orders["deadline"] = where["launched_at"] + orders.pop("lives_s")
        env = {} if is_mirrored(self.plan.run_dir) else credentials.place()
        if credentials.needed(spec):
            env = credentials.session(orders["deadline"] - where["launched_at"])
        sent = {name: kept for name, kept in spec.secrets.items() if not kept.startswith(RUNPOD)}
        found = {
            **{name: ENV + name for name in spec.secrets if name not in sent},
            **bringing.secrets(sent, os.environ),
        }
        setup = {name: found[name] for name in spec.secrets_for("setup")}
        order.update(
            secrets={name: found[name] for name in spec.secrets_for("worker")},
            setup_secrets=setup,
            market=where["market"],
            price_usd_per_hour=where["price_usd_per_hour"],
            billed_from=where["launched_at"],
        )
        orders.update(order=order, setup_secrets=setup)
        bringing.begin(orders, env, parcel.keeper)
        bringing.close()
        return at
