"""Hosts of ours that run without a live run: what `cleanup` ends."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from runctl import standing
from runctl.errors import StorageError
from runctl.platforms import registry as platforms
from runctl.platforms.hosts import Host, Hosts
from runctl.registry import Registry
from runctl.rundir import RunDir, run_url

#: What a host has after its run's end to end itself; one that failed may stay for a look (`platform.keep_on_failure`).
_ENDS_WITHIN_S = 300.0
_STAYS_S = 1800.0


@dataclass(frozen=True)
class Looked:
    """A host, and whether there is anybody for whom it runs.

    Attributes:
        why: why it is left over; empty if it is not.
        about: what is known of its run, for people.
    """

    host: Host
    why: str
    about: str

    def to_json(self) -> dict[str, Any]:
        """The public form."""
        return {**self.host.to_json(), "left_over": bool(self.why), "why": self.why or self.about}


def look(hosts: Hosts) -> list[Looked]:
    """Every host of ours on a platform, with the reason why it is left over if it is.

    Raises:
        RunctlError: if the platform cannot be asked.
    """
    index = Registry()
    now = time.time()
    return [_judged(one, index, now) for one in hosts.living()]


def _judged(host: Host, index: Registry, now: float) -> Looked:
    if host.ends_at is not None and now > host.ends_at + _ENDS_WITHIN_S:
        return Looked(host, "its deadline is past, and it did not end itself", "")
    if host.by_hand:
        return Looked(host, "", "made by hand; it ends itself at its deadline")
    rundir = _run_dir(host, index)
    if rundir is None:
        return Looked(host, "", f"its run {host.run} is not known here; runctl reindex finds it")
    try:
        run = standing.look(rundir)
    except StorageError as error:
        return Looked(host, "", f"its run {host.run} cannot be read: {error}")
    if run.attempt > host.attempt and host.attempt > 0:
        return Looked(host, f"attempt {host.attempt} of {host.run} is over, attempt {run.attempt} goes on", "")
    waits_s = _STAYS_S if run.state == "failed" else _ENDS_WITHIN_S
    if run.ended and run.ended_at is not None and now > run.ended_at + waits_s:
        return Looked(host, f"its run {host.run} has ended: {run.state}", "")
    return Looked(host, "", f"{host.run} {run.state}")


def _run_dir(host: Host, index: Registry) -> RunDir | None:
    """The run directory of a host's run, where it is known or lies where runs lie by default."""
    places = [one.url for one in index.named(host.run)]
    places += [run_url(root, host.run) for root in (*index.roots(), platforms.load(host.platform).default_root())]
    for place in dict.fromkeys(places):
        rundir = RunDir(place)
        try:
            if rundir.exists():
                return rundir
        except StorageError:
            continue
    return None
