"""Instances that exist: found by id or by our tags, described, ended."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from runctl.errors import PlatformError
from runctl.platforms.aws.clients import NOT_ALLOWED, Clients, code_of, translated
from runctl.platforms.aws.requests import TAG_ATTEMPT, TAG_ROOT, TAG_RUN

ALIVE = ("pending", "running", "stopping", "stopped")
#: An instance that was only just launched may not be known everywhere yet.
_KNOWN_AFTER_S = 120.0
_TERMINATE_TRIES = 5
_PAUSE_S = 1.0


@dataclass(frozen=True)
class Instance:
    """What EC2 tells of an instance.

    Attributes:
        state: EC2's word, or `gone` for one that it does not know any more.
        reason: why it is in that state; empty while it runs.
        launched_at: seconds since the epoch.
    """

    id: str
    state: str
    reason: str = ""
    zone: str = ""
    machine: str = ""
    market: str = ""
    launched_at: float = 0.0
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        return self.state in ALIVE

    @property
    def taken_back(self) -> bool:
        """Whether AWS has taken a spot instance back."""
        return "SpotInstance" in self.reason


def known_since(address: dict[str, Any]) -> float:
    """When EC2 came to know the instance of a handle (seconds since the epoch): for a while it may not.

    One that was rented for an earlier run it knows: what it does not know then is gone.
    """
    return 0.0 if address.get("kept") else float(address["launched_at"])


class Instances:
    """EC2's instances in one region.

    Args:
        clients: AWS's clients.
        region: where.
    """

    def __init__(self, clients: Clients, region: str) -> None:
        self._clients = clients
        self._region = region

    def get(self, instance_id: str, launched_at: float) -> Instance:
        """One instance as it is now.

        Args:
            instance_id: whose.
            launched_at: when it was launched (seconds since the epoch): for a while EC2 may not know it.
        """
        from botocore.exceptions import ClientError

        with translated(f"looking at instance {instance_id}"):
            try:
                found = self._described(InstanceIds=[instance_id])
            except ClientError as error:
                if code_of(error) != "InvalidInstanceID.NotFound":
                    raise
                found = []
        if found:
            return found[0]
        young = time.time() - launched_at < _KNOWN_AFTER_S
        return Instance(instance_id, "pending" if young else "gone", launched_at=launched_at)

    def of_attempt(self, run_id: str, attempt: int, root: str | None) -> list[Instance]:
        """The living instances that carry an attempt's tags.

        Args:
            run_id, attempt: whose.
            root: what the tags tell of where the run directory lies, or None if they do not.
        """
        filters = [
            {"Name": f"tag:{TAG_RUN}", "Values": [run_id]},
            {"Name": f"tag:{TAG_ATTEMPT}", "Values": [str(attempt)]},
            {"Name": "instance-state-name", "Values": list(ALIVE)},
        ]
        with translated(f"looking for instances of run {run_id}"):
            found = self._described(Filters=filters)
        return [one for one in found if one.tags.get(TAG_ROOT) == root]

    def ours(self, *ids: str) -> list[Instance]:
        """The living instances that runctl made, or those of them with these ids.

        Raises:
            RunctlError: what AWS says.
        """
        from botocore.exceptions import ClientError

        filters = [
            {"Name": "tag:CreatedBy", "Values": ["runctl"]},
            {"Name": "instance-state-name", "Values": list(ALIVE)},
        ]
        asked: dict[str, Any] = {"Filters": filters, **({"InstanceIds": list(ids)} if ids else {})}
        with translated(f"looking for runctl's instances in {self._region}"):
            try:
                return self._described(**asked)
            except ClientError as error:
                if code_of(error) in ("InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"):
                    return []
                raise

    def terminate(self, instance_id: str) -> None:
        """End an instance; one that has ended is left as it is. Tried again for what may pass.

        Raises:
            PlatformError: if it could not be ended; then its own deadline ends it.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        for left in reversed(range(_TERMINATE_TRIES)):
            try:
                self._clients.ec2(self._region).terminate_instances(InstanceIds=[instance_id])
            except (ClientError, BotoCoreError) as error:
                if code_of(error) == "InvalidInstanceID.NotFound":
                    return
                if not left:
                    with translated(f"ending instance {instance_id}"):
                        raise
                self._clients.renew()
                time.sleep(_PAUSE_S)
            else:
                return

    def tag(self, instance_id: str, tags: dict[str, str]) -> None:
        """Give an instance other values of its tags.

        Raises:
            RunctlError: what AWS says.
        """
        told = [{"Key": key, "Value": value} for key, value in tags.items()]
        with translated(f"tagging instance {instance_id} (ec2:CreateTags)"):
            self._clients.ec2(self._region).create_tags(Resources=[instance_id], Tags=told)

    def console(self, instance_id: str) -> bytes:
        """The last of what an instance printed on its console, for a while also after its end; empty if nothing.

        Raises:
            NotAllowed: without the right to look.
            PlatformError: for everything else that AWS says.
        """
        from botocore.exceptions import ClientError

        ec2 = self._clients.ec2(self._region)
        with translated(f"ec2:GetConsoleOutput of {instance_id}"):
            try:
                told = ec2.get_console_output(InstanceId=instance_id, Latest=True)
            except ClientError as error:
                if code_of(error) in NOT_ALLOWED:
                    raise
                # Only newer types tell at once, and only while they run; of all there is what was kept meanwhile.
                told = ec2.get_console_output(InstanceId=instance_id)
        text: str = told.get("Output") or ""
        return text.encode()

    def _described(self, **query: Any) -> list[Instance]:
        pages = self._clients.ec2(self._region).get_paginator("describe_instances").paginate(**query)
        return [
            _read(one) for page in pages for reservation in page["Reservations"] for one in reservation["Instances"]
        ]


def only(found: list[Instance], what: str) -> Instance | None:
    """The one instance of an attempt, or None.

    Raises:
        PlatformError: for several, which must not be: somebody has to look.
    """
    if len(found) > 1:
        raise PlatformError(
            f"{what} has {len(found)} instances: {', '.join(one.id for one in found)}; end those that should not run"
        )
    return found[0] if found else None


def _read(told: dict[str, Any]) -> Instance:
    reason = told.get("StateReason", {}).get("Code", "") or ""
    message = told.get("StateReason", {}).get("Message", "") or told.get("StateTransitionReason", "")
    return Instance(
        id=told["InstanceId"],
        state=told["State"]["Name"],
        reason=message if reason in message else f"{reason}: {message}",
        zone=told.get("Placement", {}).get("AvailabilityZone", ""),
        machine=told.get("InstanceType", ""),
        market="spot" if told.get("InstanceLifecycle") == "spot" else "on_demand",
        launched_at=told["LaunchTime"].timestamp(),
        tags={tag["Key"]: tag["Value"] for tag in told.get("Tags", ())},
    )
