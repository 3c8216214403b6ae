"""Hosts of a platform apart from any launch: made by hand, listed, commanded, ended; only ever our own.

A host that is made by hand belongs to no run: it carries a name of its own where others carry their run's id, and the
number 0 where they carry an attempt's. It lives until its deadline or until somebody ends it; trainings come and go.

<state>/hosts/<id>.json     what this machine knows of a host besides: its name, where it is, which run was on it last
<state>/hosts/<name>/       what belongs to it, such as the key by which a pod is known
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import string
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runctl import lease
from runctl.config.files import state_home
from runctl.encoding import to_data
from runctl.errors import ConfigError, StorageError
from runctl.rundir import RunDir
from runctl.spec import LaunchSpec, Limits, Plan, Program, Resources, RunHandle, RunIdentity, RunState

#: The number where hosts of runs carry an attempt's.
BY_HAND = 0
#: What a training leaves of its host's time for its last upload and its records, besides its own grace.
_AFTERWARDS_S = 120.0
_LEAST_S = 60.0


@dataclass(frozen=True)
class Host:
    """A host as its platform tells of it.

    Attributes:
        id: the platform's.
        state: the platform's word.
        owner: who made it; empty where that is not known.
        run: the id of its run, or of one that is made by hand its name.
        attempt: the run's; `BY_HAND` for one that belongs to no run.
        region: or cloud.
        launched_at: seconds since the epoch.
        ends_at: when it ends itself at the latest; None where that is not known.
        root: where its run's directory lies, or None if it does not say.
    """

    platform: str
    id: str
    state: str
    run: str
    attempt: int
    owner: str = ""
    machine: str = ""
    market: str = ""
    region: str = ""
    zone: str = ""
    price_usd_per_hour: float | None = None
    launched_at: float = 0.0
    ends_at: float | None = None
    root: str | None = None

    @property
    def by_hand(self) -> bool:
        """Whether it belongs to no run."""
        return self.attempt == BY_HAND

    @property
    def lives_s(self) -> float:
        """How long it may live, from its launch."""
        return (self.ends_at or self.launched_at) - self.launched_at

    def to_json(self) -> dict[str, Any]:
        """The public form."""
        data: dict[str, Any] = to_data(self)
        return {**data, "by_hand": self.by_hand}

    def address(self) -> dict[str, Any]:
        """What a run's handle says of it: billed from the attempt's begin, for what was before is not the run's."""
        return {
            "instance": self.id, "region": self.region, "cloud": self.region, "zone": self.zone or None,
            "machine": self.machine, "market": self.market, "launched_at": self.launched_at,
            "price_usd_per_hour": self.price_usd_per_hour, "billed_from": None, "stays": True, "host_name": self.run,
        }  # fmt: skip

    def check_free(self, run_dir: str) -> None:
        """Check that no other training is here, as far as this machine knows: one would wait for its end.

        Args:
            run_dir: of the run that is to come here.

        Raises:
            ConfigError: naming the run that is.
        """
        there = noted(self.id).get("run_dir")
        if isinstance(there, str) and there != run_dir:
            with contextlib.suppress(StorageError):
                if _trains(RunDir(there), self.id):
                    run = there.rsplit("/", 1)[-1]
                    raise ConfigError(
                        f"platform.host={self.id}: run {run} trains there just now; runctl wait {run} waits for its "
                        f"end, runctl stop {run} stops it; or take another host"
                    )

    def limited(self, limits: Limits, grace_s: float) -> Limits:
        """Limits that end a training before the host ends itself.

        Raises:
            ConfigError: if it belongs to a run, or there is no time left for one.
        """
        if not self.by_hand or self.ends_at is None:
            raise ConfigError(
                f"platform.host={self.id}: trainings go to hosts that `runctl {self.platform} create` made"
                + (" on this machine" if self.by_hand else f"; this one is run {self.run}'s")
            )
        left_s = self.ends_at - time.time() - grace_s - _AFTERWARDS_S
        if left_s < _LEAST_S:
            raise ConfigError(
                f"platform.host={self.id}: it ends itself in {max(0.0, left_s + grace_s + _AFTERWARDS_S) / 60:.0f} "
                "minutes, which is too soon for a training; make another, with a longer --max-time"
            )
        wanted = limits.max_time_s
        return replace(limits, max_time_s=min(left_s, wanted) if wanted is not None else left_s)


