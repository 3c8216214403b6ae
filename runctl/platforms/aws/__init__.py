"""The platform `aws`: EC2 instances on spot or on demand, reached through SSM and nothing else.

options      what can be told, checked
clients      boto3's clients, and what they raise in our words
choices      what `runctl aws setup` chose
account      what launches need in an account, made
doctor       the same, looked at
rights       whether EC2 would let us launch
network      subnets, and whether a host there can be heard of
fitting      types of instances that have what is asked for
prices       what it costs
rates        what it has cost
holdings     what carries our tags
capabilities of the GPUs in the types
place        an account's names, as policies write them
quotas       what the account may rent at once
market       what there is to rent just now → Quote
requests     the exact requests → Plan
purchase     the requests sent, each refusal with its reaction (refusals)
instances    instances that exist
hosts        the same apart from any launch: made by hand, listed, commanded, ended
commands     a command on one of them, through SSM
parameters   secrets on their way to a host
start        the one command that starts the host's keeper
watch        an instance from its launch to its end
policies     the rights that all this needs, in one account (place)
"""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from runctl.checkpoint.transfer import readable
from runctl.config.platform import PlatformConfig
from runctl.cost import Rates
from runctl.environment import note
from runctl.errors import RunctlError
from runctl.platforms import local_data, parcel
from runctl.platforms.aws import capabilities, choices, doctor, holdings, market, parameters, rates, requests, rights
from runctl.platforms.aws.clients import Clients
from runctl.platforms.aws.hosts import AwsHosts, end_attempt
from runctl.platforms.aws.instances import Instances, known_since
from runctl.platforms.aws.options import AwsConfig, AwsOptions
from runctl.platforms.aws.purchase import Purchase
from runctl.platforms.aws.start import Links, script
from runctl.platforms.aws.watch import Watch
from runctl.platforms.holdings import Holding
from runctl.platforms.hosts import USE, Host, used
from runctl.platforms.planned import planned
from runctl.platforms.rented import chosen, estimated, lifetime_s
from runctl.platforms.renting import RentingPlatform
from runctl.platforms.watching import bring_up_log
from runctl.rundir import run_url
from runctl.spec import LaunchSpec, Offer, Plan, Quote, RunHandle

#: What looking at offers does not tell.
_AT_SUBMIT = (
    "not looked at yet: bucket, instance profile and your right to launch (every launch does first, or "
    "`runctl aws doctor`)"
)


