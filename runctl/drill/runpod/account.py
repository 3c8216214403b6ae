"""What the drill's account can rent, and what it has rented. Prices are RunPod's of some day, in USD a GPU and hour."""

from __future__ import annotations

import re
import secrets
import threading
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from runctl.drill.runpod.pods import Pod, Wanted
from runctl.drill.runpod.sshd import Sshd

#: The words of RunPod's refusals, as its users report them.
NONE_LEFT = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)
NO_DISK = "There are no longer any instances available with enough disk space."
BID_TOO_LOW = "Your bid is lower than the minimum bid price for this GPU type."
NO_FUNDS = "You do not have enough funds in your account to deploy this pod."
_SECRET = re.compile(r"\{\{\s*RUNPOD_SECRET_(\w+)\s*\}\}")
#: Disks (GB) are never larger in the drill.
_LARGEST_DISK = 20_000


class Refused(Exception):
    """RunPod says no; the text is its own."""


@dataclass
class Gpu:
    """A type of GPU; a price of None is a cloud that has none of it, and `left` None an endless supply."""

    id: str
    name: str
    memory: int
    secure: float | None
    community: float | None
    secure_spot: float | None
    community_spot: float | None
    most: int = 8
    left: int | None = None
    left_spot: int | None = None

    def price(self, cloud: str, market: str) -> float | None:
        spot = market == "spot"
        if cloud == "secure":
            return self.secure_spot if spot else self.secure
        return self.community_spot if spot else self.community

    def told(self) -> dict[str, Any]:
        """As GraphQL's GpuType."""

        def lowest(_info: object, input: dict[str, Any] | None = None) -> dict[str, Any]:
            def least(*prices: float | None) -> float | None:
                return min((price for price in prices if price is not None), default=None)

            count = (input or {}).get("gpuCount") or 1
            if count > self.most:
                return {"minimumBidPrice": None, "uninterruptablePrice": None}
            bid = None if self.left_spot == 0 else least(self.secure_spot, self.community_spot)
            full = None if self.left == 0 else least(self.secure, self.community)
            return {"minimumBidPrice": bid, "uninterruptablePrice": full}

        return {
            "id": self.id, "displayName": self.name, "manufacturer": "AMD" if "AMD" in self.id else "Nvidia",
            "memoryInGb": self.memory, "maxGpuCount": self.most,
            "secureCloud": self.secure is not None, "communityCloud": self.community is not None,
            "securePrice": self.secure, "communityPrice": self.community,
            "secureSpotPrice": self.secure_spot, "communitySpotPrice": self.community_spot,
            "lowestPrice": lowest,
        }  # fmt: skip


def gpus() -> list[Gpu]:
    """What RunPod rents, all of it in endless supply."""
    return [
        Gpu("NVIDIA RTX A4000", "RTX A4000", 16, 0.25, 0.17, 0.16, 0.11),
        Gpu("NVIDIA L4", "L4", 24, 0.43, None, 0.22, None),
        Gpu("NVIDIA RTX A5000", "RTX A5000", 24, 0.29, 0.22, 0.18, 0.14),
        Gpu("NVIDIA GeForce RTX 4090", "RTX 4090", 24, 0.69, 0.44, 0.35, 0.25),
        Gpu("NVIDIA RTX A6000", "RTX A6000", 48, 0.49, 0.39, 0.30, 0.24),
        Gpu("NVIDIA A40", "A40", 48, 0.40, None, 0.24, None),
        Gpu("NVIDIA A100 80GB PCIe", "A100 PCIe", 80, 1.64, 1.19, 0.82, 0.60),
        Gpu("NVIDIA H100 80GB HBM3", "H100 SXM", 80, 2.99, 2.69, 1.75, 1.50),
        Gpu("AMD Instinct MI300X OAM", "MI300X", 192, 2.49, None, 1.59, None),
        Gpu("unknown", "unknown", 0, None, None, None, None),
    ]


