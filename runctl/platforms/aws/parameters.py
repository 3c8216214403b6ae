"""Secrets of the launcher's environment on their way to a host: SecureString parameters under the attempt's own path.

The host deletes them once it has read them, and the launcher, for a host that could not, when the attempt has ended.
Neither a request that is planned nor anything in the run directory holds a value.
"""

from __future__ import annotations

import os
from typing import Any

from runctl.errors import ConfigError
from runctl.hosts.secrets import ENV, SSM, own_value
from runctl.platforms.aws.clients import Clients, translated
from runctl.platforms.rented import word_of
from runctl.rundir import run_url
from runctl.spec import LaunchSpec, Plan, RunHandle

CALL = "PutParameter"
#: Of a standard parameter, which costs nothing (docs.aws.amazon.com, "Managing parameter tiers").
_VALUE_BYTES = 4096


def check(spec: LaunchSpec) -> None:
    """Check that what is to be sent is there.

    Raises:
        ConfigError: for a variable that is not set, or is too long, by its name alone.
    """
    for name, kept in spec.secrets.items():
        if kept.startswith(ENV):
            _value(f"secrets.{name}={kept}", kept)


def planned(spec: LaunchSpec, attempt: int, owner: str) -> list[dict[str, Any]]:
    """The requests that put an attempt's secrets down, without their values; `from` says where those are."""
    # Below two roots there may be a run of one id: neither is to have the other's.
    where = f"/runctl/{spec.run.id}/a{attempt}-{word_of(run_url(spec.run.root, spec.run.id))}"
    tags = {"CreatedBy": "runctl", "runctl:run": spec.run.id, "runctl:owner": owner}
    return [
        {
            "call": CALL,
            "from": kept,
            "arguments": {
                "Name": f"{where}/{name}",
                "Type": "SecureString",
                "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
            },
        }
        for name, kept in spec.secrets.items()
        if kept.startswith(ENV)
    ]


def references(requests: list[dict[str, Any]], secrets: dict[str, str]) -> dict[str, str]:
    """Where the host finds each of `secrets`: what lies in the launcher's environment, in its parameter."""
    sent = {one["arguments"]["Name"].rsplit("/", 1)[1]: SSM + one["arguments"]["Name"] for one in requests}
    return {name: sent.get(name, kept) for name, kept in secrets.items()}


def put(clients: Clients, plan: Plan, region: str) -> None:
    """Put an attempt's secrets down where its host is; once more is no error.

    Raises:
        ConfigError: if a variable is not set here.
        NotAllowed: without the right to.
        PlatformError: for everything else that AWS says.
    """
    for one in _requests(plan):
        asked = {**one["arguments"], "Value": _value(one["from"], one["from"])}
        ssm = clients.ssm(region)
        with translated(f"ssm:{CALL} {asked['Name']}"):
            try:
                ssm.put_parameter(**asked)
            except ssm.exceptions.ParameterAlreadyExists:
                del asked["Tags"]  # SSM takes tags only with a new one
                ssm.put_parameter(**asked, Overwrite=True)


def delete(clients: Clients, plan: Plan, handle: RunHandle) -> None:
    """Delete what the attempt's host did not: one that never came up.

    Raises:
        RunctlError: what AWS says.
    """
    names = [one["arguments"]["Name"] for one in _requests(plan)]
    for begin in range(0, len(names), 10):
        with translated("ssm:DeleteParameters"):
            clients.ssm(handle.address["region"]).delete_parameters(Names=names[begin : begin + 10])


def _requests(plan: Plan) -> list[dict[str, Any]]:
    return [one for one in plan.requests if one["call"] == CALL]


def _value(named: str, kept: str) -> str:
    value = own_value(named, kept, os.environ)
    if len(value.encode()) > _VALUE_BYTES:
        raise ConfigError(f"{named}: longer than the {_VALUE_BYTES} bytes that SSM takes; keep it in secretsmanager:id")
    return value
