"""SSM as an instance's agent would answer it: commands really run, in the instance's sandbox."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runctl.drill.sandboxes import Sandbox, kill_group

#: What SSM keeps of a command's output (docs.aws.amazon.com/systems-manager/latest/userguide/run-command.html).
STDOUT_CHARS, STDERR_CHARS = 24_000, 8_000
#: How long a command may run if nothing is said (executionTimeout).
_RUN_DEFAULT_S = 3600.0


class SsmError(Exception):
    """An error in SSM's own words."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Invocation:
    """One command on one instance."""

    id: str
    sandbox: Sandbox
    sent_at: float
    status: str = "Pending"
    code: int = -1
    stdout: str = ""
    stderr: str = ""
    process: subprocess.Popen[bytes] | None = None
    cancelled: bool = field(default=False)


class Ssm:
    """The calls that need an instance.

    Args:
        sandboxes: by id, those that have ended among them.
        may_report: whether an instance's agent gets through to SSM at all.
        registered_after_s: how long an instance's agent takes to report.
        known_after_s: for how long a command that was just sent is not known.
    """

    def __init__(
        self,
        sandboxes: dict[str, Sandbox],
        may_report: Callable[[str], bool],
        *,
        registered_after_s: float = 0.5,
        known_after_s: float = 0.3,
    ) -> None:
        self._sandboxes = sandboxes
        self._may_report = may_report
        self._registered_after_s = registered_after_s
        self._known_after_s = known_after_s
        self._born: dict[str, float] = {}
        self._sent: dict[str, dict[str, Invocation]] = {}
        self.calls: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "SendCommand": self._send,
            "GetCommandInvocation": self._get,
            "ListCommandInvocations": self._list,
            "CancelCommand": self._cancel,
            "DescribeInstanceInformation": self._describe,
        }

    def born(self, instance_id: str) -> None:
        """An instance has been launched; its agent reports a little later."""
        self._born[instance_id] = time.monotonic()

    def _online(self, instance_id: str) -> bool:
        sandbox = self._sandboxes.get(instance_id)
        young = time.monotonic() - self._born.get(instance_id, time.monotonic()) < self._registered_after_s
        return sandbox is not None and sandbox.alive and not young and self._may_report(instance_id)

    def _describe(self, asked: dict[str, Any]) -> dict[str, Any]:
        wanted = None
        for one in asked.get("Filters", []):
            if one["Key"] == "InstanceIds":
                wanted = set(one["Values"])
        found = [
            {"InstanceId": name, "PingStatus": "Online", "PlatformType": "Linux", "AgentVersion": "3.3.0.0"}
            for name in self._sandboxes
            if (wanted is None or name in wanted) and self._online(name)
        ]
        return {"InstanceInformationList": found}

    def _send(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["DocumentName"] != "AWS-RunShellScript":
            raise SsmError("InvalidDocument", asked["DocumentName"])
        if not 30 <= asked.get("TimeoutSeconds", 3600) <= 2_592_000:
            raise SsmError("ValidationException", "TimeoutSeconds must be between 30 and 2592000")
        targets = asked.get("InstanceIds", [])
        if not targets or not all(map(self._online, targets)):
            raise SsmError("InvalidInstanceId", "Instances not in a valid state for account")
        command = str(uuid.uuid4())
        parameters = asked.get("Parameters", {})
        script = "\n".join(parameters.get("commands", []))
        timeout_s = float(parameters.get("executionTimeout", [_RUN_DEFAULT_S])[0])
        self._sent[command] = {}
        for name in targets:
            one = Invocation(command, self._sandboxes[name], time.monotonic())
            self._sent[command][name] = one
            threading.Thread(target=self._run, args=(one, script, timeout_s), daemon=True).start()
        return {"Command": {"CommandId": command, "Status": "Pending", "InstanceIds": targets,
                            "DocumentName": asked["DocumentName"]}}  # fmt: skip

    def _run(self, one: Invocation, script: str, timeout_s: float) -> None:
        time.sleep(0.05)
        folder = one.sandbox.folder / "home"
        path = folder.parent / f"command-{one.id}.sh"
        try:
            path.write_text(script + "\n")
            one.process = one.sandbox.start(
                ["sh", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )  # fmt: skip
        except OSError:
            return  # the instance has gone: the command stays as it was
        one.status = "InProgress"
        try:
            out, err = one.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            kill_group(one.process)
            out, err = one.process.communicate()
            one.status = "TimedOut"
        if not one.sandbox.alive:
            return
        one.stdout = out.decode(errors="replace")[:STDOUT_CHARS]
        one.stderr = err.decode(errors="replace")[:STDERR_CHARS]
        one.code = one.process.returncode
        if one.cancelled:
            one.status = "Cancelled"
        elif one.status != "TimedOut":
            one.status = "Success" if one.code == 0 else "Failed"

    def _found(self, asked: dict[str, Any]) -> Invocation:
        one = self._sent.get(asked["CommandId"], {}).get(asked["InstanceId"])
        if one is None or time.monotonic() - one.sent_at < self._known_after_s:
            raise SsmError("InvocationDoesNotExist")
        return one

    def _get(self, asked: dict[str, Any]) -> dict[str, Any]:
        return _told(self._found(asked), asked["InstanceId"])

    def _list(self, asked: dict[str, Any]) -> dict[str, Any]:
        found = self._sent.get(asked.get("CommandId", ""), {})
        return {"CommandInvocations": [_told(one, name) for name, one in found.items()]}

    def _cancel(self, asked: dict[str, Any]) -> dict[str, Any]:
        for one in self._sent.get(asked["CommandId"], {}).values():
            one.cancelled = True
            if one.process is not None:
                with contextlib.suppress(OSError):
                    kill_group(one.process)
        return {}


def _told(one: Invocation, instance_id: str) -> dict[str, Any]:
    ended = one.status not in ("Pending", "InProgress")
    return {
        "CommandId": one.id,
        "InstanceId": instance_id,
        "Status": one.status,
        "StatusDetails": one.status,
        "ResponseCode": one.code if ended else -1,
        "StandardOutputContent": one.stdout if ended else "",
        "StandardErrorContent": one.stderr if ended else "",
    }
