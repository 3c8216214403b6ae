"""The platform `runpod`: a RunPod pod, reached over SSH or by way of object storage.

options      what can be told, checked
api          RunPod's GraphQL through its SDK, and what it raises in our words
refusals     what its words mean
market       what there is to rent just now → Quote
requests     the exact requests → Plan
purchase     the requests sent, each with a look before it
pods         pods that exist
hosts        the same apart from any launch: made by hand, listed, commanded, ended
keys         the keys by which launcher and pod know each other
ssh          commands on a pod
files        files to it and from it
credentials  what it writes to object storage with
boot         what its container is started with
start        what it is brought, and how its keeper is started
orders       what its keeper is told
stored       what it fetches by itself, where nobody reaches it
rates        what it costs besides its GPUs
mirror       a run directory that lies on it, brought here
pulled       its checkpoints, brought here
outputs      its outputs, brought here
line         all of that in a thread, as long as it lives
watch        a pod from its launch to its end
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from runctl.checkpoint import origin
from runctl.checkpoint.catalog import Catalog
from runctl.checkpoint.remote import FOLDER
from runctl.config.platform import PlatformConfig
from runctl.cost import Rates
from runctl.environment import note
from runctl.errors import ConfigError
from runctl.extension import deadline as deadline_of
from runctl.hosts.secrets import RUNPOD
from runctl.platforms import local_data, parcel
from runctl.platforms.holdings import Holding
from runctl.platforms.hosts import USE, Host, used
from runctl.platforms.planned import planned
from runctl.platforms.rented import chosen, estimated, lifetime_s
from runctl.platforms.renting import RentingPlatform
from runctl.platforms.runpod import boot, credentials, market, orders, rates, requests, start, stored
from runctl.platforms.runpod.api import Api
from runctl.platforms.runpod.hosts import RunpodHosts, end_attempt, is_open, of_handle
from runctl.platforms.runpod.keys import of_attempt
from runctl.platforms.runpod.line import Line, Mirrored
from runctl.platforms.runpod.notes import of_balance, of_bid, of_fetching, of_mirror, of_project
from runctl.platforms.runpod.options import MOUNT_PATH, RunpodConfig, RunpodOptions, Transport
from runctl.platforms.runpod.pods import Pod, Pods
from runctl.platforms.runpod.purchase import Purchase
from runctl.platforms.runpod.watch import FetchingWatch, LineWatch, PodWatch
from runctl.rundir import RunDir, run_url
from runctl.spec import LaunchSpec, Offer, Plan, Quote, RunHandle

#: How much longer a pod is rented that is to stay for other runs: none of them goes to one that would end before it.
_FOR_OTHERS_S = 6 * 3600.0


class RunpodPlatform(RentingPlatform[PodWatch]):
    """A RunPod pod for each attempt."""

    kind = "runpod"
    has_berths = True
    options: ClassVar[type[PlatformConfig]] = RunpodConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert isinstance(self._config, RunpodConfig)
        self._options = RunpodOptions.of(self._config, attached=self._attached)
        self._api = Api()
        self._pods = Pods(self._api)
        self.terms = self._options.terms
        self._host: Host | None = None

    def hosts(self) -> RunpodHosts:
        return RunpodHosts(self._api, self._options, self._tell)

    def _completed(self, spec: LaunchSpec) -> LaunchSpec:
        host = self._host if self._watches else self._given()
        if host is None:
            return super()._completed(spec)
        return replace(spec, limits=host.limited(spec.limits, spec.checkpoint.grace_s))

    def _given(self) -> Host | None:
        """The pod that was named; None without one, and for a run that was interrupted there: it goes on elsewhere."""
        if self._options.host is not None and self._host is None and not self._watches:
            self._host = self.hosts().get(self._options.host)
        if self._host is not None and self._watches:
            self._tell(f"{self._host.id} is lost to this run; it goes on on one that is rented, and ends with it")
            self._host = None
        return self._host

    def gpus(self, offer: Offer) -> str:
        return offer.machine.removeprefix("NVIDIA ").removeprefix("GeForce ")

    def _staged(self, spec: LaunchSpec) -> LaunchSpec:
        if orders.is_mirrored(spec.run.root):
            return spec  # it goes to the pod over SSH
        return local_data.sent(spec, self._workdir(spec), self._tell)

    def _check_ready(self, spec: LaunchSpec) -> None:
        self._api.require_key()
        if not self._over_ssh:
            stored.check(spec)
        for name, kept in spec.secrets.items():
            if not kept.startswith(RUNPOD):
                start.value_of(name, kept, os.environ)
        mirrored = orders.is_mirrored(spec.run.root)
        own = spec.checkpoint.origin
        if own is not None and "://" not in own:
            if not mirrored:
                raise ConfigError(
                    f"checkpoint.resume={own}: a pod cannot reach this machine; copy it to object storage and name the "
                    "copy, or keep the run itself here (run.root=runs), which brings it to the pod over SSH"
                )
            if not Catalog(Path(run_url(spec.run.root, spec.run.id), FOLDER)).steps():
                origin.here(own, self._tell)  # before anything is rented
        for key, place in (("checkpoint.url", spec.checkpoint.url), *_places(spec)):
            if not mirrored and place is not None and "://" not in place and key != "data.inputs":
                raise ConfigError(f"{key}={place}: a pod cannot reach this machine; name a place on object storage")
        local_data.check_none_forgotten(spec, self._workdir(spec))
        if credentials.needed(spec):
            credentials.session(self._lives_s(spec))

    def _quote(self, spec: LaunchSpec) -> Quote:
        if (host := self._given()) is not None:
            host.check_free(run_url(spec.run.root, spec.run.id))
            offer = Offer(self.kind, host.machine, "own", host.region, None, host.price_usd_per_hour)
            size = self._packed(spec).project.size_bytes
            return Quote((offer,), host.id, {"host": host, "fitting": None, "project_bytes": size})
        found = market.look(self._options, self._api, spec.resources)
        facts = {
            "gpu_count": found.gpu_count,
            "bids": found.bids,
            "volume": found.volume,
            "fitting": found.fitting,
            "balance_usd": found.balance_usd,
            "spent_usd_per_hour": found.spent_usd_per_hour,
            "project_bytes": self._packed(spec).project.size_bytes,
            "store": credentials.place(),
        }
        return Quote(found.offers, None, facts, found.unknown)

    def _plan(self, spec: LaunchSpec, quote: Quote, attempt: int) -> Plan:
        spec = self._completed(spec)
        lives_s = self._lives_s(spec)
        mirrored = orders.is_mirrored(spec.run.root)
        host: Host | None = quote.facts.get("host")
        lives_s = lives_s if host is None else host.lives_s
        # What ends it at RunPod cannot be put off once it is rented.
        rented_s = lives_s + (_FOR_OTHERS_S if self._stays_s else 0.0)
        asked = [
            {**requests.rent(spec, self._options, attempt, offer, quote.facts), "offer": number, "lives_s": rented_s}
            for number, offer in enumerate(quote.offers if host is None else ())
        ]
        if not self._over_ssh:
            at, store = f"{run_url(spec.run.root, spec.run.id)}/{parcel.orders_name(attempt)}", quote.facts["store"]
            asked = [boot.with_fetch(one, rented_s, self._options.bring_up_s, at, store) for one in asked]
        elif self._has_boot:
            asked = [
                boot.with_boot(one, rented_s, self._options.start, bring_up_s=self._options.bring_up_s) for one in asked
            ]
        asked += [] if host is None else [{"call": USE, "address": host.address()}]
        told = orders.planned(
            parcel.orders(
                spec, attempt, self.kind, python=self._options.python, setup=self._options.setup,
                notices="runpod" if self._has_boot else "none", bring_up_s=self._options.bring_up_s,
                keep_on_failure_s=self.terms.keep_on_failure_s, keep_warm_s=self._stays_s, lives_s=lives_s,
                stays=host is not None,
            ),
            self._options.collect_s,
            orders.OVER_SSH if self._over_ssh else orders.BY_STORAGE,
        )  # fmt: skip
        dearest = max((one.price_usd_per_hour or 0.0 for one in quote.offers), default=0.0)
        there = start.run_dir(spec.run.id, self._volume) if mirrored else None
        return replace(
            estimated(
                planned(spec, quote, attempt, self.kind, there),
                lives_s,
                rates.disks_usd_per_hour(
                    0.0 if host is not None else self._options.container_disk_gb + self._options.volume_gb
                ),
            ),
            requests=(*asked, told),
            notes=(
                *chosen(quote),
                *(() if host is not None else of_bid(quote, self._options.bid_usd_per_hour)),
                *(() if host is not None else of_balance(quote, dearest, lives_s)),
                *(of_mirror(self._options, spec) if mirrored else ()),
                *(() if self._over_ssh else of_fetching(spec)),
                *of_project(quote),
                note(spec.environment, self._options.python, ()),
                *(requests.UNKNOWN + one for one in quote.unknown),
            ),
        )

    def _submit(self, plan: Plan) -> RunHandle:
        if (watch := self._watches.get((plan.run_id, plan.attempt))) is not None:
            return watch.handle
        handle = self._given_host(plan)
        if handle is None:
            made = {}
            if self._over_ssh:
                made[requests.PUBLIC_KEY] = of_attempt(RunDir(plan.run_dir).url, plan.attempt).public
            handle = Purchase(self._api, self._tell).make(plan, made)
        self._attend(plan, handle)
        if not self._attached:
            self._see_it_started(handle)
        return handle

    def _find(self, plan: Plan) -> RunHandle | None:
        handle = used(plan)
        if handle is None:
            handle = Purchase(self._api, self._tell).find(plan) or self._kept_for(plan)
        elif not self._pods.get(handle.address["instance"]).alive:
            return None
        if handle is not None:
            self._attend(plan, handle)
        return handle

    def _let_go(self, handle: RunHandle) -> None:
        if (watch := self._watches.get((handle.run_id, handle.attempt))) is not None:
            watch.close()

    def _end_attempt(self, handle: RunHandle) -> bool:
        return self._over_ssh and end_attempt(self._pods, handle, self._tell)

    def _terminate(self, handle: RunHandle) -> None:
        self._pods.terminate(handle.address["instance"])
        if self._over_ssh:
            of_handle(handle)[0].remove()

    def _lives(self, handle: RunHandle) -> bool:
        return (not self._over_ssh or is_open(handle)) and self._pods.get(handle.address["instance"]).alive

    def _serves(self, handle: RunHandle, plan: Plan) -> bool:
        where = handle.address
        if where["ends_at"] is None or where["ends_at"] < time.time() + orders.of_plan(plan)["lives_s"]:
            return False  # RunPod's own end of it would come too early
        return any(requests.likeness(plan, offer) == where["like"] for offer in plan.offers)

    def _offer(self, plan: Plan, handle: RunHandle) -> Offer | None:
        where = handle.address
        return Offer(
            self.kind, where["machine"], where["market"], where["cloud"], where["zone"], where["price_usd_per_hour"]
        )

    def _holdings(self, roots: Sequence[str]) -> Iterable[Holding]:
        self._api.require_key()
        now = time.time()
        return [
            Holding("runpod", "pod", one.id, "", run, attempt, created_at=now - one.uptime_s if one.uptime_s else None,
                    price_usd_per_hour=one.price_usd_per_hour, name=one.name)
            for one in self._pods.ours()
            for run, attempt in [one.made_for or ("", None)]
        ]  # fmt: skip

    def _release(self, holding: Holding) -> None:
        self._pods.terminate(holding.id)

    def _extend(self, plan: Plan, handle: RunHandle, deadline: float) -> None:
        ends_at = time.strftime("%H:%M:%S UTC on %F", time.gmtime(deadline_of(plan, handle) or deadline))
        raise ConfigError(
            f"RunPod itself ends this pod at {ends_at}, as its rent said (terminateAfter), and no call changes that; "
            "let it be stopped at its limit, then launch again with a longer limits.max_time: it goes on from its "
            "checkpoint"
        )

    def _rates(self, plan: Plan, handle: RunHandle, begin: float, end: float) -> Rates:
        return rates.look(self._api, plan, handle)

    def _attend(self, plan: Plan, handle: RunHandle) -> None:
        key = (handle.run_id, handle.attempt)
        if key in self._watches:
            return
        rundir = RunDir(plan.run_dir)
        known = {handle.address["instance"]} if handle.address.get("kept") else set()

        def look_up() -> Pod:
            # For a while RunPod may not know a pod; once it did, that means that the pod is gone.
            pod = handle.address["instance"]
            found = self._pods.get(pod, 0.0 if known else handle.address["launched_at"])
            if not found.comes_up:
                known.add(pod)
            return found

        def packed() -> parcel.Parcel:
            return self._packed(rundir.read_spec())

        def workdir() -> Path:
            return self._workdir(rundir.read_spec())

        common: dict[str, Any] = {
            "look_up": look_up, "bring_up_s": self._options.bring_up_s, "tell": self._tell, "shared": self._stays_s > 0,
        }  # fmt: skip
        if not self._over_ssh:
            put = stored.StoredOrders(plan, handle, rundir, packed, self._tell).put
            self._watches[key] = FetchingWatch(handle, rundir, put=put, **common)
            return
        pair, pinned = of_handle(handle)
        line = Line(
            lambda: look_up().ssh, pair, rundir, plan.attempt, pinned=pinned,
            start=orders.PodStart(plan, handle, rundir, packed, workdir, self._volume, self._tell),
            mirrored=Mirrored(rundir, workdir) if orders.is_mirrored(plan.run_dir) else None,
            tell=self._tell,
        )  # fmt: skip
        self._watches[key] = LineWatch(handle, rundir, line=line, **common)

    @property
    def _over_ssh(self) -> bool:
        return self._options.transport is Transport.ssh

    @property
    def _has_boot(self) -> bool:
        """Whether a start of ours is the container's first process; a template has one of its own."""
        return self._options.template is None

    @property
    def _volume(self) -> str | None:
        return MOUNT_PATH if self._options.network_volume is not None else None

    def _lives_s(self, spec: LaunchSpec) -> float:
        waits_s = self._options.collect_s if orders.is_mirrored(spec.run.root) else 0.0
        return lifetime_s(self._completed(spec), self._options.bring_up_s) + waits_s


def _places(spec: LaunchSpec) -> list[tuple[str, str]]:
    """Where data comes from and goes to, by the key that says so."""
    return [
        *(("data.inputs", one.source) for one in spec.data.inputs),
        *(("data.outputs", one.target) for one in spec.data.outputs),
    ]
