"""Pods that exist: found by id or by our name, described, ended."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from typing import Any

from runctl.errors import NotAllowed, PlatformError
from runctl.platforms.runpod.api import Api, literal, mutation
from runctl.platforms.runpod.ssh import Address

#: RunPod's words for a pod that nothing runs in; a stopped one bills its disk all the same.
_ENDED = ("EXITED", "TERMINATED", "DEAD", "STOPPED")
#: A pod that was only just rented may not be known everywhere yet.
_KNOWN_AFTER_S = 60.0
_TERMINATE_TRIES = 6
_PAUSE_S = 1.0
#: As `requests.pod_name` makes it; earlier ones ended with the attempt.
_NAME = re.compile(r"runctl-(?P<run>.+)-a(?P<attempt>\d+)(-[0-9a-f]{8})?")
FIELDS = (
    "id name desiredStatus podType costPerHr uptimeSeconds machine { gpuDisplayName } "
    "runtime { ports { ip isIpPublic privatePort publicPort type } }"
)


@dataclass(frozen=True)
class Pod:
    """What RunPod tells of a pod.

    Attributes:
        state: RunPod's word, such as RUNNING or EXITED, or `gone` for one that it does not know any more.
        comes_up: nothing runs in it yet.
        ssh: where its own sshd answers (RunPod's proxy at ssh.runpod.io knows no SFTP); None as long as it is not told.
    """

    id: str
    state: str
    name: str = ""
    gpu: str = ""
    market: str = ""
    price_usd_per_hour: float | None = None
    uptime_s: float = 0.0
    comes_up: bool = False
    ssh: Address | None = None

    @property
    def alive(self) -> bool:
        return self.state != "gone" and self.state not in _ENDED

    @property
    def costs(self) -> bool:
        """Whether it is billed, if only for its disk."""
        return self.state not in ("gone", "TERMINATED")

    @property
    def made_for(self) -> tuple[str, int] | None:
        """Run and attempt, as our names tell; None for a pod that is not ours."""
        found = _NAME.fullmatch(self.name)
        return None if found is None else (found["run"], int(found["attempt"]))


class Pods:
    """The account's pods.

    Args:
        api: RunPod's.
    """

    def __init__(self, api: Api) -> None:
        self._api = api

    def get(self, pod_id: str, launched_at: float = 0.0) -> Pod:
        """One pod as it is now.

        Args:
            pod_id: whose.
            launched_at: when it was rented (seconds since the epoch): for a while RunPod may not know it.

        Raises:
            PlatformError: if RunPod cannot be asked, as `Api.ask`.
        """
        query = f"query {{ pod(input: {literal({'podId': pod_id})}) {{ {FIELDS} }} }}"
        told = self._api.ask(f"looking at pod {pod_id}", query).get("pod")
        if told:
            return _read(told)
        young = time.time() - launched_at < _KNOWN_AFTER_S
        return Pod(pod_id, "RUNNING" if young else "gone", comes_up=young)

    def named(self, name: str) -> list[Pod]:
        """Every pod of a name, those that have exited and wait to be ended too; RunPod lets names repeat.

        Raises:
            PlatformError: as `get`.
        """
        return [one for one in self.all(f"looking for pod {name}") if one.name == name]

    def all(self, what: str = "looking for pods") -> list[Pod]:
        """Every pod of the account, also those that have exited.

        Raises:
            PlatformError: as `get`.
        """
        told = self._api.ask(what, f"query {{ myself {{ pods {{ {FIELDS} }} }} }}")
        return [_read(one) for one in (told.get("myself") or {}).get("pods") or [] if one]

    def ours(self) -> list[Pod]:
        """Every pod whose name is one of ours and that costs something: of one that has exited it is its disk.

        Raises:
            PlatformError: as `get`.
        """
        return [one for one in self.all() if one.made_for is not None and one.costs]

    def terminate(self, pod_id: str) -> None:
        """End a pod, and its disk with it; asked for until RunPod knows it no more. One that is gone is left so.

        Raises:
            NotAllowed: if the key may not.
            PlatformError: if it is still there; then its own deadline ends it.
        """
        last: PlatformError | None = None
        for number in range(_TERMINATE_TRIES):
            if number:
                time.sleep(min(_PAUSE_S * 2 ** (number - 1), 8 * _PAUSE_S))
            try:
                self._api.ask(f"ending pod {pod_id}", mutation("podTerminate", {"podId": pod_id}))
            except NotAllowed:
                raise
            except PlatformError as error:  # of one that is gone RunPod says so, in words that nobody has listed
                last = error
            try:
                if not self._is_there(pod_id):
                    return
            except NotAllowed:
                raise
            except PlatformError as error:
                last = error
        why = "" if last is None else f" ({last})"
        raise PlatformError(f"pod {pod_id} is still there after {_TERMINATE_TRIES} requests to end it{why}; end it at "
                            "https://console.runpod.io/pods")  # fmt: skip

    def _is_there(self, pod_id: str) -> bool:
        found = self.get(pod_id)
        return found.state not in ("gone", "TERMINATED")


def only(found: list[Pod], what: str) -> Pod | None:
    """The one living pod of an attempt, or None.

    Raises:
        PlatformError: for several, which must not be: somebody has to look.
    """
    living = [one for one in found if one.alive]
    if len(living) > 1:
        raise PlatformError(
            f"{what} has {len(living)} pods: {', '.join(one.id for one in living)}; end those that should not run"
        )
    return living[0] if living else None


def _read(told: dict[str, Any]) -> Pod:
    runtime = told.get("runtime") or {}
    price = told.get("costPerHr")
    return Pod(
        id=str(told["id"]),
        state=str(told.get("desiredStatus") or "RUNNING"),
        name=str(told.get("name") or ""),
        gpu=str((told.get("machine") or {}).get("gpuDisplayName") or ""),
        market="spot" if str(told.get("podType") or "").upper() in ("INTERRUPTABLE", "BID", "SPOT") else "on_demand",
        price_usd_per_hour=None if price is None else float(price),
        uptime_s=float(told.get("uptimeSeconds") or runtime.get("uptimeInSeconds") or 0.0),
        comes_up=not runtime,
        ssh=_ssh(runtime.get("ports") or []),
    )


def _ssh(ports: list[dict[str, Any]]) -> Address | None:
    for one in ports:
        if one.get("privatePort") == 22 and one.get("type") == "tcp" and one.get("ip") and one.get("publicPort"):
            return Address(str(one["ip"]), int(one["publicPort"]), os.environ.get("RUNCTL_POD_USER") or "root")
    return None
