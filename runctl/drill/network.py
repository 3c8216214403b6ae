"""Networks as an account has them: in every region a default one with a way out, subnets without, and who reaches SSM.

Sources: the VPC user guide, "Default VPCs" (an internet gateway, a main route table with 0.0.0.0/0 to it, a subnet in
each zone that hands out public addresses); the Systems Manager user guide, "Create VPC endpoints" (an agent needs
`ssm` and `ssmmessages`; `ec2messages` those of before 2024 alone).
"""

from __future__ import annotations

import ipaddress
import itertools
from typing import Any

from runctl.drill.ec2 import ACCOUNT

#: What an interface endpoint is made for, where a way to SSM is asked for, and S3's, which is a route.
ENDPOINTS = ("ssm", "ssmmessages", "ec2messages", "s3")
_ANYWHERE = "0.0.0.0/0"
_SSM_NEEDS = ("ssm", "ssmmessages")
#: Blocks of the default network's 172.31.0.0/16, whose first ones its own subnets have.
_BLOCKS = itertools.islice(ipaddress.ip_network("172.31.0.0/16").subnets(new_prefix=24), 128, None)


class Network:
    """The networks of all regions."""

    def __init__(self) -> None:
        self._prepared: set[str] = set()

    def prepare(self, region: str) -> None:
        """Give a region's default network the way out that a real one has; once."""
        from moto.ec2.models import ec2_backends

        if region in self._prepared or region not in ec2_backends[ACCOUNT]:
            return
        self._prepared.add(region)
        ec2 = _backend(region)
        gateway = ec2.create_internet_gateway()
        ec2.attach_internet_gateway(gateway.id, ec2.default_vpc.id)
        ec2.create_route(_main_table(ec2, ec2.default_vpc.id).id, _ANYWHERE, gateway_id=gateway.id)

    def make_subnet(self, region: str, zone: str, endpoints: list[str]) -> str:
        """A subnet of the default network with no way out but, if any, endpoints.

        Args:
            region: where.
            zone: such as us-east-1a.
            endpoints: some of ENDPOINTS.

        Returns:
            Its id.
        """
        self.prepare(region)
        ec2 = _backend(region)
        vpc = ec2.default_vpc.id
        subnet = ec2.create_subnet(vpc, str(next(_BLOCKS)), availability_zone=zone)
        table = ec2.create_route_table(vpc)  # its only route is `local`
        ec2.associate_route_table(table.id, subnet_id=subnet.id)
        for name in endpoints:
            gateway = name == "s3"
            ec2.create_vpc_endpoint(
                vpc,
                f"com.amazonaws.{region}.{name}",
                "Gateway" if gateway else "Interface",
                None,
                [table.id] if gateway else [],
                [] if gateway else [subnet.id],
                private_dns_enabled=not gateway,
            )
        return str(subnet.id)

    def reaches_ssm(self, region: str, instance: str) -> bool:
        """Whether an instance's agent can report to SSM: by a way out, or by endpoints in its network."""
        ec2 = _backend(region)
        one = ec2.get_instance(instance)
        if _has_way_out(ec2, one):
            return True
        needed = {f"com.amazonaws.{region}.{name}" for name in _SSM_NEEDS}
        there = {
            endpoint.service_name
            for endpoint in ec2.vpc_end_points.values()
            if endpoint.vpc_id == one.vpc_id and endpoint.private_dns_enabled
        }
        return needed <= there


def _has_way_out(ec2: Any, instance: Any) -> bool:
    """Whether the routes of its subnet lead anywhere: through a gateway for those with an address, or a NAT."""
    for route in _table_of(ec2, instance).routes:
        if route.destination_cidr_block != _ANYWHERE:
            continue
        if route.nat_gateway is not None or (route.gateway is not None and instance.public_ip):
            return True
    return False


def _table_of(ec2: Any, instance: Any) -> Any:
    """The route table of an instance's subnet: its own, or else its network's main one."""
    own = [table for table in ec2.route_tables.values() if instance.subnet_id in table._associations.values()]
    return own[0] if own else _main_table(ec2, instance.vpc_id)


def _main_table(ec2: Any, vpc: str) -> Any:
    return next(
        table for table in ec2.route_tables.values() if table.vpc_id == vpc and table.main_association_id is not None
    )


def _backend(region: str) -> Any:
    """moto's own books of EC2 in a region."""
    from moto.ec2.models import ec2_backends

    return ec2_backends[ACCOUNT][region]