class AwsPlatform(RentingPlatform[Watch]):
    """An EC2 instance for each attempt."""

    kind = "aws"
    containers = True
    has_berths = True
    options: ClassVar[type[PlatformConfig]] = AwsConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clients = Clients()
        assert isinstance(self._config, AwsConfig)
        self._options = AwsOptions.of(
            self._config, choices.region(self._clients.default_region), attached=self._attached
        )
        self.terms = self._options.terms
        self._said: set[str] = set()
        self._may_launch: set[tuple[Any, str]] = set()
        self._plans: dict[tuple[str, int], Plan] = {}

    @classmethod
    def default_root(cls) -> str:
        chosen = choices.saved()
        return super().default_root() if chosen is None else chosen.root

    def gpus(self, offer: Offer) -> str:
        return capabilities.name_of(offer.machine)

    def _staged(self, spec: LaunchSpec) -> LaunchSpec:
        return local_data.sent(spec, self._workdir(spec), self._tell)

    def _check_ready(self, spec: LaunchSpec) -> None:
        self._clients.require_credentials()
        Links(self._clients, spec.run.root).check()
        profile = self._options.instance_profile
        if doctor.instance_profile(self._clients, profile) is None:
            self._tell(f"whether there is an instance profile {profile}, you may not look (iam:GetInstanceProfile)")
        local_data.check_none_forgotten(spec, self._workdir(spec))
        parameters.check(spec)

    def hosts(self) -> AwsHosts:
        return AwsHosts(self._clients, self._options, self._tell)

    def _completed(self, spec: LaunchSpec) -> LaunchSpec:
        host = self._given()
        if host is None:
            return super()._completed(spec)
        return replace(spec, limits=host.limited(spec.limits, spec.checkpoint.grace_s))

    def _given(self) -> Host | None:
        """The host that was named; None without one, and for a run that was interrupted there: it goes on elsewhere."""
        if self._options.host is None:
            return None
        if self._watches:
            self._tell(f"{self._options.host} is lost to this run; it goes on on one that is rented, and ends with it")
            return None
        return self.hosts().get(self._options.host)

    def _quote(self, spec: LaunchSpec) -> Quote:
        host = self._given()
        if host is not None:
            host.check_free(run_url(spec.run.root, spec.run.id))
            offer = Offer(self.kind, host.machine, "own", host.region, host.zone, host.price_usd_per_hour)
            return Quote((offer,), host.id, {"host": host, **self._facts(spec)})
        found = market.look(self._options, self._clients, spec.resources)
        for reason in found.too_small:
            if reason not in self._said:
                self._said.add(reason)
                self._tell(f"quota: {reason}")
        facts = {
            **self._facts(spec),
            "regions": found.regions,
            "fitting": found.fitting,
            "too_small": list(found.too_small),
            "cut_off": list(found.cut_off),
        }
        return Quote(found.offers, None, facts, found.unknown)

    def _facts(self, spec: LaunchSpec) -> dict[str, Any]:
        """What a plan needs to know of this machine."""
        files = [
            {"name": item.name, "key": item.key, "sha256": item.sha256, "size_bytes": item.size_bytes,
             "unpack_to": item.unpack_to}
            for item in self._packed(spec).items
        ]  # fmt: skip
        nothing: dict[str, Any] = {"regions": {}, "fitting": None, "too_small": [], "cut_off": []}
        return {**nothing, "owner": getpass.getuser(), "files": files}

    def _plan(self, spec: LaunchSpec, quote: Quote, attempt: int) -> Plan:
        regions, owner = quote.facts["regions"], quote.facts["owner"]
        lives_s = lifetime_s(spec, self._options.bring_up_s)
        host: Host | None = quote.facts.get("host")
        if host is not None:
            lives_s = host.lives_s
            asked = [{"call": USE, "address": host.address()}]
        else:
            asked = requests.renting(spec, self._options, attempt, quote.offers, regions=regions, owner=owner)
        put = parameters.planned(spec, attempt, owner)
        asked += [*put, {"call": "SendCommand", "orders": self._orders(spec, quote, attempt, lives_s, put)}]
        size = quote.facts["files"][0]["size_bytes"]
        return replace(
            estimated(planned(spec, quote, attempt, self.kind), lives_s, self._disks_usd_per_hour(quote)),
            requests=tuple(asked),
            notes=(
                *chosen(quote),
                *(f"quota: {one}" for one in quote.facts["too_small"]),
                *(f"no way out, so left out: {one}" for one in quote.facts["cut_off"]),
                f"the project: {readable(size)} packed",
                note(spec.environment, self._options.python, capabilities.of(quote.offers)),
                *(requests.UNKNOWN + one for one in quote.unknown),
                _AT_SUBMIT,
            ),
        )

    def _disks_usd_per_hour(self, quote: Quote) -> float | None:
        """What a host's disks cost where they are dearest; None if one price is not known, 0 where they are there."""
        if "host" in quote.facts:
            return 0.0
        regions = {str(offer.region) for offer in quote.offers}
        prices = [quote.facts["regions"].get(one, {}).get("disk_usd_per_gib_hour") for one in regions]
        size_gib = self._options.root_volume_gib + (self._options.data_volume_gib or 0)
        return None if None in prices else max(prices, default=0.0) * size_gib

    def _submit(self, plan: Plan) -> RunHandle:
        purchase = Purchase(self._clients, self._tell)
        handle = purchase.find(plan) if (plan.run_id, plan.attempt) in self._watches else None
        if handle is None:
            # Made with the quote, and sent before a host is taken that waits: it would wait for nobody if this fails.
            self._parcels[plan.run_id].send(_root(plan), self._tell)
            handle = self._given_host(plan)
            if handle is None:
                rights.check(self._clients, plan, self._may_launch)
                handle = purchase.make(plan)
        self._attend(plan, handle)
        if not self._attached:
            self._see_it_started(handle)
        return handle

    def _find(self, plan: Plan) -> RunHandle | None:
        handle = used(plan)
        if handle is None:
            handle = Purchase(self._clients, self._tell).find(plan) or self._kept_for(plan)
        elif not Instances(self._clients, handle.address["region"]).ours(handle.address["instance"]):
            return None
        if handle is not None:
            self._attend(plan, handle)
        return handle

    def _lives(self, handle: RunHandle) -> bool:
        where = handle.address
        return Instances(self._clients, where["region"]).get(where["instance"], known_since(where)).alive

    def _serves(self, handle: RunHandle, plan: Plan) -> bool:
        like = handle.address.get("like")
        return like is not None and any(requests.likeness(plan, offer) == like for offer in plan.offers)

    def _let_go(self, handle: RunHandle) -> None:
        if (plan := self._plans.get((handle.run_id, handle.attempt))) is not None:
            try:
                parameters.delete(self._clients, plan, handle)
            except RunctlError as error:
                self._tell(f"{error}; secrets of this run may still lie in SSM")

    def _end_attempt(self, handle: RunHandle) -> bool:
        return end_attempt(self._clients, handle, self._tell)

    def _terminate(self, handle: RunHandle) -> None:
        Instances(self._clients, handle.address["region"]).terminate(handle.address["instance"])

    def _offer(self, plan: Plan, handle: RunHandle) -> Offer | None:
        where = handle.address
        return Offer(
            self.kind, where["machine"], where["market"], where["region"], where["zone"], where["price_usd_per_hour"]
        )

    def _holdings(self, roots: Sequence[str]) -> Iterable[Holding]:
        assert isinstance(self._config, AwsConfig)
        self._clients.require_credentials()
        where = self._options.regions if self._config.region else holdings.regions(self._clients, self._options.regions)
        if len(where) > 1:
            self._tell(f"aws: looking in {len(where)} regions")
        return holdings.look(self._clients, where, roots, self._tell)

    def _release(self, holding: Holding) -> None:
        holdings.release(self._clients, holding)

    def _extend(self, plan: Plan, handle: RunHandle, deadline: float) -> None:
        # For people who look at the instance; what ends it is its own shutdown.
        where = handle.address
        if where.get("kept"):
            return  # rented for an earlier run, whose launch the tag speaks of
        try:
            Instances(self._clients, where["region"]).tag(
                where["instance"], {requests.TAG_DEADLINE: requests.after_launch(deadline - where["launched_at"])}
            )
        except RunctlError as error:
            self._tell(f"its tag {requests.TAG_DEADLINE} tells the deadline of its launch as before: {error}")

    def _rates(self, plan: Plan, handle: RunHandle, begin: float, end: float) -> Rates:
        return rates.look(self._clients, plan, handle, begin, end)

    def _attend(self, plan: Plan, handle: RunHandle) -> None:
        self._plans[plan.run_id, plan.attempt] = plan
        self._watches.setdefault(
            (handle.run_id, handle.attempt),
            Watch(
                handle,
                self._clients,
                plan.run_dir,
                start=lambda: self._start(plan, handle),
                bring_up_s=self._options.bring_up_s,
                tell=self._tell,
                shared=self._stays_s > 0,
            ),
        )

    def _orders(
        self, spec: LaunchSpec, quote: Quote, attempt: int, lives_s: float, put: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """What the keeper is to do, but for links and times, which are known when it is told."""
        told = parcel.orders(
            spec, attempt, self.kind, python=self._options.python, setup=self._options.setup, notices="aws",
            bring_up_s=self._options.bring_up_s, keep_on_failure_s=self.terms.keep_on_failure_s, lives_s=lives_s,
            keep_warm_s=self._stays_s, stays="host" in quote.facts,
        )  # fmt: skip
        setup = parameters.references(put, spec.secrets_for("setup"))
        secrets = {
            "secrets": parameters.references(put, spec.secrets_for("worker")),
            "setup_secrets": setup,
            "agent_secrets": parameters.references(put, spec.secrets_for("agent")),
            "parameters": [one["arguments"]["Name"] for one in put],
        }
        return {
            **told, "files": quote.facts["files"], "setup_secrets": setup,
            "order": {**told["order"], **secrets},
        }  # fmt: skip

    def _start(self, plan: Plan, handle: RunHandle) -> str:
        """The script for SSM, with links that are good from now on."""
        where = handle.address
        orders = parcel.completed(plan.requests[-1]["orders"], handle)
        links = Links(self._clients, _root(plan))
        runs = Links(self._clients, plan.run_dir)
        *sent, keeper = orders.pop("files")
        orders["files"] = [{**file, "url": links.get(file["key"])} for file in sent]
        orders["env"] = {"AWS_DEFAULT_REGION": where["region"], **orders["env"]}
        orders["log_url"] = runs.put(bring_up_log(plan.attempt))
        parameters.put(self._clients, plan, where["region"])
        name, sha256 = parcel.write_orders(plan.run_dir, plan.attempt, orders)
        return script(
            plan.run_id,
            plan.attempt,
            [
                ("keeper.py", keeper["sha256"], links.get(keeper["key"])),
                ("host.json", sha256, runs.get(name)),
            ],
            self._options.data_volume_gib,
        )


def _root(plan: Plan) -> str:
    return plan.run_dir.rsplit("/", 1)[0]