@dataclass(frozen=True)
class Ran:
    """How a command on a host ended."""

    exit_code: int
    stdout: str
    stderr: str


class Hosts(ABC):
    """The hosts of one platform that are ours, by their tags or names."""

    @abstractmethod
    def living(self) -> list[Host]:
        """Those that cost something now, the oldest first.

        Raises:
            RunctlError: if the platform cannot be asked.
        """

    @abstractmethod
    def create(self, resources: Resources, lives_s: float) -> Host:
        """Rent one that belongs to no run, and ends itself after so many seconds, whatever happens to everybody else.

        Raises:
            OfferRefused: if there is none to be had now.
            RunctlError: if it cannot be had for another reason.
        """

    @abstractmethod
    def get(self, host_id: str) -> Host:
        """One of ours that lives.

        Raises:
            ConfigError: if there is none of this id, or it is not ours.
        """

    @abstractmethod
    def run(self, host_id: str, command: str, timeout_s: float) -> Ran:
        """Run a command of `sh` on one of ours, to its end.

        Raises:
            RunctlError: if it could not be run, or took longer.
        """

    @abstractmethod
    def shell(self, host_id: str, folder: str) -> list[str]:
        """The command that opens a shell on one of ours, for whoever sits here.

        Args:
            host_id: whose.
            folder: where it begins, below the folder of all that is runctl's there; where that can be said.

        Raises:
            ConfigError: if a program for it is missing here, saying which and where it is to be had.
        """

    @abstractmethod
    def terminate(self, host_id: str) -> Host:
        """End one of ours, with its disks.

        Raises:
            ConfigError: if there is none of this id, or it is not ours.
            PlatformError: if it could not be ended.
        """


#: The first request of a plan for a host that is there already.
USE = "UseHost"


def used(plan: Plan) -> RunHandle | None:
    """Where the attempt of a plan is that uses a host which is there; None for a plan that rents one."""
    if not plan.requests or plan.requests[0]["call"] != USE:
        return None
    return RunHandle(plan.platform, plan.run_id, plan.attempt, plan.requests[0]["address"])


def new_name() -> str:
    """A name for a host that is made by hand."""
    letters = "".join(secrets.choice(string.ascii_lowercase) for _ in range(4))
    return f"host-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{letters}"


def spec_of(name: str, resources: Resources) -> LaunchSpec:
    """What a host is rented for that belongs to no run: nothing but itself."""
    return LaunchSpec(RunIdentity(name, name, ""), Program(None, None), resources=resources)


def folder(name: str) -> Path:
    """Where what belongs to a host that was made by hand lies on this machine."""
    return state_home() / "hosts" / name


def note(host_id: str, **told: Any) -> None:
    """Remember something of a host; it is as good without."""
    path = _noted(host_id)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        aside = path.with_name(f".tmp-{path.name}-{secrets.token_hex(4)}")
        aside.write_text(json.dumps({**noted(host_id), **told}))
        aside.replace(path)


def noted(host_id: str) -> dict[str, Any]:
    """What this machine remembers of a host; {} if nothing."""
    with contextlib.suppress(OSError, ValueError):
        told = json.loads(_noted(host_id).read_text())
        return told if isinstance(told, dict) else {}
    return {}


def program(name: str, what: str) -> str:
    """Where a program of this machine lies.

    Raises:
        ConfigError: if there is none, saying where it is to be had.
    """
    found = shutil.which(name)
    if found is None:
        raise ConfigError(f"{name} is not installed here; {what}")
    return found


def not_ours(host_id: str, where: str) -> ConfigError:
    """The error for an id that is nobody's, or somebody else's."""
    return ConfigError(f"{host_id}: no living host of ours in {where}; what is not made by runctl is left alone")


def _trains(rundir: RunDir, host_id: str) -> bool:
    """Whether a run lives on a host; one of which nothing is heard does not count."""
    status, beat = rundir.read_status(), rundir.heartbeat()
    if status is None or beat is None or RunState(status["state"]).ended:
        return False
    submitted = rundir.submission(status["attempt"])
    on_it = submitted is not None and submitted[1] is not None and submitted[1].address.get("instance") == host_id
    return on_it and time.time() - float(beat["at"]) < lease.TIMEOUT_S


def _noted(host_id: str) -> Path:
    return state_home() / "hosts" / f"{host_id.replace('/', '_')}.json"
