"""A loopback RunPod for as long as somebody holds it: started, steered, ended with everything that ran in it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from runctl import processes
from runctl.drill.sandboxes import MARK
from runctl.drill.steering import Steered, without_proxy
from runctl.encoding import dumps
from runctl.errors import MissingExtra, PlatformError

#: The key of the drill's account, good nowhere else.
KEY = "drill-account-key"
_END_S = 20.0
#: Containers end with their server; so long until what is left of one is killed.
_BY_ITSELF_S = 3.0


class RunpodCloud(Steered):
    """Starts RunPod's API and its pods on loopback.

    A fault's action is a query's first field, such as podTerminate. A status of 500 and more is answered in HTML, the
    code `null` with a null where the pod would be, everything else with `message` (or the code) as GraphQL's error.

    Args:
        folder: for its pods; a temporary one if None, which goes at the end.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._kept = folder is not None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="runctl-drill-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._user = "root"

    def __enter__(self) -> RunpodCloud:
        """Start it, and wait until it answers. The first time, that fetches an sshd if the system has none.

        Raises:
            MissingExtra: without graphql-core.
            PlatformError: if it does not start, or there is no sshd to be had.
        """
        if importlib.util.find_spec("graphql") is None:
            raise MissingExtra("the drill", "drill")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "runctl.drill.runpod.server", str(self.folder), KEY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not name.startswith("RUNPOD_")},
            start_new_session=True,
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline().decode().strip()
        if not said.startswith("http://127.0.0.1:"):
            self._end()
            raise PlatformError(said or "the drill's RunPod did not start; what it said stands above")
        self.url, self._user = said.split(" ", 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """An environment in which RunPod's clients come here and know nothing of any account of the user's.

        Args:
            base: what else is in it; whatever is RunPod's there is dropped.
        """
        return {
            **{name: value for name, value in base.items() if not name.startswith("RUNPOD_")},
            **without_proxy(base),
            "RUNPOD_API_BASE_URL": self.url,
            "RUNPOD_API_KEY": KEY,
            **({} if self._user == "root" else {"RUNCTL_POD_USER": self._user}),
        }

    def pods(self) -> list[dict[str, Any]]:
        """Every pod that was rented, those that have ended too: `id`, `name`, `state` and what it was asked to be.

        `state` is `running`, `exited` or `terminated`; `starts` counts the starts of its container's entrypoint.
        """
        told: list[dict[str, Any]] = self._ask("pods")
        return told

    def interrupt(self, pod: str) -> None:
        """Have RunPod take a spot pod back: SIGTERM to its first process, SIGKILL to all 5 s later; it has exited."""
        self._ask("interrupt", pod=pod)

    def kill(self, pod: str) -> None:
        """Have a pod vanish with its machine."""
        self._ask("kill", pod=pod)

    def restart(self, pod: str, *, after_s: float = 0.0, new_host_key: bool = False) -> None:
        """Have a pod's container end and start again, as after a stop and a start in the console.

        Args:
            pod: which.
            after_s: for so long there is nobody to answer.
            new_host_key: its sshd shows another key from then on.
        """
        if new_host_key:
            self._ask("host_key", pod=pod)
        self._ask("restart", pod=pod, after_s=after_s)

    def cut(self, pod: str) -> None:
        """Break every SSH connection of a pod; whoever connects again gets an answer."""
        self._ask("cut", pod=pod)

    def set_capacity(self, gpu: str, *, spot: int | None = None, on_demand: int | None = None) -> None:
        """So many pods of a type of GPU can be rented from now on; None is an endless supply."""
        self._ask("market", dumps({"gpu": gpu, "left_spot": spot, "left": on_demand}).encode())

    def set_price(self, gpu: str, **prices: float | None) -> None:
        """Other prices of a type of GPU, in USD a GPU and hour.

        Args:
            gpu: which.
            prices: any of secure, community, secure_spot, community_spot; None is a cloud that has none.
        """
        self._ask("market", dumps({"gpu": gpu, **prices}).encode())

    def set_balance(self, usd: float) -> None:
        """What the account has left."""
        self._ask("balance", usd=usd)

    def set_secret(self, name: str, value: str) -> None:
        """Keep a secret: `{{ RUNPOD_SECRET_name }}` in a pod's env becomes it."""
        self._ask("secret", name=name, value=value)

    def set_unmade_secret(self, variable: str, value: str) -> None:
        """What a secret is that nobody has set and that a pod wants in this variable; otherwise its mark stays."""
        self._ask("unmade", variable=variable, value=value)

    def make_volume(self, name: str, data_center: str = "EU-RO-1", size: int = 10) -> str:
        """Make a network volume, and return its id; it outlives the pods that it is mounted in."""
        made: str = self._ask("volume", name=name, data_center=data_center, size=size)
        return made

    def _end(self) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        for pod in [path.name for path in self.folder.glob("pods/*")]:
            deadline = time.monotonic() + _BY_ITSELF_S
            while processes.find_by_environment(MARK, pod) and time.monotonic() < deadline:
                time.sleep(0.05)
            processes.end_by_environment(MARK, pod)
        if not self._kept:
            shutil.rmtree(self.folder, ignore_errors=True)
