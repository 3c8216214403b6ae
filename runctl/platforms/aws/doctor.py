"""Everything that a launch needs of an account, looked at: what is there, what is missing, what cannot be known."""

from __future__ import annotations

import functools
import getpass
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from runctl.errors import ConfigError, NotAllowed, RunctlError
from runctl.platforms.aws import account, market, network, requests, rights
from runctl.platforms.aws.clients import DENIED, Clients, code_of, translated
from runctl.platforms.aws.commands import Commands
from runctl.platforms.aws.options import AwsOptions
from runctl.platforms.aws.place import SPOT_ROLE
from runctl.platforms.aws.start import Links
from runctl.spec import LaunchSpec, Limits, Offer, Program, Resources, RunIdentity

_SETUP = "`runctl aws setup` makes it"


class Health(str, Enum):
    """What a look found: `absent` is what is not there and not everybody needs."""

    OK = "ok"
    MISSING = "missing"
    UNKNOWN = "unknown"
    ABSENT = "absent"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: it is.
        health: how it is.
        said: what was found, and what to do.
    """

    what: str
    health: Health
    said: str


def instance_profile(clients: Clients, name: str) -> bool | None:
    """Whether the profile of hosts is there; None if this user may not look.

    Raises:
        ConfigError: if it is not.
    """
    from botocore.exceptions import ClientError

    try:
        with translated(f"looking for instance profile {name} (iam:GetInstanceProfile)"):
            try:
                roles = clients.iam().get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]
            except ClientError as error:
                if code_of(error) != "NoSuchEntity":
                    raise
                roles = None
    except RunctlError as error:
        if isinstance(error, NotAllowed) and not _is_denied(error):
            raise
        return None
    if roles is None:
        raise ConfigError(f"platform.instance_profile={name}: there is no such instance profile; {_SETUP}")
    if not roles:
        raise ConfigError(f"platform.instance_profile={name}: there is no role in it; {_SETUP}")
    return True


class Doctor:
    """Looks at one account as launches find it.

    Args:
        clients: AWS's clients.
        options: of the platform.
        root: where runs lie.
        resources: what hosts must have.
    """

    def __init__(self, clients: Clients, options: AwsOptions, root: str, resources: Resources) -> None:
        self._clients = clients
        self._options = options
        self._root = root
        self._resources = resources

    def findings(self) -> Iterator[Finding]:
        """Look at one thing after the other."""
        yield self._look("credentials", self._credentials)
        yield self._look("bucket", self._bucket)
        yield self._look("instance profile", self._profile)
        yield self._look("role of spot requests", self._spot_role)
        for region in self._options.regions:
            yield from self._region(region)

    def _region(self, region: str) -> Iterator[Finding]:
        yield self._look(f"subnets in {region}", lambda: self._network(region))
        options = replace(self._options, regions=(region,))
        try:
            found = market.look(options, self._clients, self._resources)
        except RunctlError as error:
            yield Finding(f"offers in {region}", _health(error), str(error))
            return
        for reason in found.too_small:
            yield Finding("quota", Health.MISSING, reason)
        for reason in found.unknown:
            yield Finding("looking", Health.UNKNOWN, reason)
        yield self._look(f"offers in {region}", lambda: _told(found.offers))
        first = {one.market: one for one in reversed(found.offers)}
        for offer in (first[word] for word in dict.fromkeys(one.market for one in found.offers)):
            name = f"the right to launch {offer.market.replace('_', ' ')}"
            yield self._look(name, functools.partial(self._launch, options, found, offer))
        yield self._look(f"SSM in {region}", lambda: self._ssm(region))

    def _look(self, what: str, look: Callable[[], tuple[Health, str]]) -> Finding:
        try:
            health, said = look()
        except RunctlError as error:
            return Finding(what, _health(error), str(error))
        return Finding(what, health, said)

    def _credentials(self) -> tuple[Health, str]:
        who = account.identity(self._clients, self._options.regions[0])
        return Health.OK, f"{who.arn} in account {who.account}"

    def _bucket(self) -> tuple[Health, str]:
        Links(self._clients, self._root).check()
        return Health.OK, f"runs go to {self._root}"

    def _profile(self) -> tuple[Health, str]:
        name = self._options.instance_profile
        if instance_profile(self._clients, name) is None:
            return Health.UNKNOWN, f"{name}: you may not look at it (iam:GetInstanceProfile)"
        return Health.OK, name

    def _spot_role(self) -> tuple[Health, str]:
        from botocore.exceptions import ClientError

        with translated("looking for the role of spot requests (iam:GetRole)"):
            try:
                self._clients.iam().get_role(RoleName=SPOT_ROLE)
            except ClientError as error:
                if code_of(error) not in ("NoSuchEntity", "AccessDenied"):
                    raise
                # It is no obstacle: whoever may make it has it made by their first spot request.
                return Health.UNKNOWN, "not seen here; a first spot request makes it, and so does `runctl aws setup`"
        return Health.OK, SPOT_ROLE

    def _network(self, region: str) -> tuple[Health, str]:
        found = network.look(self._clients, region, self._options.subnets)
        if found.unknown is not None:
            return Health.UNKNOWN, found.unknown
        number = sum(map(len, found.subnets.values()))
        without = f"; without a way out: {', '.join(found.cut_off)}" if found.cut_off else ""
        return Health.OK, f"{number} from which SSM and S3 can be reached, in {', '.join(found.subnets)}{without}"

    def _launch(self, options: AwsOptions, found: market.Found, offer: Offer) -> tuple[Health, str]:
        spec = LaunchSpec(
            RunIdentity("doctor", "doctor", self._root), Program("doctor.py", None), limits=Limits(max_time_s=3600.0)
        )
        region = str(offer.region)
        asked = requests.renting(spec, options, 1, [offer], regions=found.regions, owner=getpass.getuser())
        arguments = next(one["arguments"] for one in asked if one["call"] == "RunInstances")
        if not rights.check_launch(self._clients, region, arguments):
            return Health.UNKNOWN, "EC2 did not say"
        return Health.OK, f"{offer.machine} with role {self._options.instance_profile} (ec2:RunInstances, dry run)"

    def _ssm(self, region: str) -> tuple[Health, str]:
        Commands(self._clients, region).is_online("i-00000000000000000")
        return Health.OK, "hosts can be looked for; whether they may be sent commands shows with the first"


def _told(offers: tuple[Offer, ...]) -> tuple[Health, str]:
    first = offers[0]
    price = "at an unknown price" if first.price_usd_per_hour is None else f"{first.price_usd_per_hour:.4f} USD an hour"
    return Health.OK, f"{first.machine} {first.market.replace('_', ' ')} in {first.zone or first.region}, {price}"


def _health(error: RunctlError) -> Health:
    return Health.MISSING if isinstance(error, (ConfigError, NotAllowed)) else Health.UNKNOWN


def _is_denied(error: NotAllowed) -> bool:
    """Whether a right is missing, and not that the credentials are no good."""
    return code_of(error.__cause__ or error) in DENIED
