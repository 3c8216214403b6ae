"""Subnets, and whether a host in one of them can reach SSM and S3: without that it costs money and is never heard of.

A way out is a default route to an internet gateway for a host with a public address, a default route to something else
(a NAT gateway, a transit gateway, an appliance), or interface endpoints for SSM and one for S3.
Source: docs.aws.amazon.com/systems-manager/latest/userguide/setup-create-vpc.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from runctl.errors import ConfigError, RunctlError
from runctl.platforms.aws.clients import Clients, translated

#: What SSM's agent talks to; newer agents need no `ec2messages`.
_SSM_ENDPOINTS = ("ssm", "ssmmessages")
_REMEDY = (
    "give it a route to a NAT gateway, or endpoints for ssm, ssmmessages, ec2messages and s3, or name others: "
    "platform.subnets"
)


@dataclass(frozen=True)
class Network:
    """Where hosts of one region can live.

    Attributes:
        vpc: the network; None if there is no subnet.
        subnets: by zone, those from which SSM and S3 are reached.
        cut_off: those from which they are not, in words.
        unknown: why it is not known of any; None if it is.
    """

    vpc: str | None
    subnets: dict[str, list[str]] = field(default_factory=dict)
    cut_off: tuple[str, ...] = ()
    unknown: str | None = None


def look(clients: Clients, region: str, wanted: Sequence[str]) -> Network:
    """Look at subnets and their ways out.

    Args:
        clients: AWS's clients.
        region: where.
        wanted: ids of subnets; none are the default ones.

    Raises:
        ConfigError: if there is no subnet, or no way out of any.
        NotAllowed: without the right to look at subnets.
        PlatformError: for everything else that AWS says.
    """
    ec2 = clients.ec2(region)
    with translated(f"looking for subnets in {region} (ec2:DescribeSubnets)"):
        if wanted:
            found = ec2.describe_subnets(SubnetIds=list(wanted))["Subnets"]
        else:
            found = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
    if not found:
        raise ConfigError(
            f"there is no default subnet in {region}: `aws ec2 create-default-vpc --region {region}` makes them, or "
            "name your own: platform.subnets=[subnet-…]"
        )
    vpc = found[0]["VpcId"]
    try:
        ways = _Ways.of(ec2, region, vpc)
    except RunctlError as error:
        return Network(vpc, _by_zone(found), (), str(error))
    obstacles = {subnet["SubnetId"]: ways.obstacle(subnet) for subnet in found}
    cut_off = tuple(f"{name} ({why})" for name, why in obstacles.items() if why is not None)
    left = [subnet for subnet in found if obstacles[subnet["SubnetId"]] is None]
    if not left:
        raise ConfigError(f"no host in {region} could reach SSM and S3 from {', '.join(cut_off)}: {_REMEDY}")
    return Network(vpc, _by_zone(left), cut_off)


@dataclass(frozen=True)
class _Ways:
    """The routes and endpoints of one network."""

    routes: dict[str | None, dict[str, Any]]
    endpoints: list[dict[str, Any]]
    region: str

    @classmethod
    def of(cls, ec2: Any, region: str, vpc: str) -> _Ways:
        here = [{"Name": "vpc-id", "Values": [vpc]}]
        with translated(f"looking for routes in {region} (ec2:DescribeRouteTables)"):
            tables = ec2.describe_route_tables(Filters=here)["RouteTables"]
        with translated(f"looking for endpoints in {region} (ec2:DescribeVpcEndpoints)"):
            endpoints = ec2.describe_vpc_endpoints(Filters=here)["VpcEndpoints"]
        # A subnet without a table of its own uses the network's main one.
        routes = {
            None if one.get("Main") else one.get("SubnetId"): table
            for table in tables
            for one in table.get("Associations", [])
        }
        return cls(routes, [one for one in endpoints if one.get("State", "available").lower() == "available"], region)

    def obstacle(self, subnet: dict[str, Any]) -> str | None:
        """Why a host in a subnet would not be heard of; None if it would be."""
        table = self.routes.get(subnet["SubnetId"]) or self.routes.get(None) or {"RouteTableId": "", "Routes": []}
        route = next(
            (
                one
                for one in table["Routes"]
                if one.get("DestinationCidrBlock") == "0.0.0.0/0" and one.get("State") != "blackhole"
            ),
            None,
        )
        public = route is not None and str(route.get("GatewayId", "")).startswith("igw-")
        if route is not None and (not public or subnet.get("MapPublicIpOnLaunch")):
            return None
        missing = [one for one in _SSM_ENDPOINTS if not self._has(one)]
        if not self._has("s3", table["RouteTableId"]):
            missing.append("s3")
        if not missing:
            return None
        if public:
            return "it gives its hosts no public address: `aws ec2 modify-subnet-attribute --map-public-ip-on-launch`"
        return f"no route to the internet, and no endpoint for {', '.join(missing)}"

    def _has(self, service: str, table: str | None = None) -> bool:
        """Whether the network has an endpoint for a service; one of a gateway counts where its table is used."""
        return any(
            one["ServiceName"].endswith(f".{self.region}.{service}")
            and (one.get("VpcEndpointType") == "Interface" or table in one.get("RouteTableIds", []))
            for one in self.endpoints
        )


def _by_zone(subnets: list[dict[str, Any]]) -> dict[str, list[str]]:
    zones: dict[str, list[str]] = {}
    for subnet in subnets:
        zones.setdefault(subnet["AvailabilityZone"], []).append(subnet["SubnetId"])
    return zones