class Account:
    """GPUs, balance, volumes, secrets and pods.

    Args:
        root: for folders of pods.
        url: of the API.
        sshd: serves sessions.
    """

    def __init__(self, root: Path, url: str, sshd: Sshd) -> None:
        self.gpus = {one.id: one for one in gpus()}
        self.balance = 100.0
        self.secrets: dict[str, str] = {}
        #: By variable, what a secret is that nobody has made.
        self.unmade: dict[str, str] = {}
        self.volumes: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, Pod] = {}
        self._root = root
        self._url = url
        self._sshd = sshd
        self._lock = threading.Lock()

    def make_volume(self, name: str, data_center: str, size: int) -> str:
        """Make a network volume, and return its id."""
        made = f"vol{secrets.token_hex(5)}"
        self.volumes[made] = {"id": made, "name": name, "size": size, "dataCenterId": data_center}
        self.volume_folder(made).mkdir(parents=True)
        return made

    def volume_folder(self, volume: str) -> Path:
        return self._root / "volumes" / volume

    def rent(self, asked: dict[str, Any], market: str) -> Pod:
        """Rent a pod.

        Args:
            asked: the input of RunPod's mutation.
            market: `spot` or `on_demand`.

        Raises:
            Refused: if it is not to be had.
        """
        with self._lock:
            wanted = self._wanted(asked, market)
            gpu = self.gpus[wanted.gpu]
            if market == "spot" and gpu.left_spot is not None:
                gpu.left_spot -= 1
            if market == "on_demand" and gpu.left is not None:
                gpu.left -= 1
            name = secrets.token_hex(7)
            key = f"drill-pod-{secrets.token_hex(8)}"
            pod = Pod(name, self._root / "pods", wanted, url=self._url, key=key, sshd=self._sshd)
            self.pods[name] = pod
        if ends_at := asked.get("terminateAfter"):
            left_s = datetime.fromisoformat(str(ends_at).replace("Z", "+00:00")) - datetime.now(timezone.utc)
            timer = threading.Timer(max(0.0, left_s.total_seconds()), pod.end, ("terminated", "terminateAfter"))
            timer.daemon = True
            timer.start()
        return pod

    def living(self) -> list[Pod]:
        """The pods that RunPod still tells of."""
        return [one for one in self.pods.values() if one.state != "terminated"]

    def spending(self) -> float:
        return sum(one.wanted.price for one in self.living() if one.state == "running")

    def end_all(self) -> None:
        """End everything in every pod."""
        for one in list(self.pods.values()):
            one.end("terminated", "the drill's end")

    def _wanted(self, asked: dict[str, Any], market: str) -> Wanted:
        count = asked.get("gpuCount") or 1
        gpu = self.gpus.get(asked.get("gpuTypeId") or "")
        if gpu is None:
            raise Refused(NONE_LEFT)
        volume = asked.get("networkVolumeId")
        if volume is not None and volume not in self.volumes:
            raise Refused(f"Network volume {volume} not found")
        where = asked.get("dataCenterId")
        if volume is not None and where not in (None, self.volumes[volume]["dataCenterId"]):
            raise Refused(NONE_LEFT)
        clouds = {"SECURE": ["secure"], "COMMUNITY": ["community"]}.get(asked.get("cloudType") or "ALL")
        prices = {cloud: gpu.price(cloud, market) for cloud in clouds or ["community", "secure"]}
        there = {cloud: price for cloud, price in prices.items() if price is not None}
        left = gpu.left_spot if market == "spot" else gpu.left
        if not there or count > gpu.most or (left is not None and left < 1):
            raise Refused(NONE_LEFT)
        if (asked.get("containerDiskInGb") or 0) + (asked.get("volumeInGb") or 0) > _LARGEST_DISK:
            raise Refused(NO_DISK)
        cloud, price = min(there.items(), key=lambda one: one[1])
        if market == "spot":
            if asked["bidPerGpu"] < price:
                raise Refused(BID_TOO_LOW)
            price = asked["bidPerGpu"]
        if self.balance < price * count:
            raise Refused(NO_FUNDS)
        given = {one["key"]: self._filled_in(one["key"], one["value"]) for one in asked.get("env") or []}
        return Wanted(
            name=asked.get("name") or "",
            gpu=gpu.id,
            gpu_count=count,
            market=market,
            cloud=cloud,
            price=round(price * count, 4),
            image=asked.get("imageName") or "",
            env=given,
            docker_args=asked.get("dockerArgs") or "",
            start_ssh=bool(asked.get("startSsh")),
            ports=tuple(filter(None, (asked.get("ports") or "").replace(" ", "").split(","))),
            data_center=where or (self.volumes[volume]["dataCenterId"] if volume else None),
            volume=self.volume_folder(volume) if volume else None,
            volume_mount_path=asked.get("volumeMountPath"),
            asked=asked,
        )

    def _filled_in(self, variable: str, value: str) -> str:
        """A value with the account's secrets in the place of their names."""
        return _SECRET.sub(lambda found: self.secrets.get(found[1], self.unmade.get(variable, found[0])), value)


def with_price(gpu: Gpu, **prices: float | None) -> Gpu:
    """A GPU with other prices or another supply.

    Raises:
        TypeError: for a name that is none.
    """
    return replace(gpu, **prices)  # type: ignore[arg-type]
