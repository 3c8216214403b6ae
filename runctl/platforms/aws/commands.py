"""Commands on an instance through SSM: sent, waited for, their output and exit code taken back.

Through `AWS-RunShellScript`, whose shell is `sh`; of its output SSM keeps 24,000 characters, and only once the command
has ended: what a training prints takes another way.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from runctl.errors import PlatformError
from runctl.platforms.aws.clients import Clients, code_of, translated

#: SSM's own least time for delivery, in seconds.
_DELIVERY_S = 30
_POLL_S = 1.0
#: What SSM keeps of a command's output, in characters.
STDOUT_CHARS, STDERR_CHARS = 24_000, 8_000
#: Right after it was sent, SSM may not know of a command.
_KNOWN_AFTER_S = 30.0
_ENDED = ("Success", "Failed", "TimedOut", "Cancelled", "Undeliverable", "Terminated", "DeliveryTimedOut",
          "ExecutionTimedOut")  # fmt: skip


@dataclass(frozen=True)
class CommandResult:
    """How a command ended.

    Attributes:
        status: SSM's word.
        exit_code: the shell's; None if it never ran to its end.
        stdout, stderr: as much as SSM keeps of them.
    """

    status: str
    exit_code: int | None
    stdout: str
    stderr: str

    @property
    def succeeded(self) -> bool:
        return self.status == "Success"


@dataclass(frozen=True)
class SentCommand:
    """A command on its way."""

    id: str
    instance_id: str
    sent_at: float


class Commands:
    """SSM in one region.

    Args:
        clients: AWS's clients.
        region: where.
    """

    def __init__(self, clients: Clients, region: str) -> None:
        self._clients = clients
        self._region = region

    def is_online(self, instance_id: str) -> bool:
        """Whether the instance's agent has registered and answers."""
        with translated(f"asking SSM for {instance_id}"):
            filters = [{"Key": "InstanceIds", "Values": [instance_id]}]
            found = self._ssm.describe_instance_information(Filters=filters)["InstanceInformationList"]
        return any(one.get("PingStatus") == "Online" for one in found)

    def send(self, instance_id: str, script: str, *, timeout_s: float, comment: str) -> SentCommand | None:
        """Send a script.

        Args:
            instance_id: to whom.
            script: for `sh`.
            timeout_s: how long it may run.
            comment: what SSM's console shows, at most 100 characters.

        Returns:
            The command, or None if the instance is not ready to take one: ask again.
        """
        from botocore.exceptions import ClientError

        with translated(f"sending a command to {instance_id}"):
            try:
                answer = self._ssm.send_command(
                    InstanceIds=[instance_id],
                    DocumentName="AWS-RunShellScript",
                    Comment=comment[:100],
                    TimeoutSeconds=_DELIVERY_S,
                    Parameters={"commands": [script], "executionTimeout": [str(max(1, round(timeout_s)))]},
                )
            except ClientError as error:
                if code_of(error) in ("InvalidInstanceId", "InvalidPluginName"):
                    return None
                raise
        return SentCommand(answer["Command"]["CommandId"], instance_id, time.monotonic())

    def result(self, command: SentCommand) -> CommandResult | None:
        """How a command ended, or None if it has not."""
        from botocore.exceptions import ClientError

        with translated(f"asking for a command on {command.instance_id}"):
            try:
                told: dict[str, Any] = self._ssm.get_command_invocation(
                    CommandId=command.id, InstanceId=command.instance_id
                )
            except ClientError as error:
                young = time.monotonic() - command.sent_at < _KNOWN_AFTER_S
                if code_of(error) in ("InvocationDoesNotExist", "InvalidPluginName") and young:
                    return None
                raise
        if told["Status"] not in _ENDED:
            return None
        code = told.get("ResponseCode", -1)
        return CommandResult(
            told["Status"],
            code if code >= 0 else None,
            told.get("StandardOutputContent", ""),
            told.get("StandardErrorContent", ""),
        )

    def run(self, instance_id: str, script: str, *, timeout_s: float = 60.0) -> CommandResult:
        """Run a script and wait for its end: `runctl aws exec` in one call.

        Raises:
            PlatformError: if it did not begin or end in time.
        """
        deadline = time.monotonic() + timeout_s + _DELIVERY_S
        command = None
        while time.monotonic() < deadline:
            command = command or self.send(instance_id, script, timeout_s=timeout_s, comment="runctl")
            result = self.result(command) if command is not None else None
            if result is not None:
                return result
            time.sleep(_POLL_S)
        raise PlatformError(f"the command on {instance_id} has not ended within {timeout_s:g} s")

    @property
    def _ssm(self) -> Any:
        return self._clients.ssm(self._region)
