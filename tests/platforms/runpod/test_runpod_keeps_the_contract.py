"""The contract of every platform, kept by RunPod on the loopback one: over SSH, and by a start command."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from contract import Bench, PlatformContract
from rented_pods import GPU, loopback

from runctl.drill.runpod.cloud import RunpodCloud
from runctl.drill.sandboxes import MARK
from runctl.hostdir import HostDir
from runctl.platforms.runpod import RunpodPlatform
from runctl.platforms.runpod.options import RunpodConfig, Transport
from runctl.processes import find_by_environment
from runctl.spec import LaunchSpec, RunHandle

#: Where a pod keeps what is runctl's; in the drill below a folder of its own.
HOST_ROOT = "/var/lib/runctl"
KEYS = {"AWS_ACCESS_KEY_ID": "runpod:key_id", "AWS_SECRET_ACCESS_KEY": "runpod:key"}


@dataclass
class RunpodBench(Bench):
    """Scripts write on pods, which are folders in the drill."""

    cloud: RunpodCloud = field(kw_only=True)
    bucket: str | None = None
    patience_s: float = 60.0
    answers_s: float = 3.0
    at_once_s: float = 12.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._before = {one["id"] for one in self.cloud.pods()}

    def spec(self, script: str = "") -> LaunchSpec:
        spec = super().spec(script)
        if self.bucket is not None:
            spec = replace(spec, secrets=KEYS)
            self.rundir(spec).write_spec(spec)
        return spec

    @property
    def run_root(self) -> str:
        return super().run_root if self.bucket is None else f"s3://{self.bucket}/runs"

    def _pods(self) -> list[dict[str, Any]]:
        return [one for one in self.cloud.pods() if one["id"] not in self._before]

    def written(self, name: str) -> list[Path]:
        folders = [Path(one["folder"] + HOST_ROOT) for one in self._pods()]
        return [path for folder in folders for path in folder.glob(f"*/a*/project/{name}")]

    def starts(self) -> list[dict]:
        starts = []
        for path in self.written("starts"):
            root = path.parents[3]
            for text in path.read_text().splitlines():
                start = json.loads(text)
                run_dir = start["env"]["RUNCTL_RUN_DIR"]
                run_id, attempt = start["env"]["RUNCTL_RUN_ID"], int(start["env"]["RUNCTL_ATTEMPT"])
                planned = {
                    # A pod's folder in the drill has another path than on RunPod, and a digest of it is in a name.
                    HostDir.for_attempt(run_id, attempt, run_dir).path.parent.name: HostDir.for_attempt(
                        run_id, attempt, run_dir.replace(str(root), HOST_ROOT)
                    ).path.parent.name,
                    str(root.parents[2] / "tmp") + f"/runctl-{os.getuid()}": f"{HOST_ROOT}/tmp/runctl-0",
                    str(root): HOST_ROOT,
                    f'["{sys.executable}"': '["python3"',
                }
                starts.append(json.loads(functools.reduce(lambda told, one: told.replace(*one), planned.items(), text)))
        return starts

    def lose_the_agent(self, handle: RunHandle) -> None:
        for pid in find_by_environment(MARK, handle.address["instance"]):
            with contextlib.suppress(psutil.Error):  # another of its processes ended meanwhile
                if "runctl.agent" in psutil.Process(pid).cmdline():
                    psutil.Process(pid).kill()

    def traces(self) -> object:
        return super().traces(), [one["id"] for one in self.cloud.pods()]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunpodCloud]:
    with loopback(tmp_path_factory.mktemp("runpod")) as cloud:
        yield cloud


class TestRunpod(PlatformContract):
    @pytest.fixture
    def bench(self, cloud: RunpodCloud, tmp_path: Path) -> Bench:
        config = RunpodConfig(gpu_type=GPU, keep_on_failure="0", start="exec start.sh")
        return RunpodBench(lambda project: RunpodPlatform(project, config, print), tmp_path, cloud=cloud)


@pytest.mark.soak
class TestRunpodByStartCommand(PlatformContract):
    @pytest.fixture
    def bench(self, cloud: RunpodCloud, tmp_path: Path, s3: Any) -> Bench:
        cloud.set_secret("key_id", s3.env["AWS_ACCESS_KEY_ID"])
        cloud.set_secret("key", s3.env["AWS_SECRET_ACCESS_KEY"])
        config = RunpodConfig(gpu_type=GPU, keep_on_failure="0", transport=Transport.start_command)
        return RunpodBench(
            lambda project: RunpodPlatform(project, config, print), tmp_path, cloud=cloud, bucket=s3.bucket()
        )
