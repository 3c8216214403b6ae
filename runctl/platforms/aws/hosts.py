"""Instances apart from any launch: made by hand, listed, commanded through SSM, ended."""

from __future__ import annotations

import contextlib
import getpass
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from runctl.errors import PlatformError, RunctlError
from runctl.hosts import ROOT
from runctl.platforms import parcel
from runctl.platforms.aws import market, prices, requests, rights
from runctl.platforms.aws.clients import Clients
from runctl.platforms.aws.commands import STDERR_CHARS, STDOUT_CHARS, Commands
from runctl.platforms.aws.instances import Instance, Instances
from runctl.platforms.aws.options import AwsOptions
from runctl.platforms.aws.purchase import Purchase
from runctl.platforms.hosts import BY_HAND, Host, Hosts, Ran, new_name, not_ours, note, noted, program, spec_of
from runctl.platforms.planned import planned
from runctl.spec import Quote, Resources, RunHandle

#: What a command may wait for SSM to see its instance at all, seconds: it was only just launched.
_ONLINE_S = 300.0
_LOOK_S = 2.0
_END_S = 30.0
_PLUGIN = (
    "the AWS CLI takes it for sessions: https://docs.aws.amazon.com/systems-manager/latest/userguide/"
    "session-manager-working-with-install-plugin.html; runctl aws exec runs single commands without it"
)


class AwsHosts(Hosts):
    """The account's instances that are ours.

    Args:
        clients: AWS's clients.
        options: the platform's; its regions are where instances are looked for.
        tell: takes lines for the user.
    """

    def __init__(self, clients: Clients, options: AwsOptions, tell: Callable[[str], None]) -> None:
        self._clients = clients
        self._options = options
        self._tell = tell

    def living(self) -> list[Host]:
        self._clients.require_credentials()
        found = [host for region in self._options.regions for host in living(self._clients, region)]
        return sorted(found, key=lambda host: host.launched_at)

    def create(self, resources: Resources, lives_s: float) -> Host:
        self._clients.require_credentials()
        found = market.look(self._options, self._clients, resources)
        for reason in found.too_small:
            self._tell(f"quota: {reason}")
        spec = spec_of(new_name(), resources)
        asked = requests.renting(
            spec, self._options, BY_HAND, found.offers, regions=found.regions, owner=getpass.getuser(),
            life=(lives_s, lives_s),
        )  # fmt: skip
        plan = replace(
            planned(spec, Quote(found.offers, None, {}, found.unknown), BY_HAND, "aws"),
            requests=tuple(asked),
            notes=tuple(requests.UNKNOWN + one for one in found.unknown),
        )
        rights.check(self._clients, plan, set())
        where = Purchase(self._clients, self._tell).make(plan).address
        note(where["instance"], platform="aws", name=spec.run.id, region=where["region"])
        return Host(
            "aws", where["instance"], "pending", spec.run.id, BY_HAND, getpass.getuser(), where["machine"],
            where["market"], where["region"], where["zone"] or "", where["price_usd_per_hour"], where["launched_at"],
            where["launched_at"] + lives_s,
        )  # fmt: skip

    def get(self, host_id: str) -> Host:
        self._clients.require_credentials()
        told = noted(host_id).get("region")
        regions = list(dict.fromkeys([*([told] if told else []), *self._options.regions]))
        for region in regions:
            if found := Instances(self._clients, region).ours(host_id):
                return _priced(self._clients, region, found)[0]
        raise not_ours(host_id, f"{', '.join(regions)} (--region looks elsewhere)")

    def run(self, host_id: str, command: str, timeout_s: float) -> Ran:
        host = self.get(host_id)
        commands = Commands(self._clients, host.region)
        until = time.monotonic() + _ONLINE_S
        while not commands.is_online(host.id):
            if time.monotonic() > until:
                raise PlatformError(f"{host.id}: SSM does not see it; runctl aws doctor looks why")
            time.sleep(_LOOK_S)
        done = commands.run(host.id, command, timeout_s=timeout_s)
        if done.exit_code is None:
            raise PlatformError(f"{host.id}: the command did not run to its end: {done.status}: {done.stderr.strip()}")
        if len(done.stdout) >= STDOUT_CHARS or len(done.stderr) >= STDERR_CHARS:
            self._tell(f"it printed more than the {STDOUT_CHARS} characters that SSM keeps, {STDERR_CHARS} of stderr")
        return Ran(done.exit_code, done.stdout, done.stderr)

    def shell(self, host_id: str, folder: str) -> list[str]:
        host = self.get(host_id)
        aws = program("aws", "a session through SSM takes the AWS CLI: https://aws.amazon.com/cli")
        program("session-manager-plugin", _PLUGIN)
        self._tell(f"the run's files are in {ROOT}/{folder}" if folder else f"{host.id} {host.machine}")
        return [aws, "ssm", "start-session", "--target", host.id, "--region", host.region]

    def terminate(self, host_id: str) -> Host:
        host = self.get(host_id)
        Instances(self._clients, host.region).terminate(host.id)
        return host


def living(clients: Clients, region: str) -> list[Host]:
    """Our instances in a region that live.

    Raises:
        RunctlError: what AWS says.
    """
    return _priced(clients, region, Instances(clients, region).ours())


def _priced(clients: Clients, region: str, found: Sequence[Instance]) -> list[Host]:
    """Instances with what they cost just now, where AWS tells."""
    usd: dict[tuple[str, str], float] = {}
    spot = {one.machine for one in found if one.market == "spot"}
    full = {one.machine for one in found if one.market != "spot"}
    with contextlib.suppress(RunctlError):
        usd |= prices.spot(clients, sorted(spot), region) if spot else {}
    with contextlib.suppress(RunctlError):
        usd |= prices.on_demand(clients, sorted(full), [region]) if full else {}
    return [_host(region, one, usd.get((one.machine, one.zone if one.market == "spot" else region))) for one in found]


def _host(region: str, one: Instance, price: float | None) -> Host:
    number = one.tags.get(requests.TAG_ATTEMPT, "")
    lives_s = requests.lives_s(one.tags)
    return Host(
        "aws", one.id, one.state, one.tags.get(requests.TAG_RUN, ""), int(number) if number.isdigit() else -1,
        one.tags.get(requests.TAG_OWNER, ""), one.machine, one.market, region, one.zone, price, one.launched_at,
        None if lives_s is None else one.launched_at + lives_s, one.tags.get(requests.TAG_ROOT),
    )  # fmt: skip


def end_attempt(clients: Clients, handle: RunHandle, tell: Callable[[str], None]) -> bool:
    """See to it that nothing of an attempt goes on where the host stays; one that has ended is left as it is.

    Returns:
        Whether it is known that no other attempt has the host.
    """
    where, ending = handle.address, parcel.ending(handle.run_id, handle.attempt)
    try:
        commands = Commands(clients, where["region"])
        if where.get("stays"):  # for as long as it is there, nobody waits for the answer
            commands.send(where["instance"], ending, timeout_s=_END_S, comment="runctl: end")
            return False
        return commands.is_online(where["instance"]) and (
            commands.run(where["instance"], ending, timeout_s=_END_S).exit_code == parcel.IDLE
        )
    except RunctlError as error:
        tell(f"{error}; what is left of attempt {handle.attempt} on {where['instance']} ends with it")
        return False
