"""Where a launch is rehearsed: a loopback cloud, and what is the same of all of them.

A stage knows hosts: which attempt is on each, where its folder is, what it costs; and it can take one away.
"""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from runctl.drill import prices
from runctl.drill.cloud import Cloud
from runctl.drill.faults import Fault
from runctl.drill.runpod.account import gpus
from runctl.drill.runpod.cloud import RunpodCloud
from runctl.drill.scenario import Event
from runctl.errors import ConfigError

_BUCKET = "runctl-drill"
#: RunPod's notice (seconds); nobody can have a longer one.
_RUNPOD_NOTICE_S = 5.0
_NO_REBALANCE = "drill.events: do: rebalance: RunPod recommends nothing; interrupt and kill are to be had"
#: What a launch asks RunPod.
_CALLS = ("gpuTypes", "myself", "pod", "podFindAndDeployOnDemand", "podRentInterruptable", "podTerminate")


@dataclass(frozen=True)
class Host:
    """A host that was rented in the drill.

    Attributes:
        run_id: of the run for which it was rented; a host that stays may carry others afterwards.
        attempt: 0 if it carries none.
        where: type, market and place, for people.
        price_usd_per_hour: None where it is not known.
        on_demand_usd_per_hour: of the same host on demand.
        launched_at, ended_at: seconds since the epoch.
    """

    id: str
    run_id: str
    attempt: int
    is_running: bool
    folder: Path
    where: str
    price_usd_per_hour: float | None
    on_demand_usd_per_hour: float | None
    launched_at: float
    ended_at: float | None


class Stage(ABC):
    """A loopback cloud with one launch in it.

    Attributes:
        provider: its name for people.
        root: where the run's directory lies.
    """

    provider: str
    root: str

    def __enter__(self) -> Stage:
        self._held = contextlib.ExitStack()
        with contextlib.ExitStack() as held:
            self._open(held)
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    @abstractmethod
    def _open(self, held: contextlib.ExitStack) -> None:
        """Start it; what ends it again goes into `held`."""

    @property
    @abstractmethod
    def urls(self) -> list[str]:
        """Of everything that a launch inside may reach."""

    @abstractmethod
    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """An environment in which a launch sees this and no account of the user's."""

    @abstractmethod
    def hosts(self) -> list[Host]:
        """Every host that was rented, those that have ended too."""

    @abstractmethod
    def interrupt(self, host: str, notice_s: float) -> str:
        """Take a host back, with notice; what that is called."""

    @abstractmethod
    def kill(self, host: str) -> None:
        """Have a host vanish."""

    @abstractmethod
    def rebalance(self, host: str) -> None:
        """Recommend to leave a host.

        Raises:
            ConfigError: where there is nothing of the kind.
        """

    def check(self, event: Event) -> None:  # noqa: B027 (most can happen anywhere)
        """Check that an event can happen here.

        Raises:
            ConfigError: if it cannot.
        """

    @abstractmethod
    def inject(self, fault: Fault) -> None:
        """Have later calls meet a fault."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """A file below the root, or None."""

    @abstractmethod
    def checkpoints(self, run_id: str) -> set[str]:
        """Those that have come to where the run's directory lies."""


class AwsStage(Stage):
    """The loopback AWS.

    Args:
        root: what `run.root` says; a place on this machine is replaced by a bucket of the drill's.
        s3: what answers for S3.
    """

    provider = "AWS"

    def __init__(self, root: str, s3: str) -> None:
        self.root = root if "://" in root else f"s3://{_BUCKET}/runs"
        self._cloud = Cloud(s3=s3)

    def _open(self, held: contextlib.ExitStack) -> None:
        held.enter_context(self._cloud)
        self._cloud.make_bucket(urlsplit(self.root).netloc)

    @property
    def urls(self) -> list[str]:
        return [self._cloud.url]

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        # An address of RunPod's, which this launch has no use for, must not look as if it led out of the drill.
        own = {name: value for name, value in base.items() if not name.startswith("RUNPOD_")}
        # The user's own runs are not to be mixed with what is rehearsed.
        return {**self._cloud.environment(own), "XDG_STATE_HOME": str(self._cloud.folder / "state")}

    def hosts(self) -> list[Host]:
        return [self._host(one) for one in self._cloud.instances()]

    def _host(self, one: dict[str, Any]) -> Host:
        spot = prices.spot(one["machine"], one["zone"]) if one["market"] == "spot" else None
        full = prices.on_demand(one["machine"], one["region"])
        return Host(
            one["id"], one["tags"].get("runctl:run", ""), int(one["tags"].get("runctl:attempt", 0)),
            one["state"] == "running", Path(one["folder"]),
            f"{one['machine']} {one['market'].replace('_', ' ')} {one['zone']}", spot or full, full,
            one["launched_at"], one["ended_at"],
        )  # fmt: skip

    def interrupt(self, host: str, notice_s: float) -> str:
        self._cloud.interrupt(host, notice_s)
        return f"AWS takes {host} back in {notice_s:.0f} s"

    def kill(self, host: str) -> None:
        self._cloud.kill(host)

    def rebalance(self, host: str) -> None:
        self._cloud.rebalance(host)

    def inject(self, fault: Fault) -> None:
        self._cloud.inject(fault)

    def read(self, name: str) -> bytes | None:
        return self._cloud.read(f"{self.root}/{name}")

    def checkpoints(self, run_id: str) -> set[str]:
        return _put_into(self._cloud)


