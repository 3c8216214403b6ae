"""What runs, or costs, without a run that lives: found by our marks on every platform, and judged by its run.

Nothing is left over that a living run may need: one whose agent was heard of lately, whose host is coming up, or whose
launcher may be renting another host just now. What carries our mark and belongs to a run that is not known here is
somebody else's, until its own deadline has passed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from runctl import extension, standing
from runctl.errors import ConfigError, RunctlError
from runctl.outcome import Attempt
from runctl.platforms.holdings import HOSTS, Holding
from runctl.platforms.hosts import BY_HAND
from runctl.registry import Registry
from runctl.rundir import RunDir, run_url
from runctl.spec import RunState
from runctl.storage import open_store

#: An agent that was silent for so long is gone, or cut off: launchers give up after 3 minutes, and clocks differ.
_SILENT_S = 900.0
#: How long a host may take to be gone that has ended, and to speak once it should be up.
_SPARE_S = 300.0
#: What was made just now may be about to be used.
_YOUNG_S = 3600.0
#: What belongs to no run in particular, such as a project that is being sent.
_OF_NOBODY_S = 24 * 3600.0
_AT_ONCE = 16
_LIVING = (RunState.PENDING.value, RunState.RUNNING.value, RunState.STOPPING.value)


class Holder(Protocol):
    """A platform, as far as this goes."""

    def holdings(self, roots: Sequence[str]) -> Iterable[Holding]:
        """What carries our mark; raises, in the end, if not everything could be looked at."""

    def release(self, holding: Holding) -> None:
        """End it."""


@dataclass(frozen=True)
class Judged:
    """A holding, whether it is left over, and why or why not."""

    holding: Holding
    left: bool
    why: str


class Leftovers:
    """Looks for what is left over.

    Args:
        platforms: by kind.
        registry: of the runs that are known here.
        roots: below which run directories may lie besides.

    Attributes:
        unseen: why a platform could not be looked at, or not at all of it, by its kind.
        failed: whether one of them ought to have answered: one without credentials is not the user's.
    """

    def __init__(self, platforms: dict[str, Holder], registry: Registry, roots: Sequence[str]) -> None:
        self._platforms = platforms
        self._registry = registry
        self._roots = list(dict.fromkeys([*registry.roots(), *roots]))
        self.unseen: dict[str, str] = {}
        self.failed = False

    def look(self) -> list[Judged]:
        """Everything that carries our mark, judged; of what could not be looked at, `unseen` says why."""
        found: list[Holding] = []
        for kind, platform in self._platforms.items():
            try:
                for one in platform.holdings(self._roots):
                    found.append(one)  # one by one: a platform that answers in part does so before it raises
            except RunctlError as error:
                self.unseen[kind] = str(error)
                self.failed |= not isinstance(error, ConfigError)
        return [self.judge(one) for one in found]

    def end(self, one: Holding) -> Judged:
        """End one holding, if it still is left over: it is judged once more.

        Raises:
            RunctlError: what its platform says.
        """
        judged = self.judge(one)
        if judged.left:
            self._platforms[one.platform].release(one)
        return judged

    def judge(self, one: Holding, now: float | None = None) -> Judged:
        """Whether it is left over.

        Args:
            one: what.
            now: seconds since the epoch.
        """
        now = time.time() if now is None else now
        try:
            # Two roots may each hold a run of that id, and what does not say whose it is may be either's.
            verdicts = [_of_run(one, rundir, now) for rundir in self._runs_of(one)] or [_of_unknown(one, now)]
            left, why = min(verdicts)
            if left and one.kind in HOSTS and (user := self._other_user(one, now)) is not None:
                left, why = False, f"run {user} has it now"
        except RunctlError as error:
            left, why = False, f"its run cannot be looked at: {error}"
        return Judged(one, left, why)

    def _runs_of(self, one: Holding) -> list[RunDir]:
        """The run directories of the run that it may have been made for."""
        if not one.run_id:
            return []
        urls = [run_url(one.root, one.run_id)] if one.root is not None else [
            *(entry.url for entry in self._registry.named(one.run_id) if entry.id == one.run_id),
            *(run_url(root, one.run_id) for root in self._roots),
        ]  # fmt: skip
        found = {rundir.url: rundir for rundir in map(RunDir, urls)}
        return [rundir for rundir in found.values() if rundir.exists() and not _names_another(rundir, one)]

    def _other_user(self, one: Holding, now: float) -> str | None:
        """Another run that lives on a host: in a sweep, and on hosts made by hand, one comes after the other."""
        if one.root is not None and (user := _user_below(one, one.root, now)) is not None:
            return user
        for root in self._roots:
            try:
                if (user := _user_below(one, root, now)) is not None:
                    return user
            except RunctlError:
                # Its users lie below its own root, as a rule; those of one without may lie below any, also below this.
                if one.root is None:
                    raise
        return None


def _user_below(one: Holding, root: str, now: float) -> str | None:
    """A run below a root that lives on a host which was rented for another, whose tags it keeps.

    Args:
        one: the host.
        root: where to look.
        now: seconds since the epoch.
    """

    def uses(run_id: str) -> bool:
        rundir = RunDir(run_url(root, run_id))
        plan = rundir.last_submission()
        submitted = None if plan is None else rundir.submission(plan.attempt)
        if plan is None or submitted is None or submitted[1] is None or submitted[1].address.get("instance") != one.id:
            return False
        since = float(submitted[1].address.get("launched_at", now))
        return not _host(replace(one, created_at=since, ends_at=None), rundir, plan.attempt, now)[0]

    ids = [name for name in open_store(root).names("") if not name.startswith(".") and name != one.run_id]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return next((run_id for run_id, used in zip(ids, threads.map(uses, ids), strict=True) if used), None)


def _of_unknown(one: Holding, now: float) -> tuple[bool, str]:
    """What belongs to no run that is known here."""
    if one.kind in HOSTS:
        if one.ends_at is not None and now > one.ends_at + _SPARE_S:
            return True, f"its deadline was {_ago(now - one.ends_at)}"
        return False, "made by hand; it ends itself" if one.attempt == BY_HAND else "its run is not known here"
    if one.kind == "upload" and not one.run_id:
        young = one.created_at is None or now - one.created_at < _OF_NOBODY_S
        return not young, "a day and more old" if not young else "not a day old"
    return False, "its run is not known here"


def _names_another(rundir: RunDir, one: Holding) -> bool:
    """Whether a run asked for hosts of another name: then one of its id was made for a run of somebody else's."""
    submitted = rundir.submission(one.attempt) if one.name and one.attempt is not None else None
    asked = () if submitted is None else submitted[0].requests
    names = {request["arguments"]["name"] for request in asked if "name" in request.get("arguments", {})}
    return bool(names) and one.name not in names


