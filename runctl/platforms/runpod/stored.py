"""What a pod fetches by itself: its orders and files, put on object storage once it is known which pod it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runctl import hosts
from runctl.errors import ConfigError
from runctl.hosts.secrets import ENV, RUNPOD
from runctl.platforms import parcel
from runctl.platforms.runpod import credentials
from runctl.platforms.runpod.keys import RENTED_FOR
from runctl.platforms.runpod.orders import of_plan
from runctl.platforms.runpod.start import SHUTDOWN
from runctl.platforms.watching import bring_up_log
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, Plan, RunHandle
from runctl.storage import open_store

_HOSTS = Path(hosts.__file__).parent
#: Below the run directory for which a pod was rented: what it is to do after its first attempt.
_NEXT = "hosts/next.json"


def check(spec: LaunchSpec) -> None:
    """Check that a pod can fetch what it needs, with keys that RunPod alone keeps.

    Raises:
        ConfigError: naming what is in the way.
    """
    what = "platform.transport=start_command"
    if not spec.run.root.startswith(("s3://", "s3a://")):
        raise ConfigError(
            f"{what}: the pod fetches what it runs from object storage, and run.root={spec.run.root} is none; "
            "run.root=s3://my-bucket/runs, or platform.transport=ssh"
        )
    if credentials.needed(spec):
        raise ConfigError(
            f"{what}: the pod's keys to object storage must not stand in the request for it, and nobody can bring it a "
            f"session; {credentials.BY_NAME}"
        )
    for name, kept in spec.secrets.items():
        if not kept.startswith(RUNPOD):
            raise ConfigError(
                f"secrets.{name}={kept}: with {what} nobody can bring it to the pod; keep it as a RunPod secret "
                f"(secrets.{name}=runpod:its_name), or platform.transport=ssh"
            )


@dataclass(frozen=True)
class StoredOrders:
    """Puts down what one pod is to do.

    Attributes:
        plan: as it was submitted.
        handle: the pod.
        rundir: the run directory.
        made: makes what is sent, when it is needed.
        tell: takes lines for the user.
    """

    plan: Plan
    handle: RunHandle
    rundir: RunDir
    made: Callable[[], parcel.Parcel]
    tell: Callable[[str], None]

    def put(self) -> None:
        """Put it down, unless it lies there for this pod.

        Raises:
            StorageError: if that fails.
        """
        pod, attempt = self.handle.address["instance"], self.plan.attempt
        where = {self.rundir.url: parcel.orders_name(attempt)}
        if self.handle.address.get("kept"):
            where[self.handle.address[RENTED_FOR][0]] = _NEXT  # last, for there it looks
        told = {"instance": pod, "run_id": self.plan.run_id, "attempt": attempt}
        if all(told.items() <= (open_store(url).read_json(name) or {}).items() for url, name in where.items()):
            return
        spec, sent = self.rundir.read_spec(), self.made()
        sent.send(spec.run.root, self.tell)
        found = {name: ENV + name for name in spec.secrets}
        setup = {name: found[name] for name in spec.secrets_for("setup")}
        orders = parcel.completed(of_plan(self.plan), self.handle)
        orders["order"].update(secrets={name: found[name] for name in spec.secrets_for("worker")}, setup_secrets=setup)
        orders["order"]["agent_secrets"] = {name: found[name] for name in spec.secrets_for("agent")}
        root = spec.run.root.rstrip("/")
        orders.update(
            instance=pod,
            setup_secrets=setup,
            files=[_described(item, root) for item in sent.items[:-1]],
            log_url=f"{self.rundir.url}/{bring_up_log(attempt)}",
            programs={
                "keeper.py": sent.keeper.path.read_text(),
                "bin/runpod.py": (_HOSTS / "runpod.py").read_text(),
                "bin/shutdown": SHUTDOWN,
            },
        )
        for url, name in where.items():
            open_store(url).write(name, json.dumps(orders, ensure_ascii=False).encode())


def _described(item: parcel.Item, root: str) -> dict[str, Any]:
    return {
        "name": item.name, "sha256": item.sha256, "size_bytes": item.size_bytes, "unpack_to": item.unpack_to,
        "url": f"{root}/{item.key}",
    }  # fmt: skip
