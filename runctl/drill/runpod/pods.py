"""One pod: a folder of its own, a host key, and a container that starts again whenever its entrypoint ends."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runctl.drill.runpod import image
from runctl.drill.runpod.sshd import Sshd
from runctl.drill.sandboxes import host_environment

#: For a moment RunPod tells nothing of what runs in a pod that it has granted.
COMES_UP_S = 0.4
#: Whoever ends its own pod gets its answer first.
_ANSWER_S = 0.2
_END_S = 15.0
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Wanted:
    """What a pod was asked to be.

    Attributes:
        market: `spot` or `on_demand`.
        cloud: `secure` or `community`.
        price: USD an hour, of all its GPUs.
        ports: such as `22/tcp`.
        volume: the folder of a network volume.
    """

    name: str
    gpu: str
    gpu_count: int
    market: str
    cloud: str
    price: float
    image: str
    env: dict[str, str] = field(default_factory=dict)
    docker_args: str = ""
    start_ssh: bool = False
    ports: tuple[str, ...] = ()
    data_center: str | None = None
    volume: Path | None = None
    volume_mount_path: str | None = None
    asked: dict[str, Any] = field(default_factory=dict)


class Pod:
    """A pod, running from the moment it is made.

    Args:
        pod_id: whose.
        root: where folders of pods are made.
        wanted: what it is to be.
        url: of the API.
        key: the API key that is good for this pod alone.
        sshd: serves its sessions.

    Attributes:
        state: `running`, `exited` (it keeps its disk and waits to be ended), `terminated`.
    """

    def __init__(self, pod_id: str, root: Path, wanted: Wanted, *, url: str, key: str, sshd: Sshd) -> None:
        self.id = pod_id
        self.key = key
        self.wanted = wanted
        self.folder = root / pod_id
        self.state = "running"
        self.created_at = time.time()
        self.ended_at: float | None = None
        self.why = ""
        self._sshd = sshd
        self._lock = threading.Lock()
        self._container: subprocess.Popen[bytes] | None = None
        self.ssh_port = _free_port() if wanted.start_ssh and "22/tcp" in wanted.ports else None
        own = host_environment(pod_id, self.folder)
        (self.folder / "etc").mkdir()
        workspace = self.folder / "workspace"
        if wanted.volume is not None:
            workspace.symlink_to(wanted.volume)
        else:
            workspace.mkdir()
        self.environment = {
            **{name: value for name, value in wanted.env.items() if _NAME.fullmatch(name)},
            **own,
            "RUNPOD_API_BASE_URL": url,
            "RUNPOD_API_KEY": key,
            "RUNPOD_POD_ID": pod_id,
            "RUNPOD_GPU_COUNT": str(wanted.gpu_count),
            "RUNCTL_POD_VOLUME": str(workspace),  # what a pod has at its volume's mount path
        }
        self.new_host_key()
        self._install()
        self._start()

    @property
    def ports(self) -> list[dict[str, Any]] | None:
        """RunPod's `runtime.ports`; None as long as there is nothing to tell."""
        if self.state != "running" or time.time() - self.created_at < COMES_UP_S:
            return None
        return [
            {
                "ip": "127.0.0.1",
                "isIpPublic": kind == "tcp",
                "privatePort": int(private),
                "publicPort": self.ssh_port if private == "22" else int(private),
                "type": kind,
            }
            for private, kind in (one.split("/") for one in self.wanted.ports)
            if private != "22" or self.ssh_port is not None
        ]

    @property
    def starts(self) -> int:
        """How often the container's entrypoint was started."""
        return int(self._told().get("starts", 0))

    def interrupt(self) -> None:
        """Have RunPod take it back: SIGTERM, SIGKILL 5 s later; then it is a pod that has exited."""
        with self._lock:
            if self._container is not None and self.state == "running":
                with contextlib.suppress(OSError, ValueError):
                    assert self._container.stdin is not None
                    self._container.stdin.write(b"term\n")
                    self._container.stdin.flush()
            container = self._container
        threading.Thread(target=self._taken_back, args=(container,), daemon=True).start()

    def end(self, state: str, why: str, *, answer_first: bool = False) -> None:
        """End everything in it at once.

        Args:
            state: in which it is from now on.
            why: shown to whoever looks at the drill.
            answer_first: leave a moment to whoever asked for it from within.
        """
        with self._lock:
            if self.state == "running":
                self.ended_at, self.why = time.time(), why
            self.state = state
        if answer_first:
            threading.Timer(_ANSWER_S, self._close).start()
        else:
            self._close()

    def new_host_key(self) -> None:
        """Another key of the host's, from the next start of its container."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

        made = Ed25519PrivateKey.generate()
        key = self.folder / "etc" / "host_key"
        key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        key.chmod(0o600)
        key.with_suffix(".pub").write_bytes(made.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))

    def restart(self, *, after_s: float = 0.0) -> None:
        """The container ends and starts again, as after `podStop` and `podResume`; its folder stays.

        Args:
            after_s: between the two.
        """
        self._close()
        time.sleep(after_s)
        self._start()

    def cut(self) -> None:
        """End those of sshd's processes that serve a connection, and nothing that was started through one."""
        import psutil

        with self._lock, contextlib.suppress(psutil.Error):
            for one in psutil.Process(self._container.pid).children(recursive=True) if self._container else ():
                with contextlib.suppress(psutil.Error):
                    title = " ".join(one.cmdline())
                    if title.startswith("sshd: ") and "[listener]" not in title:
                        one.kill()

    def shown(self) -> dict[str, Any]:
        """What those who steer the drill see."""
        wanted = self.wanted
        return {
            "id": self.id, "name": wanted.name, "state": self.state, "market": wanted.market, "machine": wanted.gpu,
            "cloud": wanted.cloud, "price": wanted.price, "created_at": self.created_at, "ended_at": self.ended_at,
            "why": self.why, "folder": str(self.folder), "starts": self.starts, "ssh_port": self.ssh_port,
            "asked": wanted.asked,
        }  # fmt: skip

    def _told(self) -> dict[str, Any]:
        try:
            told: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        except OSError:
            return {}
        return told

    def _install(self) -> None:
        port = self.ssh_port if self.wanted.env.get("PUBLIC_KEY") else None
        image.install(self.folder, self.environment, self._sshd, port)
        argv = shlex.split(self.wanted.docker_args) or [str(self.folder / "bin" / "start.sh")]
        told = {"argv": argv, "cwd": str(self.folder / "home")}
        (self.folder / "container.json").write_text(json.dumps(told))

    def _taken_back(self, container: subprocess.Popen[bytes] | None) -> None:
        if container is not None:
            container.wait()
        if self.state == "running":
            self.end("exited", "interrupted")

    def _start(self) -> None:
        with self._lock:
            self._container = subprocess.Popen(
                [sys.executable, "-m", "runctl.drill.runpod.container", str(self.folder)],
                cwd=self.folder / "home",
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    def _close(self) -> None:
        """End the container, and wait until it has ended."""
        with self._lock:
            container, self._container = self._container, None
        if container is None:
            return
        assert container.stdin is not None
        with contextlib.suppress(OSError):
            container.stdin.close()
        try:
            container.wait(_END_S)
        except subprocess.TimeoutExpired:
            container.kill()
            container.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