def _of_run(one: Holding, rundir: RunDir, now: float) -> tuple[bool, str]:
    if one.kind in HOSTS and one.attempt is not None:
        return _host(one, rundir, one.attempt, now)
    if one.in_use:
        return False, "in use"
    state = standing.look(rundir)
    heard = max(filter(None, [state.heard_at, state.ended_at]), default=0.0)
    waits = state.state == RunState.INTERRUPTED.value and now - heard < _YOUNG_S
    if state.state in _LIVING or waits or now - heard < _SILENT_S:
        return False, f"its run is {state.state}"
    if one.created_at is not None and now - one.created_at < _YOUNG_S:
        return False, f"made {_ago(now - one.created_at)}"
    return True, f"its run is {state.state}"


def _host(one: Holding, rundir: RunDir, attempt: int, now: float) -> tuple[bool, str]:
    """A host, by what its agent said last."""
    record = rundir.read_attempt(attempt)
    submitted = rundir.submission(attempt)
    orders = submitted[0].orders if submitted else {}
    # What lies on the pod alone is known here only while a launcher brings it: silence means nothing then.
    mirrored = "://" not in rundir.url
    deadline = one.ends_at
    if submitted is not None and submitted[1] is not None:
        deadline = extension.deadline(submitted[0], submitted[1]) or deadline
        deadline = None if deadline is None else deadline + extension.put_off_s(rundir, attempt)
    if record is not None and record.state.ended:
        return _ended(record, orders, now, mirrored=mirrored)
    if mirrored:
        if deadline is not None and now > deadline + _SPARE_S:
            return True, f"its deadline was {_ago(now - deadline)}"
        return False, "it may live: its run directory lies on it"
    if record is None:
        born = one.created_at if one.created_at is not None else now
        if now - born < float(orders.get("bring_up_s", _YOUNG_S)) + 2 * _SPARE_S:
            return False, "it is coming up"
        return True, "its agent never spoke"
    told = [one for one in (rundir.read_status(), rundir.heartbeat()) if one and one.get("attempt") == attempt]
    heard = max([record.started_at, *(float(one.get("at", 0.0)) for one in told)])
    if now - heard < _SILENT_S or rundir.lease.is_held():
        return False, f"it was heard of {_ago(now - heard)}"
    return True, f"it was heard of last {_ago(now - heard)}"


def _ended(record: Attempt, orders: dict[str, Any], now: float, *, mirrored: bool) -> tuple[bool, str]:
    ended_s = now - (record.ended_at or now)
    stays_s = (
        _SPARE_S + float(orders.get("keep_warm_s", 0.0)) + (float(orders.get("collect_s", 0.0)) if mirrored else 0.0)
    )
    if record.state is RunState.FAILED:
        stays_s += float(orders.get("keep_on_failure_s", 0.0))
    why = f"its attempt {record.state.value} {_ago(ended_s)}"
    return (True, why) if ended_s > stays_s else (False, f"{why}; it ends itself")


def _ago(seconds: float) -> str:
    from runctl.durations import readable

    return f"{readable(max(0.0, seconds))} ago"
