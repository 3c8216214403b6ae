"""Rights, asked about before anything is spent: EC2 tells with a dry run whether it would carry a request out."""

from __future__ import annotations

from typing import Any

from runctl.platforms.aws.clients import NOT_ALLOWED, Clients, code_of, translated
from runctl.platforms.aws.requests import TO_BE_MADE, UNKNOWN_IMAGE
from runctl.spec import Plan


def check(clients: Clients, plan: Plan, known: set[tuple[Any, str]]) -> None:
    """Check, before anything is sent, that EC2 will not refuse the first request of a market for want of a right.

    Args:
        clients: AWS's clients.
        plan: the requests.
        known: regions and markets that need not be looked at again; added to.

    Raises:
        NotAllowed: naming the right.
    """
    first: dict[tuple[Any, str], dict[str, Any]] = {}
    for request in plan.requests:
        if request["call"] == "RunInstances":
            first.setdefault((request["region"], plan.offers[request["offer"]].market), request)
    for (region, market_name), request in first.items():
        if (region, market_name) not in known:
            check_launch(clients, region, request["arguments"])
            known.add((region, market_name))


def check_launch(clients: Clients, region: str, arguments: dict[str, Any]) -> bool:
    """Check that EC2 would let this user send a request for an instance, with its tags, its role and all.

    Args:
        clients: AWS's clients.
        region: where.
        arguments: of RunInstances.

    Returns:
        Whether it is known now; what has nothing to do with rights is left to the request itself.

    Raises:
        NotAllowed: if a right is missing, in EC2's words, which name it.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    if arguments["ImageId"] == UNKNOWN_IMAGE:
        return False
    asked = {name: value for name, value in arguments.items() if name != "ClientToken"}
    if asked.get("SecurityGroupIds") == [TO_BE_MADE]:
        del asked["SecurityGroupIds"]
    market = "spot" if "InstanceMarketOptions" in asked else "on demand"
    with translated(f"may you launch {asked['InstanceType']} {market} in {region}?"):
        try:
            clients.launch(region).run_instances(**asked, DryRun=True)
        except ClientError as error:
            if code_of(error) in NOT_ALLOWED:
                raise
            return code_of(error) == "DryRunOperation"
        except BotoCoreError:
            return False
    return False