class RunpodStage(Stage):
    """The loopback RunPod; beside it S3, if that is where the run's directory lies.

    Args:
        root: what `run.root` says; a place on this machine is replaced by a folder of the drill's.
        s3: what answers for S3.
    """

    provider = "RunPod"

    def __init__(self, root: str, s3: str) -> None:
        self._pods = RunpodCloud()
        self._s3 = Cloud(s3=s3) if "://" in root else None
        self.root = root if "://" in root else str(self._pods.folder / "runs")

    def _open(self, held: contextlib.ExitStack) -> None:
        if self._s3 is not None:
            held.enter_context(self._s3)
            self._s3.make_bucket(urlsplit(self.root).netloc)
        held.enter_context(self._pods)
        if self._s3 is not None:
            # What a rehearsal's pods get of the user's secrets to object storage are keys to the drill's.
            told = self._s3.environment({})
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                self._pods.set_unmade_secret(name, told[name])

    @property
    def urls(self) -> list[str]:
        return [self._pods.url, *([] if self._s3 is None else [self._s3.url])]

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        own = {name: value for name, value in base.items() if not name.startswith("AWS_")}
        told = self._pods.environment(own if self._s3 is None else self._s3.environment(own))
        return {**told, "XDG_STATE_HOME": str(self._pods.folder / "state")}

    def hosts(self) -> list[Host]:
        return [self._host(one) for one in self._pods.pods()]

    @staticmethod
    def _host(one: dict[str, Any]) -> Host:
        name, _, number = one["name"].rpartition("-a")
        full = next((gpu.price(one["cloud"], "on_demand") for gpu in gpus() if gpu.id == one["machine"]), None)
        count = one["asked"].get("gpuCount") or 1
        return Host(
            one["id"], name.removeprefix("runctl-"), int(number) if number.isdigit() else 0,
            one["state"] == "running", Path(one["folder"]),
            f"{one['machine']} {one['market'].replace('_', ' ')} {one['cloud']}", one["price"], full and full * count,
            one["created_at"], one["ended_at"],
        )  # fmt: skip

    def interrupt(self, host: str, notice_s: float) -> str:
        self._pods.interrupt(host)
        return f"RunPod takes {host} back: SIGTERM now, SIGKILL in {_RUNPOD_NOTICE_S:.0f} s"

    def kill(self, host: str) -> None:
        self._pods.kill(host)

    def rebalance(self, host: str) -> None:
        raise ConfigError(_NO_REBALANCE)

    def check(self, event: Event) -> None:
        if event.do == "rebalance":
            raise ConfigError(_NO_REBALANCE)
        if event.fault is not None and event.fault.action not in _CALLS:
            raise ConfigError(
                f"drill.events: {event.fault.action} is no call of RunPod's; there are {', '.join(_CALLS)}; of the "
                "scenarios spot, no_notice and launcher_killed are for RunPod as well"
            )

    def inject(self, fault: Fault) -> None:
        self._pods.inject(fault)

    def read(self, name: str) -> bytes | None:
        if self._s3 is not None:
            return self._s3.read(f"{self.root}/{name}")
        with contextlib.suppress(OSError):
            return Path(self.root, name).read_bytes()
        return None

    def checkpoints(self, run_id: str) -> set[str]:
        if self._s3 is not None:
            return _put_into(self._s3)
        lines = (self.read(f"{run_id}/events.jsonl") or b"").splitlines()
        pulled = (json.loads(line) for line in lines if b'"checkpoint_pulled"' in line)
        return {str(one["step"]) for one in pulled}


def _put_into(cloud: Cloud) -> set[str]:
    """Manifests of checkpoints that were put into a bucket."""
    puts = (one["path"] for one in cloud.calls() if one["action"] == "PutObject")
    return {path for path in puts if "/checkpoints/" in path and path.endswith("/manifest.json")}
