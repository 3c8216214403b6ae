"""EC2 around moto's: tokens that hold, instances that are processes, the ends of both."""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from runctl.drill.metadata import Facts, Metadata
from runctl.drill.sandboxes import Sandbox
from runctl.drill.ssm import Ssm

ACCOUNT = "123456789012"
#: Public parameters of images, by what their names begin with; each is one that moto's EC2 knows.
_IMAGES = (
    ("/aws/service/deeplearning/ami/", "ami-04681a1dbd79675a5"),
    ("/aws/service/ami-amazon-linux-latest/", "ami-04681a1dbd79675a5"),
)
#: As much as EC2 keeps of a console (docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetConsoleOutput.html).
_CONSOLE_BYTES = 64 << 10
#: What distinguishes one request from another but for the token itself.
_NOT_COMPARED = ("ClientToken", "Action", "Version")


@dataclass
class Launched:
    """One instance that was launched.

    Attributes:
        why: why it ended; empty while it lives.
    """

    id: str
    region: str
    machine: str
    zone: str
    market: str
    shutdown: str
    tags: dict[str, str]
    launched_at: float
    sandbox: Sandbox
    metadata: Metadata
    ended_at: float | None = None
    why: str = ""
    state: str = "running"
    timer: threading.Timer | None = field(default=None)


class Ec2:
    """The instances of all regions.

    Args:
        root: where sandboxes are made.
        url: of the cloud.
        ssm: is told of instances.
        sandboxes: shared with SSM.
        give_keys: the role's name and the keys of an instance, by its id and the profile it is launched with.
    """

    def __init__(
        self,
        root: Path,
        url: str,
        ssm: Ssm,
        sandboxes: dict[str, Sandbox],
        give_keys: Callable[[str, str], tuple[str, str] | None],
    ) -> None:
        self._root = root
        self._url = url
        self._ssm = ssm
        self._sandboxes = sandboxes
        self._give_keys = give_keys
        self._lock = threading.Lock()
        self._tokens: dict[tuple[str, str], tuple[dict[str, Any], list[str], tuple[int, str, bytes]]] = {}
        self.instances: dict[str, Launched] = {}

    def run_instances(
        self, body: bytes, region: str, carry_out: Callable[[], tuple[int, str, bytes]]
    ) -> tuple[int, str, bytes] | str:
        """RunInstances; one token launches once.

        Returns:
            The answer, or the code of an error.
        """
        asked = {name: values[0] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
        token = asked.get("ClientToken", "")
        told = {name: value for name, value in asked.items() if name not in _NOT_COMPARED}
        with self._lock:
            known = self._tokens.get((region, token)) if token else None
            if known is not None:
                if known[0] != told:
                    return "IdempotentParameterMismatch"
                if any(self.instances[name].state == "terminated" for name in known[1]):
                    return "IdempotentInstanceTerminated"
                return known[2]
            answer = carry_out()
            if answer[0] != 200:
                return answer
            ids = re.findall(rb"<instanceId>(i-[0-9a-f]+)</instanceId>", answer[2])
            names = [name.decode() for name in dict.fromkeys(ids)]
            for name in names:
                self._born(name, region, asked)
            self._tokens[region, token] = (told, names, answer)
        return answer

    def _born(self, name: str, region: str, asked: dict[str, str]) -> None:
        model = self._model(name, region)
        market = "spot" if asked.get("InstanceMarketOptions.MarketType") == "spot" else "on_demand"
        zone = str(model.placement.zone)
        sandbox = Sandbox(name, self._root, self._url, region, self._powered_off)
        profile = asked.get("IamInstanceProfile.Name") or asked.get("IamInstanceProfile.Arn") or ""
        facts = Facts(name, str(model.instance_type), zone, market, self._give_keys(name, profile))
        self.instances[name] = Launched(
            id=name,
            region=region,
            machine=facts.machine,
            zone=zone,
            market=market,
            shutdown=str(model.instance_initiated_shutdown_behavior),
            tags={tag["key"]: tag["value"] for tag in model.get_tags()},
            launched_at=time.time(),
            sandbox=sandbox,
            metadata=Metadata(facts, sandbox),
        )
        self._sandboxes[name] = sandbox
        self._ssm.born(name)
        data = model.user_data
        text = data.decode() if data is not None and hasattr(data, "decode") else (data or b"")
        sandbox.boot(text.encode() if isinstance(text, str) else bytes(text))

    def console(self, name: str) -> bytes:
        """What an instance printed on its console, as GetConsoleOutput answers: the last of it, also after its end."""
        one = self.instances[name]
        text = base64.b64encode(one.sandbox.console.read_bytes()[-_CONSOLE_BYTES:]).decode()
        now = datetime.fromtimestamp(time.time(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<GetConsoleOutputResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>drill</requestId>'
            f"<instanceId>{name}</instanceId><timestamp>{now}</timestamp><output>{text}</output>"
            "</GetConsoleOutputResponse>"
        ).encode()

    def terminated(self, ids: list[str]) -> None:
        """What TerminateInstances was asked for has happened in moto: end the processes."""
        for name in ids:
            self._end(name, "Client.UserInitiatedShutdown", "User initiated shutdown", tell_moto=False)

    def interrupt(self, name: str, notice_s: float) -> None:
        """Give the notice; the instance is taken back when it is over."""
        one = self.instances[name]
        one.sandbox.interrupted_at = time.time() + notice_s
        one.timer = threading.Timer(
            notice_s,
            self._end,
            (name, "Server.SpotInstanceTermination", "Spot instance termination"),
        )
        one.timer.daemon = True
        one.timer.start()

    def kill(self, name: str) -> None:
        """The instance is gone, without notice."""
        self._end(name, "Server.InternalError", "Internal error")

    def _powered_off(self, name: str) -> None:
        one = self.instances[name]
        if one.shutdown == "terminate":
            self._end(name, "Client.InstanceInitiatedShutdown", "Instance initiated shutdown")
        elif one.state == "running":
            one.sandbox.end()
            self._model(name, one.region).stop()
            one.state = "stopped"

    def _end(self, name: str, code: str, message: str, *, tell_moto: bool = True) -> None:
        one = self.instances[name]
        with self._lock:
            if one.state == "terminated":
                return
            one.state, one.ended_at, one.why = "terminated", time.time(), code
        if one.timer is not None:
            one.timer.cancel()
        one.sandbox.end()
        model = self._model(name, one.region)
        if tell_moto:
            model.terminate()
        model.state_reason.code, model.state_reason.message = code, f"{code}: {message}"

    def end_all(self) -> None:
        """End every process of every instance."""
        for one in self.instances.values():
            if one.timer is not None:
                one.timer.cancel()
            one.sandbox.end()

    def _model(self, name: str, region: str) -> Any:
        """moto's own object of an instance."""
        from moto.ec2.models import ec2_backends

        return ec2_backends[ACCOUNT][region].get_instance(name)


def image_of(parameter: str) -> str | None:
    """The image that a public parameter names."""
    return next((image for prefix, image in _IMAGES if parameter.startswith(prefix)), None)
